//! What a snapshot is made of.
//!
//! ```text
//! image.json     the blueprint, what it was made with, and the sums below
//! state          Firecracker's state of vCPUs and devices
//! memory         the guest's memory, as long as it is; clones map it, nobody writes to it
//! drive-<id>     a copy of each writable drive
//! ```
//!
//! Firecracker says "bitcode error" of a snapshot of another version, and nothing at all, dying,
//! of a state with another's memory. So what must agree is written down and compared before a
//! process is started.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::blueprint::Blueprint;
use super::drive::Unusable;
use crate::beneath;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::local::image::Stamp;
use crate::model::SnapshotView;

pub(super) const STATE: &str = "state";
pub(super) const MEMORY: &str = "memory";
const FILE: &str = "image.json";

/// What is kept of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub(super) made_with: BTreeMap<String, String>,
    /// Of a machine that goes on from here.
    pub(super) blueprint: Blueprint,
    /// Of the state file: XXH3, 128 bits, in hexadecimal digits.
    state_sum: String,
    /// The memory file as it was when it was finished.
    memory: Stamp,
}

impl Image {
    /// Sums up the files in `dir`.
    pub(super) fn of(
        dir: &Path,
        blueprint: Blueprint,
        made_with: BTreeMap<String, String>,
    ) -> Result<Self> {
        let failed = |error| files::io_error(format!("look at {}", dir.display()), error);
        let state_sum = sum(&beneath::read(&dir.join(STATE)).map_err(failed)?);
        let memory = Stamp::of(&dir.join(MEMORY)).map_err(failed)?;
        Ok(Self { made_with, blueprint, state_sum, memory })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(FILE))
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
        let incompatible = |reason: String| incompatible(view, reason);
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
        let at = |name: &str| dir.join(name);
        let unreadable = |name: &str, error| missing(format!("{}: {error}", at(name).display()));
        let state = beneath::read(&at(STATE)).map_err(|error| unreadable(STATE, error))?;
        if state.is_empty() {
            return Err(missing("its state is empty".to_owned()));
        }
        if sum(&state) != self.state_sum {
            let reason = "its state is not the one that was written: another's, or damaged";
            return Err(incompatible(reason.to_owned()));
        }
        let memory = Stamp::of(&at(MEMORY)).map_err(|error| unreadable(MEMORY, error))?;
        if memory.length != self.blueprint.mem_size_bytes() {
            return Err(missing("its memory is cut short".to_owned()));
        }
        if memory != self.memory {
            let reason = "its memory has been written to since, or is another's";
            return Err(incompatible(reason.to_owned()));
        }
        for drive in &self.blueprint.drives {
            drive.check(dir).map_err(|unusable| match unusable {
                Unusable::Missing(reason) => missing(reason),
                Unusable::Changed(reason) => incompatible(reason),
            })?;
        }
        Ok(())
    }
}

pub(super) fn incompatible(view: &SnapshotView, reason: String) -> VmRuntimeError {
    VmRuntimeError::SnapshotIncompatible { snapshot_id: view.snapshot_id.clone(), reason }
}

fn sum(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}
