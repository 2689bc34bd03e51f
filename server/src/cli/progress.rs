//! How far something is that a command waits for, on standard error: a bar on a terminal, a line for each change
//! elsewhere, nothing with `--quiet`.
//!
//! A bar is one line, written over and taken away in the end, also when the command is interrupted. Nothing of
//! the terminal is set that would have to be set back.

use std::io::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::output::{can_redraw, cut, err_terminal_size, note};
use super::text::short_duration;

/// Columns of a bar.
const BAR: usize = 24;
/// A terminal that does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    form: Form,
    begun: Instant,
    told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Nothing,
}

/// How much of something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Done.
    pub(crate) done: u64,
    /// Of so much; 0: nothing is to be done.
    pub(crate) of: u64,
}

impl Progress {
    /// Of something that begins now.
    pub(crate) fn begin(quiet: bool) -> Self {
        let form = match (quiet, can_redraw(&io::stderr())) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Bar,
            (false, false) => Form::Lines,
        };
        Self { form, begun: Instant::now(), told: String::new() }
    }

    /// Shows that so much is done of what `title` is about, and `what` goes on now.
    pub(crate) fn show(&mut self, title: &str, share: Share, what: &str) {
        match self.form {
            Form::Nothing => {}
            Form::Lines => {
                let line = format!("{title}: {what}");
                if line != self.told {
                    note(&line);
                    self.told = line;
                }
            }
            Form::Bar => {
                let width = err_terminal_size().map_or(USUAL_WIDTH, |(width, _)| width);
                let line = bar(title, share, what, self.begun.elapsed(), width);
                if line != self.told {
                    write(&format!("\r\u{1b}[K{line}"));
                    self.told = line;
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.form == Form::Bar && !self.told.is_empty() {
            write("\r\u{1b}[K");
        }
    }
}

fn write(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

impl Share {
    /// What is done, in parts of `whole`.
    fn scaled(self, whole: u64) -> u64 {
        match self.of {
            0 => whole,
            of => {
                let share = u128::from(self.done.min(of)) * u128::from(whole) / u128::from(of);
                u64::try_from(share).unwrap_or(whole)
            }
        }
    }
}

/// The line of a bar, short enough that the cursor stays on it.
fn bar(title: &str, share: Share, what: &str, took: Duration, width: usize) -> String {
    let filled = usize::try_from(share.scaled(BAR as u64)).unwrap_or(BAR);
    let head = if filled < BAR { ">" } else { "" };
    let took = short_duration(Duration::from_secs(took.as_secs()));
    let percent = share.scaled(100);
    let around = format!("[{:<BAR$}] {percent:>3}% {took:>4} ", "=".repeat(filled) + head);
    // A narrow terminal has no room for the picture.
    let picture = match width < BAR * 3 {
        true => format!("{percent:>3}% "),
        false => around,
    };
    cut(&format!("{picture}{title}: {what}"), width.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, of: u64, width: usize) -> String {
        bar("pools/a", Share { done, of }, "1 of 4 warm", Duration::from_secs(61), width)
    }

    #[test]
    fn a_bar_grows_with_what_is_done() {
        let half = "[============>           ]  50% 1m1s pools/a: 1 of 4 warm";
        assert_eq!(line(2, 4, 80), half);
        assert!(line(0, 4, 80).starts_with("[>                       ]   0%"));
        assert!(line(4, 4, 80).starts_with("[========================] 100%"));
        assert_eq!(line(9, 4, 80), line(4, 4, 80));
        assert_eq!(line(0, 0, 80), line(4, 4, 80));
        assert_eq!(line(u64::MAX, u64::MAX, 80), line(4, 4, 80));
    }

    #[test]
    fn a_bar_is_shorter_than_its_terminal() {
        for width in 1..120 {
            assert!(line(2, 4, width).chars().count() < width.max(2), "{width}");
        }
        assert_eq!(line(2, 4, 40), " 50% pools/a: 1 of 4 warm");
    }
}
