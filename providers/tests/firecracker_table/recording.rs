//! What the real program was seen to do, in a file that CI holds the fake against.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::outcome::Outcome;

/// The outcomes by the rows' names.
pub(crate) type Recording = BTreeMap<String, Outcome>;

fn path() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/firecracker_table");
    dir.join("recorded-1.16.1.json")
}

/// The committed recording.
pub(crate) fn read() -> Recording {
    let text = std::fs::read_to_string(path()).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str(&text).expect("the recording makes sense")
}

/// Replaces it.
pub(crate) fn write(recording: &Recording) {
    let mut text = serde_json::to_string_pretty(recording).expect("a recording is JSON");
    text.push('\n');
    std::fs::write(path(), text).expect("the recording can be written");
}

/// How two outcomes differ, in lines; empty when they do not.
pub(crate) fn difference(one: (&str, &Outcome), other: (&str, &Outcome)) -> String {
    if one.1 == other.1 {
        return String::new();
    }
    let show = |(name, outcome): (&str, &Outcome)| {
        let text = serde_json::to_string_pretty(outcome).expect("an outcome is JSON");
        format!("{name}: {text}\n")
    };
    show(one) + &show(other)
}
