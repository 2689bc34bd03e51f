//! One process, held by its pidfd.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::procfs::TICKS_PER_SECOND;
use super::watcher::{Watched, Watcher};
use crate::env::{Env as _, SystemEnv};
use crate::model::VmmProcess;

/// What is written down of a process, so that it can be found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its number, which means nothing without the rest.
    pub pid: u32,
    /// When it started, in clock ticks since the host's boot.
    pub start_ticks: u64,
    /// The host's boot.
    pub boot_id: String,
    /// The program that it runs.
    pub executable: PathBuf,
    /// The directory of its own cgroup, if it has one.
    pub cgroup: Option<PathBuf>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was not our child, so nobody told us.
    Unknown,
}

impl Exit {
    /// As shells have it: the status, or 128 + signal; `None` when unknown.
    pub const fn status(self) -> Option<i32> {
        match self {
            Self::Status(status) => Some(status),
            Self::Signal(signal) => Some(128 + signal),
            Self::Unknown => None,
        }
    }
}

/// A process that is watched for as long as this value lives. Dropping it does not end it.
#[derive(Debug)]
pub struct Process {
    record: ProcessRecord,
    start_time: SystemTime,
    watched: Arc<Watched>,
    watcher: Arc<Watcher>,
    key: u64,
}

impl Process {
    pub(super) fn new(
        record: ProcessRecord,
        watched: Arc<Watched>,
        watcher: &Arc<Watcher>,
    ) -> std::io::Result<Self> {
        let started = Duration::from_millis(record.start_ticks * 1000 / TICKS_PER_SECOND);
        let age = SystemEnv.boot_time().saturating_sub(started);
        let key = watcher.add(&watched)?;
        let start_time = SystemEnv.now() - age;
        Ok(Self { record, start_time, watched, watcher: Arc::clone(watcher), key })
    }

    /// What is written down of it.
    pub fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// The process as it is shown.
    pub fn view(&self) -> VmmProcess {
        VmmProcess {
            pid: self.record.pid,
            start_time: self.start_time,
            executable: self.record.executable.clone(),
        }
    }

    /// Ends it at once; does not wait for the end.
    pub fn kill(&self) {
        self.watched.kill();
    }

    /// Whether it has ended at this moment, as the kernel says: before anybody was told, and before
    /// its number can be another's.
    pub fn has_ended(&self) -> bool {
        self.watched.has_ended()
    }

    /// How it ended, if that has been seen.
    pub fn exit(&self) -> Option<Exit> {
        self.watched.exit()
    }

    /// Waits for up to `timeout` until it has ended.
    pub fn wait(&self, timeout: Duration) -> Option<Exit> {
        self.watched.wait(timeout)
    }

    /// Calls `report` once it has ended, from the watching thread, or at once from this one if
    /// it has ended already. A later call replaces an earlier one that was not yet due.
    pub fn on_exit(&self, report: impl FnOnce(Exit) + Send + 'static) {
        self.watched.on_exit(Box::new(report));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watcher.remove(self.key);
    }
}
