//! What `machine ls --json` answers: an array, of which a few fields are ours to read.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::{Seen, Stand};
use crate::error::{Result, VmRuntimeError};

#[derive(Deserialize)]
struct Line {
    name: String,
    state: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads the list.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Seen>> {
    let lines: Vec<Line> = serde_json::from_slice(text)
        .map_err(|error| VmRuntimeError::backend("smolvm's list makes no sense", error))?;
    let seen = lines.into_iter().map(|line| Seen {
        name: line.name,
        stand: stand(&line.state),
        labels: line.labels,
    });
    Ok(seen.collect())
}

fn stand(state: &str) -> Stand {
    match state {
        "created" => Stand::Created,
        "running" => Stand::Running,
        "stopped" => Stand::Stopped,
        "failed" => Stand::Failed,
        // Unreachable, frozen, and what later versions have.
        _ => Stand::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_past_what_is_not_ours() {
        let text = br#"[{"name": "hearth-a", "state": "created", "pid": null, "cpus": 1,
            "labels": {"k": "v"}}, {"name": "b", "state": "unreachable"}]"#;
        let seen = parse(text).unwrap();
        assert_eq!(seen[0].name, "hearth-a");
        assert_eq!(seen[0].stand, Stand::Created);
        assert_eq!(seen[0].labels["k"], "v");
        assert_eq!(seen[1].stand, Stand::Unclear);
    }

    #[test]
    fn an_empty_list_is_one_and_garbage_is_none() {
        assert_eq!(parse(b"[]\n").unwrap(), []);
        for garbage in ["", "null", "No machines found", "[{\"name\": 1}]"] {
            assert_eq!(parse(garbage.as_bytes()).unwrap_err().kind(), "backend", "{garbage}");
        }
    }
}
