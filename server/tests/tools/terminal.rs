//! Commands on a terminal of a case's own, as a person at one has them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use hearth_providers::env::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::site::{Ended, LONG};

/// Runs a command on a terminal, types `answer` where it shows `question`, and answers how it ended;
/// its errors are what the terminal has shown.
pub(crate) fn answer(mut command: Command, question: &str, answer: &str) -> Ended {
    let (mut person, terminal) = open();
    command.stdin(terminal.try_clone().unwrap()).stderr(terminal).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It holds the terminal open, whose end is when the program closes it.
    drop(command);
    let mut shown = String::new();
    while !shown.ends_with(question) {
        assert!(read_more(&mut person, &mut shown), "it ended without the question: {shown:?}");
    }
    person.write_all(answer.as_bytes()).unwrap();
    while read_more(&mut person, &mut shown) {}
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    Ended { code: child.wait().unwrap().code().unwrap_or(-1), out, err: shown }
}

/// A terminal: the person's end, and the program's.
pub(crate) fn open() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    fcntl_setfd(&person, FdFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let no_control = OFlags::NOCTTY.bits().cast_signed();
    let mut options = File::options();
    let options = options.read(true).write(true).custom_flags(no_control);
    let terminal = options.open(Path::new(name.to_str().unwrap())).unwrap();
    (person.into(), terminal)
}

/// Waits for more to be shown; whether there can be more.
pub(crate) fn read_more(person: &mut File, shown: &mut String) -> bool {
    let limit = Deadline::after(LONG).left().and_then(|left| Timespec::try_from(left).ok());
    let ready = poll(&mut [PollFd::new(person, PollFlags::IN)], limit.as_ref()).unwrap();
    assert!(ready > 0, "it neither goes on nor ends: {shown:?}");
    let mut bytes = [0; 1024];
    // That nobody has the other end any longer is told as an error.
    let count = person.read(&mut bytes).unwrap_or(0);
    shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    count > 0
}
