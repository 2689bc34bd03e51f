//! A table that is written over where it stands.
//!
//! The cursor goes up by the lines that were written, and stays visible: a command that is ended at any moment
//! leaves a terminal that needs no repair.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Step;
use crate::cli::error::Result;
use crate::cli::output::{Show, cut, table, terminal_size, write_out};

/// A terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// See the module.
pub(super) struct Board<T> {
    items: BTreeMap<String, T>,
    /// Lines that are on the terminal.
    drawn: usize,
    /// Everything that there is was told.
    is_whole: bool,
    /// What is said below the table.
    remark: String,
}

impl<T: Show> Board<T> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { items: BTreeMap::new(), drawn: 0, is_whole: false, remark: String::new() }
    }

    /// Takes a step in.
    pub(super) fn take(&mut self, step: Step<T>) {
        match step {
            Step::Event(what, item) => {
                self.remark.clear();
                match what.as_str() {
                    "DELETED" => self.items.remove(&item.key()),
                    _ => self.items.insert(item.key(), item),
                };
            }
            Step::Synced => {
                self.remark.clear();
                self.is_whole = true;
            }
            // What is shown stays until there is more to show.
            Step::Afresh => {
                self.items.clear();
                self.is_whole = false;
            }
            Step::Away(why) => self.remark = why,
        }
    }

    /// Takes in all that there is.
    pub(super) fn take_all(&mut self, items: Vec<T>) {
        self.items = items.into_iter().map(|item| (item.key(), item)).collect();
        self.is_whole = true;
        self.remark.clear();
    }

    /// Shows what there is now, once that is known.
    pub(super) fn draw(&mut self) -> Result<()> {
        if !self.is_whole && self.remark.is_empty() {
            return Ok(());
        }
        let (width, height) = terminal_size().unwrap_or(USUAL);
        let text = table(self.items.values(), Some(width)).text;
        let lines = frame(&text, &self.remark, width, height);
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\r\u{1b}[{}A", self.drawn);
        }
        for line in &lines {
            // Erased before and not behind: behind a line that is as wide as the terminal stands its last letter.
            let _ = writeln!(out, "\u{1b}[K{line}");
        }
        // Nothing is left of a longer one.
        out.push_str("\u{1b}[J");
        self.drawn = lines.len();
        write_out(out.as_bytes())
    }
}

/// The lines of `text` and what is said below it, as far as they have room: the last line of the terminal is
/// where the cursor stands.
fn frame(text: &str, remark: &str, width: usize, height: usize) -> Vec<String> {
    let room = height.saturating_sub(1).max(2);
    let mut below = Vec::new();
    if !remark.is_empty() {
        below.push(cut(remark, width));
    }
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if lines.len() + below.len() > room {
        let kept = room.saturating_sub(below.len() + 1).max(1);
        let rest = format!("{} more have no room here", lines.len() - kept);
        lines.truncate(kept);
        below.insert(0, cut(&rest, width));
    }
    lines.append(&mut below);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_no_higher_than_the_terminal() {
        let text = "NAME\na\nb\nc\nd\n";
        assert_eq!(frame(text, "", 80, 24).len(), 5);
        assert_eq!(frame(text, "", 80, 5), ["NAME", "a", "b", "2 more have no room here"]);
        let away = "the server is away";
        assert_eq!(frame(text, away, 10, 24).last().unwrap(), "the serve…");
        assert_eq!(frame(text, away, 80, 5), ["NAME", "a", "3 more have no room here", away]);
        for height in 0..10 {
            assert!(frame(text, away, 80, height).len() < height.max(4), "{height}");
        }
    }
}
