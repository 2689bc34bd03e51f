//! What was seen of a row, in a form that two programs and a file can be compared in.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What was seen of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Outcome {
    /// The answers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) answers: Vec<Answer>,
    /// Lines that a program wrote on standard output, without its log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) printed: Vec<String>,
    /// What the program said last on standard error, in the form that it keeps for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<String>,
    /// Further things that were looked at, one a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) found: Vec<String>,
    /// What became of the process.
    pub(crate) fate: String,
}

/// An answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// The status line, to its end.
    pub(crate) status: String,
    /// The header lines but for the length, which must be right.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// Replaces what differs from one run to the next.
#[derive(Clone, Debug)]
pub(crate) struct Normaliser {
    replaced: Vec<(String, &'static str)>,
}

impl Normaliser {
    pub(crate) fn new(dir: &Path, program: &Path) -> Self {
        let text = |path: &Path| path.display().to_string();
        let program = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
        Self { replaced: vec![(text(&program), "PROGRAM"), (text(dir), "DIR")] }
    }

    pub(crate) fn text(&self, text: &str) -> String {
        let replace = |text: String, (what, by): &(String, &str)| text.replace(what.as_str(), by);
        self.replaced.iter().fold(text.to_owned(), replace)
    }
}

/// A line of the program's log begins with the time.
pub(crate) fn is_log(line: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        line.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    digits(0..4) && line.get(4..5) == Some("-") && digits(5..7) && line.get(10..11) == Some("T")
}
