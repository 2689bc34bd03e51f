//! One living VM, as the engine keeps it.

use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{Failure, VmSpec, VmStatus};
use crate::turn::Turns;

pub(super) const RECORD: &str = "instance.json";

/// What is written in an instance's directory when it is whole, and never again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) format: u32,
    pub(super) provider: String,
    pub(super) uid: Uid,
    /// Its first name: the links in `names/` have the present one.
    pub(super) vm_id: VmId,
    pub(super) spec: VmSpec,
    pub(super) create_time: SystemTime,
    pub(super) restored_from: Option<Uid>,
    /// The boot of the host that it was made in; empty in records of the first age.
    #[serde(default)]
    pub(super) boot_id: String,
}

impl Record {
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(RECORD), self)
    }

    /// The record of the instance in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(RECORD))
    }

    /// No record: the making of the instance was cut short.
    pub(super) fn is_missing(dir: &Path) -> bool {
        !dir.join(RECORD).exists()
    }
}

#[derive(Debug)]
pub(super) struct Instance<M> {
    pub(super) record: Record,
    pub(super) turns: Turns,
    pub(super) snapshots: Mutex<Vec<(SnapshotId, Uid)>>,
    pub(super) failure: OnceLock<Failure>,
    machine: M,
    name: Mutex<Name>,
    status: Mutex<VmStatus>,
}

#[derive(Debug)]
struct Name {
    vm_id: VmId,
    /// Destroyed: there is nothing left to rename.
    ended: bool,
}

/// What was asked for has ended, or is called something else.
#[derive(Debug)]
pub(super) enum NotNamed {
    Ended,
    Otherwise,
}

impl<M> Instance<M> {
    pub(super) fn new(record: Record, vm_id: VmId, machine: M, status: VmStatus) -> Self {
        Self {
            turns: Turns::default(),
            snapshots: Mutex::default(),
            failure: OnceLock::new(),
            machine,
            name: Mutex::new(Name { vm_id, ended: false }),
            status: Mutex::new(status),
            record,
        }
    }

    pub(super) const fn machine(&self) -> &M {
        &self.machine
    }

    pub(super) fn name(&self) -> VmId {
        self.name.lock().vm_id.clone()
    }

    pub(super) fn is_called(&self, vm_id: &VmId) -> bool {
        let name = self.name.lock();
        !name.ended && name.vm_id == *vm_id
    }

    /// Runs `rename` with the name locked: over one system call, and against this VM only.
    pub(super) fn rename(
        &self,
        old: &VmId,
        rename: impl FnOnce(&mut VmId) -> Result<()>,
    ) -> Result<Result<()>, NotNamed> {
        let mut name = self.name.lock();
        if name.vm_id != *old {
            return Err(NotNamed::Otherwise);
        }
        if self.turns.is_doomed() {
            return Err(NotNamed::Ended);
        }
        Ok(rename(&mut name.vm_id))
    }

    /// Begins the end of the VM, if it is called `vm_id`: with the name locked, so that what is
    /// being renamed is not destroyed under the name it has just lost.
    pub(super) fn doom(&self, vm_id: &VmId) -> Result<(), NotNamed> {
        let name = self.name.lock();
        if name.vm_id != *vm_id {
            return Err(NotNamed::Otherwise);
        }
        self.turns.doom().map_err(|_| NotNamed::Ended)
    }

    /// From here on the VM has no name; answers the one it had, and shows it to `last` before
    /// anybody can see that it is gone.
    pub(super) fn end_name(&self, last: impl FnOnce(&VmId)) -> VmId {
        let mut name = self.name.lock();
        name.ended = true;
        last(&name.vm_id);
        name.vm_id.clone()
    }

    pub(super) fn status(&self) -> VmStatus {
        *self.status.lock()
    }

    /// The holder of the turn notes what a verb did; a death reported meanwhile stands.
    pub(super) fn set_status(&self, status: VmStatus) {
        let mut now = self.status.lock();
        if *now != VmStatus::Failed {
            *now = status;
        }
    }

    /// Notes that the VM ended by itself; false when that was known, or when it was destroyed.
    pub(super) fn fail(&self, failure: Failure) -> bool {
        if self.turns.is_doomed() || self.failure.set(failure).is_err() {
            return false;
        }
        *self.status.lock() = VmStatus::Failed;
        true
    }
}
