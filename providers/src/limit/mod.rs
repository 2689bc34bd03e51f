//! A wrapper that bounds how much a backend is asked to do at once.
//!
//! Calls that make a backend work (create, start, stop, snapshot, pause, resume) take a place;
//! when all are taken they stand in line, first come first served, bounded in number and in
//! time. Everything else passes: questions and renames because they are local and inline, and
//! destroy and the deletion of snapshots because a full host is relieved by nothing else.
//! A destroy also sends away those who stand in line for the VM it ended.

mod line;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::capabilities::Capabilities;
use crate::error::{Result, VmRuntimeError};
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotView, VmSpec, VmStatus, VmView};
use crate::provider::{
    ConsoleChunk, ExitObserver, GuestChannel, GuestStream, Probe, VmProvider, VmQuery, VmRuntime,
};
use crate::transition::Verb;
use line::{Line, NoPlace, Place};

/// How much at once, and how long the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls under way at once; at least one is always let through.
    pub concurrent: usize,
    /// Calls that stand in line.
    pub waiting: usize,
    /// How long one stands there.
    pub wait: Duration,
}

/// A provider with bounds around it.
pub struct Limit {
    inner: Arc<dyn VmRuntime>,
    bounds: Bounds,
    line: Line,
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Limit {
    /// Puts `bounds` around `inner`.
    pub fn new(inner: Arc<dyn VmRuntime>, bounds: Bounds) -> Self {
        Self { inner, bounds, line: Line::new(bounds) }
    }

    /// How many calls are under way, and how many stand in line.
    pub fn load(&self) -> (usize, usize) {
        self.line.load()
    }

    /// A place for a call that makes a VM.
    fn place(&self) -> Result<Place<'_>> {
        self.line.take(|| None).map_err(|_| self.exhausted())
    }

    /// A place for `verb` on `vm_id`.
    fn place_for(&self, vm_id: &VmId, verb: Verb) -> Result<Place<'_>> {
        let uid = || self.inner.get_vm(vm_id).map(|vm| vm.uid);
        self.line.take(uid).map_err(|no_place| match no_place {
            NoPlace::LineFull | NoPlace::WaitedInVain => self.exhausted(),
            NoPlace::SentAway => VmRuntimeError::InvalidTransition {
                vm_id: vm_id.clone(),
                status: VmStatus::Destroyed,
                verb,
            },
        })
    }

    fn exhausted(&self) -> VmRuntimeError {
        let what = "the provider's limit of concurrent calls".to_owned();
        VmRuntimeError::Exhausted { what, retry_after: Some(self.bounds.wait) }
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmProvider for Limit {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        let _place = self.place()?;
        self.inner.create_vm(vm_id)
    }

    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        let _place = self.place()?;
        self.inner.create_vm_with_spec(vm_id, spec)
    }

    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        let _place = self.place_for(vm_id, Verb::Start)?;
        self.inner.start_vm(vm_id)
    }

    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        let _place = self.place_for(vm_id, Verb::Stop)?;
        self.inner.stop_vm(vm_id)
    }

    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        let _place = self.place_for(vm_id, Verb::Snapshot)?;
        self.inner.snapshot_vm(vm_id, snapshot_id)
    }

    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        let uid = self.inner.get_vm(vm_id).map(|vm| vm.uid);
        self.inner.destroy_vm(vm_id)?;
        uid.into_iter().for_each(|uid| self.line.send_away(uid));
        Ok(())
    }

    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        self.inner.rename_vm(old, new)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn pause_vm(&self, vm_id: &VmId) -> Result<()> {
        let _place = self.place_for(vm_id, Verb::Stop)?;
        self.inner.pause_vm(vm_id)
    }

    fn resume_vm(&self, vm_id: &VmId) -> Result<()> {
        let _place = self.place_for(vm_id, Verb::Start)?;
        self.inner.resume_vm(vm_id)
    }

    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        self.inner.pin_snapshot(snapshot, holder)
    }

    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        self.inner.unpin_snapshot(snapshot_uid, holder)
    }

    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        self.inner.delete_snapshot(snapshot)
    }

    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        self.inner.export_snapshot(snapshot, into)
    }

    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.inner.preserve_vm(uid, artifact)
    }

    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.inner.unpreserve_vm(uid, artifact)
    }

    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        let _place = self.place_for(vm_id, Verb::Start)?;
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
impl VmQuery for Limit {
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
        self.inner.status(vm_id)
    }

    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        self.inner.get_vm_by_uid(uid)
    }

    fn name_of(&self, uid: Uid) -> Option<VmId> {
        self.inner.name_of(uid)
    }

    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        self.inner.probe(vm_id, probe, timeout)
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

#[cfg(test)]
mod tests {
    use std::thread;

    use parking_lot::Mutex;

    use super::*;
    use crate::env::{Deadline, Env, SystemEnv};
    use crate::faulty::{Call, Fault, Faulty, FaultyControl, When};
    use crate::memory::MemoryBackend;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn limited(bounds: Bounds) -> (Limit, FaultyControl) {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let memory = Arc::new(MemoryBackend::provider("memory", Arc::clone(&env)));
        let (faulty, control) = Faulty::new(memory, env);
        (Limit::new(Arc::new(faulty), bounds), control)
    }

    fn id(text: &str) -> VmId {
        VmId::parse(text).unwrap()
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !condition() {
            assert!(deadline.left().is_some(), "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn the_line_is_bounded_in_number() {
        let (limit, control) = limited(Bounds { concurrent: 1, waiting: 1, wait: PATIENCE });
        let hang = control.add(Call::Create, When::Always, Fault::Hang);
        thread::scope(|scope| {
            let first = scope.spawn(|| limit.create_vm(&id("a")));
            assert!(control.wait_hanging(Call::Create, 1, PATIENCE));
            let second = scope.spawn(|| limit.create_vm(&id("b")));
            until("one waits", || limit.load() == (1, 1));
            assert_eq!(limit.create_vm(&id("c")).unwrap_err().kind(), "exhausted");
            control.remove(hang);
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
        });
        assert_eq!(limit.load(), (0, 0));
        assert_eq!(limit.list_vms().len(), 2);
    }

    #[test]
    fn the_line_is_bounded_in_time() {
        let wait = Duration::from_millis(1);
        let (limit, control) = limited(Bounds { concurrent: 1, waiting: 9, wait });
        let hang = control.add(Call::Create, When::Always, Fault::Hang);
        thread::scope(|scope| {
            let first = scope.spawn(|| limit.create_vm(&id("a")));
            assert!(control.wait_hanging(Call::Create, 1, PATIENCE));
            assert_eq!(limit.create_vm(&id("b")).unwrap_err().kind(), "exhausted");
            assert_eq!(limit.load(), (1, 0), "who gave up is not in line");
            control.remove(hang);
            first.join().unwrap().unwrap();
        });
        limit.create_vm(&id("b")).unwrap();
    }

    #[test]
    fn destroy_and_rename_never_wait_and_send_away_who_waits() {
        let (limit, control) = limited(Bounds { concurrent: 1, waiting: 9, wait: PATIENCE });
        limit.create_vm(&id("a")).unwrap();
        limit.create_vm(&id("b")).unwrap();
        let hang = control.add(Call::Start, When::Always, Fault::Hang);
        thread::scope(|scope| {
            let first = scope.spawn(|| limit.start_vm(&id("a")));
            assert!(control.wait_hanging(Call::Start, 1, PATIENCE));
            let second = scope.spawn(|| limit.start_vm(&id("b")));
            until("one waits", || limit.load() == (1, 1));
            limit.rename_vm(&id("b"), &id("c")).unwrap();
            limit.destroy_vm(&id("c")).unwrap();
            let refused = second.join().unwrap().unwrap_err();
            assert_eq!(refused.kind(), "invalid_transition");
            control.remove(hang);
            first.join().unwrap().unwrap();
        });
    }

    #[test]
    fn who_came_first_goes_first() {
        let (limit, control) = limited(Bounds { concurrent: 1, waiting: 9, wait: PATIENCE });
        let hang = control.add(Call::Create, When::Always, Fault::Hang);
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for (waiting, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
                let (limit, order) = (&limit, &order);
                scope.spawn(move || {
                    let place = limit.place().unwrap();
                    limit.inner.create_vm(&id(name)).unwrap();
                    order.lock().push(name);
                    drop(place);
                });
                until("it is in", || limit.load() == (1, waiting));
            }
            control.remove(hang);
        });
        assert_eq!(*order.lock(), ["a", "b", "c", "d"]);
    }
}
