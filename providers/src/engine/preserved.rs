//! State directories that outlive their VMs, because an artifact was made of them.
//!
//! `preserved.json` in an instance's directory names the artifacts. With it a destroy takes away
//! the machine's files and leaves the records, and says so in the same file: what is found at a
//! start is then no VM, and no orphan either.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::instance::RECORD;
use crate::backend::Backend;
use crate::error::Result;
use crate::files;
use crate::id::Uid;

const FILE: &str = "preserved.json";

/// What the file says. Fields that are missing are blank: it may be older than they are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Preserved {
    artifacts: BTreeSet<String>,
    /// The VM is destroyed.
    ended: bool,
}

impl Preserved {
    fn read(dir: &Path) -> Option<Self> {
        files::read_json(&dir.join(FILE)).ok()
    }

    fn write(&self, dir: &Path) -> Result<()> {
        files::write_json_through(&dir.join(FILE), self)
    }
}

/// The directory is all that is left of its VM.
pub(super) fn is_left_of_a_vm(dir: &Path) -> bool {
    Preserved::read(dir).is_some_and(|preserved| preserved.ended)
}

/// Removes what is in the directory of a destroyed VM, or all of it if no artifact keeps it.
pub(super) fn remove(dir: &Path) {
    let kept = Preserved::read(dir).filter(|preserved| !preserved.artifacts.is_empty());
    let Some(kept) = kept else { return files::remove_dir(dir) };
    if let Err(error) = (Preserved { ended: true, ..kept }).write(dir) {
        tracing::warn!(dir = %dir.display(), %error, "a preserved directory looks like a VM's");
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_name().to_str() {
            Some(RECORD | FILE) => {}
            _ if entry.file_type().is_ok_and(|it| it.is_dir()) => files::remove_dir(&path),
            _ => drop(std::fs::remove_file(path)),
        }
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn preserve(&self, uid: Uid, artifact: &str) -> Result<()> {
        let Some(paths) = self.directory.paths() else { return Ok(()) };
        let dir = paths.instance(uid);
        let mut preserved = Preserved::read(&dir).unwrap_or_default();
        match preserved.artifacts.insert(artifact.to_owned()) && dir.is_dir() {
            true => preserved.write(&dir),
            false => Ok(()),
        }
    }

    pub(super) fn unpreserve(&self, uid: Uid, artifact: &str) -> Result<()> {
        let Some(paths) = self.directory.paths() else { return Ok(()) };
        let dir = paths.instance(uid);
        let Some(mut preserved) = Preserved::read(&dir) else { return Ok(()) };
        if !preserved.artifacts.remove(artifact) {
            return Ok(());
        }
        if preserved.ended && preserved.artifacts.is_empty() {
            files::remove_dir(&dir);
            return Ok(());
        }
        preserved.write(&dir)
    }
}

/// What is written down of an instance that an artifact keeps.
pub(super) fn fuzz(text: &[u8]) {
    drop(files::fuzz::<Preserved>(text));
}
