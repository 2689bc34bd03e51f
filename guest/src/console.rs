//! What the guest says to whoever watches its console.

use std::fs::OpenOptions;
use std::io::Write;

/// Writes `text` as a line of its own to the console and waits until it is out.
///
/// A console that is missing or broken is no reason to stop: the text is lost then.
pub(crate) fn line(text: &str) {
    let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") else { return };
    // One write, so that messages of the kernel come before or after, and not within.
    if console.write_all(format!("{text}\n").as_bytes()).is_ok() {
        // The machine may end right after this: what still waits in the tty would be lost.
        // A console that is no terminal has nothing to wait for.
        let _ = rustix::termios::tcdrain(&console);
    }
}
