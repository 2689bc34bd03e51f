//! A snapshot, as it is shown.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use super::Time;
use crate::cli::output::Show;
use crate::cli::text::{or_dash, since};

/// A captured state.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) has_memory: bool,
    pub(crate) size_bytes: i64,
    pub(crate) made_with: BTreeMap<String, String>,
    pub(crate) pinned_by: Vec<String>,
    pub(crate) create_time: Option<Time>,
    pub(crate) vm_uid: String,
}

impl From<v1::Snapshot> for Snapshot {
    fn from(snapshot: v1::Snapshot) -> Self {
        Self {
            name: snapshot.name,
            uid: snapshot.uid,
            has_memory: snapshot.has_memory,
            size_bytes: snapshot.size_bytes,
            made_with: snapshot.made_with,
            pinned_by: snapshot.pinned_by,
            create_time: snapshot.create_time.map(Time),
            vm_uid: snapshot.vm_uid,
        }
    }
}

impl Show for Snapshot {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "MEMORY", "SIZE", "AGE", "PINNED BY", "UID"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            if self.has_memory { "yes" } else { "no" }.to_owned(),
            format!("{:.1} MiB", self.size_bytes as f64 / f64::from(1 << 20)),
            since(self.create_time.as_ref().map(|time| &time.0), now),
            or_dash(&self.pinned_by.join(",")),
            self.uid.clone(),
        ]
    }
}
