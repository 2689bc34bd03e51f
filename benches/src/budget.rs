//! Budgets: what a figure is allowed to be, what it was, and whether that is met.
//!
//! A budget is met by the median; the interval beside it says how far the run can be trusted. What
//! was not measured is shown as that, with the reason: a budget that nobody measured is not met.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Ratio;

/// What a ratio may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    /// Whether `ratio` keeps to it.
    pub fn allows(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// What was measured of a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the budget is for, of ours: as people read it.
    pub ours: String,
    /// What it is held against.
    pub theirs: String,
    /// The median of the ratios of blocks.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
}

impl Measured {
    /// `ours` and `theirs` say what the two sides showed in absolute figures.
    pub fn new(ours: impl Into<String>, theirs: impl Into<String>, ratio: Ratio) -> Self {
        let Ratio { median, low, high } = ratio;
        Self { ours: ours.into(), theirs: theirs.into(), ratio: median, low, high }
    }
}

/// A budget, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub what: String,
    /// What is allowed.
    pub bound: Bound,
    /// What was measured, or why nothing was.
    pub outcome: Result<Measured, String>,
    /// The same of ours over a plain hearth, where ours does more than that one: what that costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_plain: Option<Result<Measured, String>>,
}

impl Row {
    /// One that was measured.
    pub fn measured(what: impl Into<String>, bound: Bound, measured: Measured) -> Self {
        Self { what: what.into(), bound, outcome: Ok(measured), over_plain: None }
    }

    /// One that was not, and why.
    pub fn not_measured(what: impl Into<String>, bound: Bound, why: impl Into<String>) -> Self {
        Self { what: what.into(), bound, outcome: Err(why.into()), over_plain: None }
    }

    /// Of what was measured, or why nothing was.
    pub fn of(what: impl Into<String>, bound: Bound, outcome: Result<Measured, String>) -> Self {
        Self { what: what.into(), bound, outcome, over_plain: None }
    }

    /// Whether it was measured and is met.
    pub fn is_met(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|it| self.bound.allows(it.ratio))
    }

    /// Whether it was measured and is not met.
    pub fn is_missed(&self) -> bool {
        self.outcome.is_ok() && !self.is_met()
    }
}

/// A figure without a budget, as a person reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// With its unit.
    pub value: String,
}

impl Figure {
    /// `value` has its unit.
    pub fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into() }
    }
}

/// The table of budgets, in Markdown; with what is over a plain hearth where a row has that.
pub fn table(rows: &[Row]) -> String {
    let has_plain = rows.iter().any(|row| row.over_plain.is_some());
    let mut text = "| what | budget | measured | of | against | met |".to_owned();
    let mut rule = "|---|---|---|---|---|---|".to_owned();
    if has_plain {
        text.push_str(" over a plain hearth | of that |");
        rule.push_str("---|---|");
    }
    text.push_str(&format!("\n{rule}\n"));
    for row in rows {
        let Row { what, bound, outcome, over_plain } = row;
        let line = match outcome {
            Ok(Measured { ours, theirs, ratio, low, high }) => {
                let met = if row.is_met() { "yes" } else { "**no**" };
                format!("{ratio:.2} [{low:.2}, {high:.2}] | {ours} | {theirs} | {met} |")
            }
            Err(why) => format!("not measured: {why} | | | - |"),
        };
        text.push_str(&format!("| {what} | {bound} | {line}"));
        match over_plain {
            Some(Ok(Measured { theirs, ratio, low, high, .. })) => {
                text.push_str(&format!(" {ratio:.2} [{low:.2}, {high:.2}] | {theirs} |"));
            }
            Some(Err(why)) => text.push_str(&format!(" not measured: {why} | |")),
            None if has_plain => text.push_str(" | |"),
            None => {}
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ratio: f64) -> Measured {
        Measured::new("3 us", "2 us", Ratio { median: ratio, low: ratio - 0.1, high: ratio + 0.1 })
    }

    #[test]
    fn a_budget_is_met_up_to_its_bound_and_only_when_it_was_measured() {
        let row = |bound, ratio| Row::measured("it", bound, measured(ratio));
        assert!(row(Bound::AtMost(1.5), 1.5).is_met());
        assert!(row(Bound::AtMost(1.5), 1.51).is_missed());
        assert!(row(Bound::AtLeast(0.7), 0.7).is_met());
        assert!(row(Bound::AtLeast(0.7), 0.69).is_missed());
        let unknown = Row::not_measured("it", Bound::AtMost(1.0), "no KVM");
        assert!(!unknown.is_met() && !unknown.is_missed());
    }

    #[test]
    fn the_table_says_what_is_missed_and_what_was_not_measured() {
        let text = table(&[
            Row::measured("fast", Bound::AtMost(1.5), measured(1.2)),
            Row::measured("slow", Bound::AtMost(1.5), measured(1.8)),
            Row::not_measured("absent", Bound::AtMost(1.5), "no KVM"),
        ]);
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "| fast | <= 1.5 | 1.20 [1.10, 1.30] | 3 us | 2 us | yes |");
        assert!(lines[1].ends_with("| **no** |"), "{}", lines[1]);
        assert_eq!(lines[2], "| absent | <= 1.5 | not measured: no KVM | | | - |");
    }

    #[test]
    fn what_is_over_a_plain_hearth_stands_beside() {
        let slower = measured(1.1);
        let row = Row {
            over_plain: Some(Ok(slower)),
            ..Row::measured("guarded", Bound::AtMost(1.5), measured(1.2))
        };
        let text = table(&[row, Row::measured("plain", Bound::AtMost(1.5), measured(1.1))]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].ends_with("| yes | 1.10 [1.00, 1.20] | 2 us |"), "{}", lines[2]);
        assert!(lines[3].ends_with("| yes | | |"), "{}", lines[3]);
        let cells = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{text}");
    }
}
