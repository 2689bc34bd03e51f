//! What a snapshot is made of, beside the guest's state.
//!
//! ```text
//! image.json     the blueprint, and what it was made with
//! state          QEMU's state of devices; of a clone that of memory too
//! ram            memory, of a machine that was booted
//! disk-<n>.<m>   layer m of writable disk n; the lowest is raw
//! ```
//!
//! Two kinds: a machine that was booted has its memory in a file, which is copied, and clones map
//! that copy, so a restore takes the same time whatever the size. A clone has private memory:
//! all of it goes through QEMU, and is read again at each restore.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arguments::RAM;
use super::blueprint::{Blueprint, Memory};
use super::disk::Unusable;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::SnapshotView;

pub(super) const STATE: &str = "state";
const FILE: &str = "image.json";

/// What is kept of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub(super) made_with: BTreeMap<String, String>,
    /// Of a machine that goes on from here; paths are names in the snapshot's directory.
    pub(super) blueprint: Blueprint,
}

impl Image {
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(FILE))
    }

    /// Memory is in a file of its own, and not in the state.
    pub(super) fn has_memory_file(&self) -> bool {
        matches!(self.blueprint.memory, Memory::CloneOf(_))
    }

    /// Refuses what would not restore, before anything is made.
    ///
    /// # Errors
    /// `SnapshotIncompatible` naming both sides; `SnapshotNotFound` naming the file.
    pub(super) fn check(
        &self,
        dir: &Path,
        view: &SnapshotView,
        host: &BTreeMap<String, String>,
    ) -> Result<()> {
        let incompatible = |reason: String| VmRuntimeError::SnapshotIncompatible {
            snapshot_id: view.snapshot_id.clone(),
            reason,
        };
        let missing = |reason: String| VmRuntimeError::SnapshotNotFound {
            vm: view.vm_id.to_string(),
            snapshot_id: view.snapshot_id.clone(),
            reason,
        };
        for (name, here) in host {
            let there = self.made_with.get(name).map_or("unknown", String::as_str);
            if there != here {
                let reason = format!("it was made with {name} {there}, and here is {here}");
                return Err(incompatible(reason));
            }
        }
        let length = |name: &str| {
            let path = dir.join(name);
            let metadata = path.metadata();
            metadata
                .map(|metadata| metadata.len())
                .map_err(|error| missing(format!("{}: {error}", path.display())))
        };
        if length(STATE)? == 0 {
            return Err(missing("its state is empty".to_owned()));
        }
        // Memory beyond the end of a mapped file is not an error, but the end of the process.
        if self.has_memory_file() && length(RAM)? != self.blueprint.mem_size_bytes() {
            return Err(missing("its memory is cut short".to_owned()));
        }
        for disk in &self.blueprint.disks {
            disk.check(dir).map_err(|unusable| match unusable {
                Unusable::Missing(reason) => missing(reason),
                Unusable::Changed(reason) => incompatible(reason),
            })?;
        }
        Ok(())
    }
}
