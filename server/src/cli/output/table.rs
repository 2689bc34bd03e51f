//! Tables: columns that line up, as wide as what they are shown on and no wider.
//!
//! Where the room is short, columns with nothing in them go first, then the widest give way, the names last of
//! them, and then the last columns are left out. A cell is one line, and nothing in it drives the terminal: what it
//! says may come from a guest or a backend.

use std::fmt::Write as _;

use super::tone::Tone;
use crate::cli::text::printable;

/// Blanks between columns.
const GAP: usize = 2;
/// The narrowest that a column gets to make room.
const LEAST: usize = 6;

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in this tone. Line ends become blanks.
    pub(crate) fn new(text: &str, tone: Tone) -> Self {
        Self { text: printable(text).replace(['\n', '\t'], " "), tone }
    }
}

/// What a table is shown on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paper {
    /// Columns of the terminal; `None`: as many as it takes.
    pub(crate) width: Option<usize>,
    /// Whether it shows colours.
    pub(crate) colours: bool,
}

/// A table that was laid out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Laid {
    /// Its lines, each with its end.
    pub(crate) text: String,
    /// Columns with something in them for which there was no room.
    pub(crate) left_out: usize,
}

/// Lays a table out on `paper`.
pub(crate) fn lay(headings: &[&str], rows: &[Vec<Cell>], paper: Paper) -> Laid {
    let mut columns: Vec<_> = headings
        .iter()
        .enumerate()
        .map(|(at, heading)| {
            let cells = || rows.iter().filter_map(move |row| row.get(at));
            let widths = cells().map(|cell| length(&cell.text));
            Column {
                at,
                width: widths.chain([length(heading)]).max().unwrap_or(0),
                is_empty: cells().all(|cell| matches!(cell.text.as_str(), "" | "-")),
            }
        })
        .collect();
    let left_out = paper.width.map_or(0, |limit| fit(&mut columns, limit));
    let mut text = String::new();
    let headings: Vec<_> = headings.iter().map(|text| Cell::new(text, Tone::Title)).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut blanks = 0;
        for column in &columns {
            let Some(cell) = row.get(column.at) else { continue };
            let shown = cut(&cell.text, column.width);
            // Blanks come before the next cell that there is, so that no line ends with some.
            if !shown.is_empty() {
                let _ = write!(text, "{:blanks$}{}", "", cell.tone.paint(&shown, paper.colours));
                blanks = 0;
            }
            blanks += column.width - length(&shown) + GAP;
        }
        text.push('\n');
    }
    Laid { text, left_out }
}

struct Column {
    at: usize,
    width: usize,
    is_empty: bool,
}

/// Has `columns` fit `limit`; answers how many with something in them it left out.
fn fit(columns: &mut Vec<Column>, limit: usize) -> usize {
    let total = |columns: &[Column], most: usize| {
        let widths = columns.iter().map(|column| column.width.min(most)).sum::<usize>();
        widths + GAP * columns.len().saturating_sub(1)
    };
    while total(columns, usize::MAX) > limit {
        match columns.iter().rposition(|column| column.is_empty) {
            Some(empty) if columns.len() > 1 => drop(columns.remove(empty)),
            _ => break,
        }
    }
    let mut left_out = 0;
    while total(columns, LEAST) > limit && columns.len() > 1 {
        columns.pop();
        left_out += 1;
    }
    while total(columns, usize::MAX) > limit {
        match columns.iter_mut().filter(|column| column.width > LEAST).max_by_key(give_way) {
            Some(widest) => widest.width -= 1,
            None => break,
        }
    }
    left_out
}

/// The highest gives way. Names are what one goes on with: they count for half of what they are.
fn give_way(column: &&mut Column) -> usize {
    match column.at {
        0 => column.width / 2,
        _ => column.width,
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// `text` in `width` columns at most.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match length(text) > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).take(width).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<Cell>> {
        rows.iter()
            .map(|row| row.iter().map(|text| Cell::new(text, Tone::Plain)).collect())
            .collect()
    }

    fn narrow(width: usize) -> Paper {
        Paper { width: Some(width), colours: false }
    }

    const HEADINGS: [&str; 3] = ["NAME", "VALUE", "NOTE"];

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let rows = rows(&[&["a", "a-very-long-cell-indeed", ""], &["bbb", "c", "d"]]);
        let laid = lay(&HEADINGS, &rows, Paper::default());
        assert_eq!(
            laid.text,
            "NAME  VALUE                    NOTE\na     a-very-long-cell-indeed\nbbb   c                        d\n"
        );
    }

    #[test]
    fn what_is_empty_goes_before_anything_is_cut() {
        let rows = rows(&[&["a", "a-very-long-cell-indeed", ""], &["bbb", "c", "-"]]);
        let laid = lay(&HEADINGS, &rows, narrow(29));
        assert!(laid.text.contains("a-very-long-cell-indeed"), "{}", laid.text);
        assert!(!laid.text.contains("NOTE") && laid.left_out == 0, "{laid:?}");
    }

    #[test]
    fn the_widest_gives_way_and_then_the_last_are_left_out() {
        let rows = rows(&[&["a", "a-very-long-cell-indeed", "a note of some length"]]);
        for width in 1..60 {
            let laid = lay(&HEADINGS, &rows, narrow(width));
            let fits = laid.text.lines().all(|line| length(line) <= width.max(LEAST));
            assert!(fits, "{width}: {}", laid.text);
            assert_eq!(laid.left_out > 0, width < 4 + 2 * (GAP + LEAST), "{width}: {laid:?}");
        }
        assert!(lay(&HEADINGS, &rows, narrow(30)).text.contains('…'));
    }

    #[test]
    fn names_give_way_after_the_rest() {
        let uid = "a-uid-that-is-as-long-as-a-name";
        let rows = rows(&[&["a-name-that-is-as-long-as-a-uid", "1", uid]]);
        let laid = lay(&HEADINGS, &rows, narrow(60));
        assert!(laid.text.contains("a-name-that-is-as-long-as-a-uid"), "{}", laid.text);
        assert!(!laid.text.contains(uid) && laid.left_out == 0, "{laid:?}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let tones = [[Cell::new("FAILED", Tone::Bad), Cell::new("a", Tone::Plain)].to_vec()];
        let paper = Paper { width: None, colours: true };
        let laid = lay(&["STATE", "NAME"], &tones, paper);
        assert!(laid.text.ends_with("\u{1b}[31mFAILED\u{1b}[0m  a\n"), "{laid:?}");
    }

    #[test]
    fn a_cell_is_one_line_and_drives_no_terminal() {
        let laid = lay(&["NOTE"], &rows(&[&["a\nb\u{1b}[2J"]]), Paper::default());
        assert_eq!(laid.text, "NOTE\na b\\u{1b}[2J\n");
    }
}
