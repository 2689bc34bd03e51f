//! An artifact, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use super::Time;
use crate::cli::output::Show;
use crate::cli::text::{id_of, since};

/// A frozen VM.
#[derive(Debug, Serialize)]
pub(crate) struct Artifact {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) provider: String,
    pub(crate) reference: String,
    pub(crate) vm: String,
    pub(crate) has_memory: bool,
    pub(crate) size_bytes: i64,
    pub(crate) resume_hint: String,
    pub(crate) export_hint: String,
    pub(crate) create_time: Option<Time>,
    pub(crate) expire_time: Option<Time>,
    pub(crate) tenant: String,
    pub(crate) template: String,
}

impl From<v1::Artifact> for Artifact {
    fn from(artifact: v1::Artifact) -> Self {
        Self {
            name: artifact.name,
            uid: artifact.uid,
            provider: artifact.provider,
            reference: artifact.reference,
            vm: artifact.vm,
            has_memory: artifact.has_memory,
            size_bytes: artifact.size_bytes,
            resume_hint: artifact.resume_hint,
            export_hint: artifact.export_hint,
            create_time: artifact.create_time.map(Time),
            expire_time: artifact.expire_time.map(Time),
            tenant: artifact.tenant,
            template: artifact.template,
        }
    }
}

impl Show for Artifact {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "VM", "PROVIDER", "MEMORY", "SIZE", "AGE", "UID"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        vec![
            id_of(&self.name).to_owned(),
            id_of(&self.vm).to_owned(),
            self.provider.clone(),
            if self.has_memory { "yes" } else { "no" }.to_owned(),
            format!("{:.1} MiB", self.size_bytes as f64 / f64::from(1 << 20)),
            since(self.create_time.as_ref().map(|time| &time.0), now),
            self.uid.clone(),
        ]
    }

    fn key(&self) -> String {
        format!("{} {}", self.name, self.uid)
    }

    fn line(&self) -> String {
        format!("{} of {}", self.name, self.vm)
    }
}
