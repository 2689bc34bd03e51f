//! One container, as it is kept while its VM lives.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::blueprint::Blueprint;
use crate::backend::Place;
use crate::env::{Env, SystemEnv};
use crate::error::Result;
use crate::files;
use crate::id::Uid;
use crate::model::{Failure, VmmProcess};
use crate::supervise::AppendLog;
use crate::turnstile::Turnstile;

const FILE: &str = "machine.json";
const CONSOLE: &str = "console";

/// What is written down of a container, to find it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The engine's id of it: a name could be somebody else's by now.
    pub(super) container: String,
    pub(super) blueprint: Blueprint,
}

impl Record {
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(FILE))
    }
}

/// A container.
pub struct Machine {
    pub(super) uid: Uid,
    pub(super) record: Record,
    pub(super) console: AppendLog,
    /// A commit has left it paused, and the engine was out of reach when it was to go on.
    must_go_on: AtomicBool,
    /// Set from its start on.
    process: Mutex<Option<Seen>>,
    failure: OnceLock<Failure>,
    ended: Arc<dyn Fn(Failure) + Send + Sync>,
    doomed: watch::Sender<bool>,
    /// Who is connected to it.
    pub(super) channel: Turnstile,
}

/// The first process of a container.
#[derive(Clone, Debug)]
struct Seen {
    /// As the engine says, which may be on another host.
    pid: i64,
    /// Where it is on this one.
    here: Option<VmmProcess>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(place: &Place, record: Record, console_max_bytes: u64) -> Self {
        Self {
            uid: place.uid,
            record,
            console: AppendLog::new(place.dir.join(CONSOLE), console_max_bytes),
            process: Mutex::default(),
            failure: OnceLock::new(),
            ended: Arc::clone(&place.ended),
            must_go_on: AtomicBool::new(false),
            doomed: watch::Sender::new(false),
            channel: Turnstile::default(),
        }
    }

    pub(super) fn container(&self) -> &str {
        &self.record.container
    }

    /// What is Stopped then is paused.
    pub(super) fn was_started(&self) -> bool {
        self.process.lock().is_some()
    }

    /// Notes the container's first process: it was started.
    pub(super) fn note_process(&self, pid: i64) {
        let here = local_process(pid, self.container());
        *self.process.lock() = Some(Seen { pid, here });
    }

    /// Its process is `pid`, as far as is known.
    pub(super) fn is_process(&self, pid: i64) -> bool {
        self.process.lock().as_ref().is_none_or(|seen| seen.pid == pid)
    }

    pub(super) fn process(&self) -> Option<VmmProcess> {
        let over = self.is_over();
        self.process.lock().as_ref().filter(|_| !over)?.here.clone()
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

    /// From now on nobody waits for its container, but for who removes it.
    pub(super) fn must_go_on(&self) -> bool {
        self.must_go_on.load(Ordering::Acquire)
    }

    pub(super) fn set_must_go_on(&self, must_go_on: bool) {
        self.must_go_on.store(must_go_on, Ordering::Release);
    }

    pub(super) fn doom(&self) {
        self.doomed.send_replace(true);
    }

    pub(super) fn is_doomed(&self) -> bool {
        *self.doomed.borrow()
    }

    /// It has ended, by itself or not.
    pub(super) fn is_over(&self) -> bool {
        self.failure.get().is_some() || self.is_doomed()
    }

    /// Ends when it is doomed.
    pub(super) fn doomed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut doomed = self.doomed.subscribe();
        async move {
            // The sender may go first: then there is nobody left to wait either.
            let _ = doomed.wait_for(|doomed| *doomed).await;
        }
    }
}

/// The process on this host, if it is on this one: the engine may run elsewhere, behind a
/// forwarded socket or in a VM. Its path means something in its container alone, so it is given
/// as the kernel's own link to it.
fn local_process(pid: i64, container: &str) -> Option<VmmProcess> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 1)?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    if !groups.contains(container) {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Counted in hundredths of a second since boot, in the twentieth field after the name.
    let start = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse::<u64>().ok()?;
    let age = SystemEnv.boot_time().saturating_sub(Duration::from_millis(start * 10));
    let start_time = SystemEnv.now().checked_sub(age)?;
    Some(VmmProcess { pid, start_time, executable: format!("/proc/{pid}/exe").into() })
}
