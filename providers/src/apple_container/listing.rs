//! What `container list` and `container inspect` answer, in the shape since 1.0 and in the older.
//!
//! The older one has the state as a word in `status`; the newer an object, with a `startedDate`
//! once the container was started.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::{Seen, Stand};
use crate::error::{Result, VmRuntimeError};

#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    configuration: Configuration,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    id: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    init_process: Option<Process>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Status {
    Word(String),
    #[serde(rename_all = "camelCase")]
    Object {
        state: String,
        started_date: Option<serde_json::Value>,
    },
}

/// What a container runs, as a build has to say it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) executable: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) working_directory: String,
    pub(super) user: User,
    /// Those of the container, which the tool keeps elsewhere.
    #[serde(skip)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct User {
    id: Option<Ids>,
    raw: Option<Raw>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Ids {
    uid: u32,
    gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    user_string: String,
}

impl Process {
    /// The user, as a build takes it; `None` for the image's own.
    pub(super) fn user(&self) -> Option<String> {
        let ids = self.user.id.as_ref().map(|ids| format!("{}:{}", ids.uid, ids.gid));
        ids.or_else(|| self.user.raw.as_ref().map(|raw| raw.user_string.clone()))
            .filter(|user| !user.is_empty())
    }
}

fn lines(text: &[u8]) -> Result<Vec<Line>> {
    serde_json::from_slice(text)
        .map_err(|error| VmRuntimeError::backend("container's list makes no sense", error))
}

/// Reads the list.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Seen>> {
    let seen = lines(text)?.into_iter().filter_map(|line| {
        let name = line.id.or(line.configuration.id)?;
        Some(Seen { name, stand: stand(&line.status), labels: line.configuration.labels })
    });
    Ok(seen.collect())
}

/// What the one container runs that was inspected.
pub(super) fn process_of(text: &[u8]) -> Result<Process> {
    let configuration = lines(text)?.into_iter().next().map(|line| line.configuration);
    let process = configuration.and_then(|configuration| {
        let labels = configuration.labels;
        configuration.init_process.map(|process| Process { labels, ..process })
    });
    process.ok_or_else(|| VmRuntimeError::Backend {
        what: "container does not tell what the container runs".to_owned(),
        source: None,
    })
}

fn stand(status: &Status) -> Stand {
    let (state, never_started) = match status {
        Status::Word(state) => (state, false),
        Status::Object { state, started_date } => (state, started_date.is_none()),
    };
    match state.as_str() {
        "running" => Stand::Running,
        "stopped" if never_started => Stand::Created,
        "stopped" => Stand::Stopped,
        // Stopping, unknown, and what later versions have.
        _ => Stand::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let old = br#"[{"status":"running","networks":[],"configuration":{"id":"a",
            "labels":{"k":"v"}}}, {"status":"stopping","configuration":{"id":"b"}}]"#;
        let old = parse(old).unwrap();
        assert_eq!((old[0].name.as_str(), old[0].stand), ("a", Stand::Running));
        assert_eq!(old[0].labels["k"], "v");
        assert_eq!(old[1].stand, Stand::Unclear);
        let new = br#"[
            {"id":"a","configuration":{"id":"a"},"status":{"state":"stopped","networks":[]}},
            {"id":"b","configuration":{"id":"b"},"status":{"state":"stopped","startedDate":1.5}}]"#;
        let new = parse(new).unwrap();
        assert_eq!([new[0].stand, new[1].stand], [Stand::Created, Stand::Stopped]);
    }

    #[test]
    fn garbage_is_no_list() {
        for garbage in ["", "{}", "[1]", "ID  IMAGE"] {
            assert_eq!(parse(garbage.as_bytes()).unwrap_err().kind(), "backend", "{garbage}");
        }
    }

    #[test]
    fn the_process_is_read_with_its_user_and_labels() {
        let text = br#"[{"id":"a","status":"stopped","configuration":{"labels":{"k":"v"},
            "initProcess":{"executable":"/bin/sh","arguments":["-c"],"environment":["A=b"],
            "workingDirectory":"/srv","user":{"id":{"uid":1,"gid":2}},"terminal":false}}}]"#;
        let process = process_of(text).unwrap();
        assert_eq!(process.user().as_deref(), Some("1:2"));
        assert_eq!(process.labels["k"], "v");
        assert_eq!(process.working_directory, "/srv");
    }
}
