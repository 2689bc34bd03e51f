//! A wrapper around the provider, used twice: inside the faults it notes what became of VMs;
//! outside it notes what the service was told, and kills the service in the midst of a call.
//!
//! A kill is a panic that no hook sees. The service's runtime runs one task at a time and looks
//! for a kill after each: nothing of the service runs between the kill and its end.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hearth_providers::model::SnapshotView;
use hearth_providers::provider::{ConsoleChunk, ExitObserver, GuestChannel, GuestStream, Probe};
use hearth_providers::{
    Capabilities, SnapshotId, SnapshotRef, Uid, VmId, VmProvider, VmQuery, VmRuntime,
    VmRuntimeError, VmSpec, VmStatus, VmView,
};
use tokio::sync::Notify;

use crate::history::{History, What};

type Result<T> = std::result::Result<T, VmRuntimeError>;

/// Ends a life in the midst of a provider call.
#[derive(Default)]
pub(crate) struct KillSwitch {
    /// Steps left; 0 is never.
    left: AtomicU64,
    dead: AtomicBool,
    rings: Notify,
}

impl KillSwitch {
    /// A new life, which ends after so many steps: one before and one after each call.
    pub(crate) fn arm(&self, steps: u64) {
        self.left.store(steps, Ordering::Relaxed);
        self.dead.store(false, Ordering::Relaxed);
    }

    /// Returns when it has killed.
    pub(crate) async fn killed(&self) {
        self.rings.notified().await;
    }

    fn step(&self, history: &History, at: &'static str) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(VmRuntimeError::Unavailable { what: "the dead".to_owned(), source: None });
        }
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.left.store(left - 1, Ordering::Relaxed);
        if left > 1 {
            return Ok(());
        }
        self.dead.store(true, Ordering::Relaxed);
        history.push(What::Crash(at));
        self.rings.notify_one();
        std::panic::resume_unwind(Box::new("killed"));
    }
}

/// The wrapper.
pub(crate) struct Recorder {
    inner: Arc<dyn VmRuntime>,
    history: History,
    /// None inside the faults.
    kill: Option<Arc<KillSwitch>>,
}

impl Recorder {
    /// One that notes what becomes of VMs.
    pub(crate) fn inside(inner: Arc<dyn VmRuntime>, history: History) -> Self {
        Self { inner, history, kill: None }
    }

    /// One that notes what the service is told.
    pub(crate) fn outside(
        inner: Arc<dyn VmRuntime>,
        history: History,
        kill: Arc<KillSwitch>,
    ) -> Self {
        Self { inner, history, kill: Some(kill) }
    }

    fn verb<R>(
        &self,
        verb: &'static str,
        vm_id: Option<&VmId>,
        act: impl FnOnce() -> Result<R>,
        note: impl FnOnce(Uid) -> What,
    ) -> Result<R> {
        let Some(kill) = &self.kill else {
            let uid = vm_id.and_then(|vm_id| self.inner.get_vm(vm_id)).map(|view| view.uid);
            let done = act()?;
            if let Some(uid) = uid {
                self.history.push(note(uid));
            }
            return Ok(done);
        };
        kill.step(&self.history, "before a call")?;
        let done = act();
        if let Err(error) = &done {
            let (vm_id, kind) = (vm_id.cloned(), error.kind());
            self.history.push(What::Failed { verb, vm_id, kind });
        }
        kill.step(&self.history, "after a call")?;
        done
    }

    fn made(&self, vm_id: &VmId, spec: &VmSpec, made: Result<()>) -> Result<()> {
        if self.kill.is_none()
            && made.is_ok()
            && let Some(view) = self.inner.get_vm(vm_id)
        {
            let generation = view.tags.get("hearth-generation").and_then(|it| it.parse().ok());
            let (vm_id, uid, snapshot) = (view.vm_id, view.uid, view.restored_from);
            let overrides = spec.restore_from.iter().flat_map(|from| &from.network_overrides);
            let device = overrides.map(|it| it.host_dev_name.clone()).next();
            self.history.push(What::Made { vm_id, uid, generation, snapshot, device });
        }
        made
    }
}

/// What a start, and every verb after which a VM runs, notes.
const fn resumed(uid: Uid) -> What {
    What::Resumed { uid }
}

const fn paused(uid: Uid) -> What {
    What::Paused { uid }
}

#[deny(clippy::missing_trait_methods)]
impl VmProvider for Recorder {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        self.create_vm_with_spec(vm_id, &VmSpec::default())
    }

    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        let act = || self.made(vm_id, spec, self.inner.create_vm_with_spec(vm_id, spec));
        match self.kill {
            None => act(),
            Some(_) => self.verb("create", Some(vm_id), act, resumed),
        }
    }

    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb("start", Some(vm_id), || self.inner.start_vm(vm_id), resumed)
    }

    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb("stop", Some(vm_id), || self.inner.stop_vm(vm_id), paused)
    }

    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        self.verb("snapshot", None, || self.inner.snapshot_vm(vm_id, snapshot_id), resumed)
    }

    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        let note = |uid| What::Destroyed { uid, vm_id: vm_id.clone() };
        self.verb("destroy", Some(vm_id), || self.inner.destroy_vm(vm_id), note)
    }

    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        let note = |uid| What::Renamed { uid, from: old.clone(), to: new.clone() };
        let act = || {
            let renamed = self.inner.rename_vm(old, new);
            if self.kill.is_some()
                && renamed.is_ok()
                && old.is_pools_own()
                && !new.is_pools_own()
                && let Some(uid) = self.inner.get_vm(new).map(|view| view.uid)
            {
                self.history.push(What::Handed { uid, to: new.clone() });
            }
            renamed
        };
        self.verb("rename", Some(old), act, note)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn pause_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb("pause", Some(vm_id), || self.inner.pause_vm(vm_id), paused)
    }

    fn resume_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb("resume", Some(vm_id), || self.inner.resume_vm(vm_id), resumed)
    }

    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        self.verb("pin", None, || self.inner.pin_snapshot(snapshot, holder), resumed)
    }

    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        self.verb("unpin", None, || self.inner.unpin_snapshot(snapshot_uid, holder), resumed)
    }

    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        self.verb("delete a snapshot", None, || self.inner.delete_snapshot(snapshot), resumed)
    }

    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        self.inner.export_snapshot(snapshot, into)
    }

    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.verb("preserve", None, || self.inner.preserve_vm(uid, artifact), resumed)
    }

    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.verb("unpreserve", None, || self.inner.unpreserve_vm(uid, artifact), resumed)
    }

    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        self.inner.prefault_vm(vm_id)
    }

    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        self.inner.guest_channel(vm_id)
    }

    fn connect_vm(&self, vm_id: &VmId, port: Option<u32>) -> Result<GuestStream> {
        self.inner.connect_vm(vm_id, port)
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmQuery for Recorder {
    fn list_vms(&self) -> Vec<VmView> {
        self.inner.list_vms()
    }

    fn get_vm(&self, vm_id: &VmId) -> Option<VmView> {
        self.inner.get_vm(vm_id)
    }

    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>> {
        self.inner.list_snapshots(vm_id)
    }

    fn status(&self, vm_id: &VmId) -> Option<VmStatus> {
        // The last thing the service asks before it commits.
        let kill = self.kill.as_ref().map(|kill| kill.step(&self.history, "before a commit"));
        self.inner.status(vm_id).filter(|_| !matches!(kill, Some(Err(_))))
    }

    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        self.inner.get_vm_by_uid(uid)
    }

    fn name_of(&self, uid: Uid) -> Option<VmId> {
        self.inner.name_of(uid)
    }

    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        let act = || self.inner.probe(vm_id, probe, timeout);
        self.verb("probe", Some(vm_id), act, |uid| What::Probed { uid })
    }

    fn console(&self, vm_id: &VmId, offset: u64, max_bytes: usize) -> Result<ConsoleChunk> {
        self.inner.console(vm_id, offset, max_bytes)
    }

    fn snapshot(&self, snapshot: &SnapshotRef) -> Result<SnapshotView> {
        self.inner.snapshot(snapshot)
    }

    fn snapshot_fits(&self, snapshot_uid: Uid) -> Result<()> {
        self.inner.snapshot_fits(snapshot_uid)
    }

    fn instance_bytes(&self, uid: Uid) -> Result<u64> {
        self.inner.instance_bytes(uid)
    }

    fn all_snapshots(&self) -> Vec<SnapshotView> {
        self.inner.all_snapshots()
    }

    fn observe_exits(&self, observer: ExitObserver) {
        self.inner.observe_exits(observer);
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        self.inner.describe()
    }
}
