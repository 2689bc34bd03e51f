//! How answers are printed: tables that fit the terminal, JSON with stable names, or names alone.
//!
//! Everything is made first and written at once, so a failing command prints no half table. A reader
//! that goes away, as `head` does, ends the command quietly.

mod table;
mod tone;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::time::SystemTime;

use clap::ValueEnum;
use hearth_providers::env::{Env as _, SystemEnv};
use serde::Serialize;

use super::error::{Error, Result};

pub(crate) use table::{Cell, Laid, Paper, cut, lay};
pub(crate) use tone::{Tone, err_has_colours, out_has_colours};

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: tables that fit the terminal.
    #[default]
    Table,
    /// For people: every column of a table as wide as it is.
    Wide,
    /// For programs: field names as in the API, times as RFC 3339.
    Json,
    /// Resource names, one a line.
    Name,
}

/// A resource, as every format shows it.
pub(crate) trait Show: Serialize {
    /// The headings of a table of these.
    const HEADINGS: &'static [&'static str];

    /// Its resource name.
    fn name(&self) -> &str;

    /// Its row, a cell for each heading.
    fn row(&self, now: SystemTime) -> Vec<String>;

    /// How what its row has under `heading` is meant.
    fn tone(&self, _heading: &str) -> Tone {
        Tone::Plain
    }

    /// What tells it from others, whatever they were or will be called.
    fn key(&self) -> String {
        self.name().to_owned()
    }

    /// What it is now, on one line.
    fn line(&self) -> String {
        self.name().to_owned()
    }
}

/// Prints resources; in JSON as an object with the list under `key`.
pub(crate) fn print_list<T: Show>(format: Format, key: &str, items: &[T]) -> Result<()> {
    match format {
        Format::Table | Format::Wide => {
            let width = (format == Format::Table).then(terminal_width).flatten();
            let laid = table(items.iter(), width);
            write_out(laid.text.as_bytes())?;
            if laid.left_out > 0 {
                note(&format!("{} columns have no room here: -o wide shows them", laid.left_out));
            }
            Ok(())
        }
        // A map of ours, and not a JSON value: that would sort the fields of the items.
        Format::Json => print_json(&BTreeMap::from([(key, items)])),
        Format::Name => write_out(names(items).as_bytes()),
    }
}

/// The table of `items` for standard output, no wider than `width`.
pub(crate) fn table<'a, T: Show + 'a>(
    items: impl Iterator<Item = &'a T>,
    width: Option<usize>,
) -> Laid {
    let now = SystemEnv.now();
    let row = |item: &T| {
        let cells = item.row(now).into_iter().zip(T::HEADINGS);
        cells.map(|(text, heading)| Cell::new(&text, item.tone(heading))).collect()
    };
    let rows: Vec<_> = items.map(row).collect();
    lay(T::HEADINGS, &rows, Paper { width, colours: out_has_colours() })
}

/// A small table within a text.
pub(crate) fn plain_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &String| Cell::new(text, Tone::Plain);
    let rows: Vec<_> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    lay(headings, &rows, Paper { width: None, colours: out_has_colours() }).text
}

/// Prints one resource.
pub(crate) fn print_one<T: Show>(format: Format, item: &T) -> Result<()> {
    match format {
        Format::Json => print_json(item),
        Format::Table | Format::Wide | Format::Name => {
            print_list(format, "", std::slice::from_ref(item))
        }
    }
}

/// Prints one resource as `text` says where it is for people.
pub(crate) fn print_as<T: Show>(format: Format, item: &T, text: &str) -> Result<()> {
    match format {
        Format::Table | Format::Wide => write_out(text.as_bytes()),
        Format::Json | Format::Name => print_one(format, item),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Failed(format!("an answer cannot be shown: {error}")))?;
    write_out(format!("{text}\n").as_bytes())
}

/// Writes to standard output, now.
pub(crate) fn write_out(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::ReaderGone,
        _ => Error::Failed(format!("standard output: {error}")),
    })
}

/// Says something beside the answer, on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Lines of `label  value`, aligned; those without a value are left out.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let known = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = known().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in known() {
        let _ = writeln!(text, "{label:width$}  {value}");
    }
    text
}

fn names<T: Show>(items: &[T]) -> String {
    items.iter().fold(String::new(), |mut text, item| {
        let _ = writeln!(text, "{}", item.name());
        text
    })
}

/// Columns of the terminal; `None` when the output is not one.
fn terminal_width() -> Option<usize> {
    terminal_size().map(|(width, _)| width)
}

/// Columns and lines of the terminal that standard output is, if it is one and says.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    size_of(io::stdout())
}

/// The same of standard error.
pub(crate) fn err_terminal_size() -> Option<(usize, usize)> {
    size_of(io::stderr())
}

fn size_of(stream: impl rustix::fd::AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let (width, height) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (width > 0 && height > 0).then_some((width, height))
}

/// Whether `stream` is a terminal on which lines can be written over.
pub(crate) fn can_redraw(stream: &impl io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_without_a_value_are_left_out() {
        let text = facts(&[("name", "a".to_owned()), ("pid", String::new())]);
        assert_eq!(text, "name  a\n");
    }
}
