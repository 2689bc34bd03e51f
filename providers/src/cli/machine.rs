//! One machine and one snapshot, as they are kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::blueprint::Blueprint;
use super::name_of;
use crate::backend::Place;
use crate::error::Result;
use crate::files;
use crate::id::Uid;
use crate::model::{Failure, VmStatus};

pub(super) const MACHINE_FILE: &str = "machine.json";
const IMAGE_FILE: &str = "image.json";

/// What is written down of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) blueprint: Blueprint,
    /// Where hearth last led it: Created, Running or Stopped.
    pub(super) led_to: VmStatus,
    /// The snapshot's directory whose content is still all that it has.
    pub(super) unstarted_from: Option<PathBuf>,
}

impl Record {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(MACHINE_FILE))
    }
}

/// A machine.
pub struct Machine {
    pub(super) uid: Uid,
    pub(super) name: String,
    /// Is set when the machine is to go: whoever waits for its tool stops.
    pub(super) doomed: AtomicBool,
    dir: PathBuf,
    state: Mutex<State>,
    failure: OnceLock<Failure>,
    ended: Arc<dyn Fn(Failure) + Send + Sync>,
}

struct State {
    record: Record,
    /// Grows with each verb's begin and end: what was seen across one says nothing.
    epoch: u64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(place: &Place, record: Record) -> Self {
        Self {
            uid: place.uid,
            name: name_of(place.uid),
            doomed: AtomicBool::new(false),
            dir: place.dir.clone(),
            state: Mutex::new(State { record, epoch: 0 }),
            failure: OnceLock::new(),
            ended: Arc::clone(&place.ended),
        }
    }

    pub(super) fn record(&self) -> Record {
        self.state.lock().record.clone()
    }

    /// A verb begins or has ended.
    pub(super) fn turn(&self) {
        self.state.lock().epoch += 1;
    }

    /// Writes down where it was led, and knows it from then on.
    pub(super) fn led_to(&self, status: VmStatus) -> Result<()> {
        let mut record = self.record();
        record.led_to = status;
        if status == VmStatus::Running {
            record.unstarted_from = None;
        }
        self.write(&record)?;
        let mut state = self.state.lock();
        state.epoch += 1;
        state.record = record;
        Ok(())
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        files::write_json(&self.dir.join(MACHINE_FILE), record)
    }

    /// Names this moment, if the machine is one that should run.
    pub(super) fn should_run(&self) -> Option<u64> {
        let state = self.state.lock();
        let runs = state.record.led_to == VmStatus::Running;
        (runs && !self.is_over()).then_some(state.epoch)
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Reports that it ended by itself: once, and not when it was told to end.
    pub(super) fn report(&self, failure: Failure) {
        if !self.is_doomed() && self.failure.set(failure.clone()).is_ok() {
            (self.ended)(failure);
        }
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.is_doomed() || self.failure.get().is_some()
    }
}

/// What is kept of a snapshot beside the tool's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub(super) blueprint: Blueprint,
}

impl Image {
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(IMAGE_FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(IMAGE_FILE))
    }
}
