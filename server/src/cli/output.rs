//! How answers are printed: tables that fit the terminal, JSON with stable names, or names alone.
//!
//! Everything is made first and written at once, so a failing command prints no half table. A reader
//! that goes away, as `head` does, ends the command quietly.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::time::SystemTime;

use clap::ValueEnum;
use hearth_providers::env::{Env as _, SystemEnv};
use serde::Serialize;

use super::error::{Error, Result};

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
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
}

/// Prints resources; in JSON as an object with the list under `key`.
pub(crate) fn print_list<T: Show>(format: Format, key: &str, items: &[T]) -> Result<()> {
    match format {
        Format::Table => {
            let now = SystemEnv.now();
            let rows: Vec<_> = items.iter().map(|item| item.row(now)).collect();
            write_out(table(T::HEADINGS, &rows, terminal_width()).as_bytes())
        }
        // A map of ours, and not a JSON value: that would sort the fields of the items.
        Format::Json => print_json(&BTreeMap::from([(key, items)])),
        Format::Name => write_out(names(items).as_bytes()),
    }
}

/// Prints one resource.
pub(crate) fn print_one<T: Show>(format: Format, item: &T) -> Result<()> {
    match format {
        Format::Json => print_json(item),
        Format::Table | Format::Name => print_list(format, "", std::slice::from_ref(item)),
    }
}

/// Prints one resource as `text` says where it is for people.
pub(crate) fn print_as<T: Show>(format: Format, item: &T, text: &str) -> Result<()> {
    match format {
        Format::Table => write_out(text.as_bytes()),
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
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// A table no wider than `limit`, for which the widest columns give way.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>], limit: Option<usize>) -> String {
    const GAP: usize = 2;
    const LEAST: usize = 6;
    let length = |text: &str| text.chars().count();
    let mut widths: Vec<_> = headings.iter().map(|heading| length(heading)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell));
        }
    }
    let gaps = GAP * widths.len().saturating_sub(1);
    while limit.is_some_and(|limit| widths.iter().sum::<usize>() + gaps > limit) {
        match widths.iter_mut().max().filter(|widest| **widest > LEAST) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    let mut text = String::new();
    let headings: Vec<_> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{:width$}{:GAP$}", fit(cell, *width), "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn fit(cell: &str, width: usize) -> String {
    match cell.chars().count() > width {
        true => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["a", "a-very-long-cell-indeed"], ["bbb", "c"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_line_up() {
        let text = table(&["NAME", "VALUE"], &rows(), None);
        assert_eq!(text, "NAME  VALUE\na     a-very-long-cell-indeed\nbbb   c\n");
    }

    #[test]
    fn the_widest_column_gives_way_on_a_narrow_terminal() {
        let text = table(&["NAME", "VALUE"], &rows(), Some(16));
        assert!(text.lines().all(|line| line.chars().count() <= 16), "{text}");
        assert!(text.contains("a-very-lo…"), "{text}");
    }

    #[test]
    fn facts_without_a_value_are_left_out() {
        let text = facts(&[("name", "a".to_owned()), ("pid", String::new())]);
        assert_eq!(text, "name  a\n");
    }
}
