//! A wrapper that fails, lags, hangs and lies as a script says: backends at their worst, on demand.
//!
//! The script is a list of rules that a test changes while calls run, by its
//! [`FaultyControl`]. Each rule names a kind of call, when it applies and what then happens.
//! Without rules the wrapper does nothing but count. A hang ends when its rule is removed, at
//! the latest when the last control is dropped: no test leaves a thread behind.

mod script;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::capabilities::Capabilities;
use crate::env::Env;
use crate::error::Result;
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotView, VmSpec, VmStatus, VmView};
use crate::provider::{
    ConsoleChunk, ExitObserver, GuestChannel, GuestStream, Probe, VmProvider, VmQuery, VmRuntime,
};
use script::{Order, Script};

pub use script::{Call, Fault, FaultyControl, RuleId, When};

/// A provider with a script of faults before it.
pub struct Faulty {
    inner: Arc<dyn VmRuntime>,
    script: Arc<Script>,
    /// The VMs as they were when somebody last asked, for answers that are out of date.
    seen: Mutex<Option<Arc<Vec<VmView>>>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Faulty {
    /// Puts an empty script before `inner`; chances are drawn from `env`.
    pub fn new(inner: Arc<dyn VmRuntime>, env: Arc<dyn Env>) -> (Self, FaultyControl) {
        let script = Arc::new(Script::new(env));
        let control = FaultyControl::new(Arc::clone(&script));
        (Self { inner, script, seen: Mutex::default() }, control)
    }

    /// A call that answers nothing but that it was done.
    fn verb(&self, call: Call, vm_id: &VmId, mut act: impl FnMut() -> Result<()>) -> Result<()> {
        match self.script.play(call, Some(vm_id)) {
            Order::DoNothing => Ok(()),
            Order::HideError => act().or(Ok(())),
            order => order.obey(call, Some(vm_id), act),
        }
    }

    /// A call whose answer cannot be made up: to do nothing is to fail.
    fn ask<R>(
        &self,
        call: Call,
        vm_id: Option<&VmId>,
        act: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        self.script.play(call, vm_id).obey(call, vm_id, act)
    }

    /// A question about VMs: it lags and hangs; answers what there was before where that is what
    /// the caller is to get.
    fn look(&self, vm_id: Option<&VmId>) -> Option<Arc<Vec<VmView>>> {
        let order = self.script.play(Call::Query, vm_id);
        if !self.script.has_stale() {
            *self.seen.lock() = None;
            return None;
        }
        if matches!(order, Order::Stale)
            && let Some(seen) = &*self.seen.lock()
        {
            return Some(Arc::clone(seen));
        }
        *self.seen.lock() = Some(Arc::new(self.inner.list_vms()));
        None
    }

    /// A call that cannot fail: it only lags and hangs.
    fn query<R>(&self, vm_id: Option<&VmId>, act: impl FnOnce() -> R) -> R {
        self.script.play(Call::Query, vm_id);
        act()
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmProvider for Faulty {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Create, vm_id, || self.inner.create_vm(vm_id))
    }

    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        let call = if spec.restore_from.is_some() { Call::Restore } else { Call::Create };
        self.verb(call, vm_id, || self.inner.create_vm_with_spec(vm_id, spec))
    }

    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Start, vm_id, || self.inner.start_vm(vm_id))
    }

    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Stop, vm_id, || self.inner.stop_vm(vm_id))
    }

    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        self.verb(Call::Snapshot, vm_id, || self.inner.snapshot_vm(vm_id, snapshot_id))
    }

    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Destroy, vm_id, || self.inner.destroy_vm(vm_id))
    }

    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        self.verb(Call::Rename, old, || self.inner.rename_vm(old, new))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn pause_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Pause, vm_id, || self.inner.pause_vm(vm_id))
    }

    fn resume_vm(&self, vm_id: &VmId) -> Result<()> {
        self.verb(Call::Resume, vm_id, || self.inner.resume_vm(vm_id))
    }

    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        self.ask(Call::Pin, None, || self.inner.pin_snapshot(snapshot, holder))
    }

    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        self.ask(Call::Unpin, None, || self.inner.unpin_snapshot(snapshot_uid, holder))
    }

    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        self.ask(Call::DeleteSnapshot, None, || self.inner.delete_snapshot(snapshot))
    }

    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        self.ask(Call::Export, None, || self.inner.export_snapshot(snapshot, into))
    }

    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.ask(Call::Preserve, None, || self.inner.preserve_vm(uid, artifact))
    }

    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.ask(Call::Preserve, None, || self.inner.unpreserve_vm(uid, artifact))
    }

    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        self.ask(Call::Prefault, Some(vm_id), || self.inner.prefault_vm(vm_id))
    }

    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        self.ask(Call::GuestChannel, Some(vm_id), || self.inner.guest_channel(vm_id))
    }

    fn connect_vm(&self, vm_id: &VmId, port: Option<u32>) -> Result<GuestStream> {
        self.ask(Call::GuestChannel, Some(vm_id), || self.inner.connect_vm(vm_id, port))
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmQuery for Faulty {
    fn list_vms(&self) -> Vec<VmView> {
        match self.look(None) {
            Some(seen) => seen.to_vec(),
            None => self.inner.list_vms(),
        }
    }

    fn get_vm(&self, vm_id: &VmId) -> Option<VmView> {
        match self.look(Some(vm_id)) {
            Some(seen) => seen.iter().find(|vm| vm.vm_id == *vm_id).cloned(),
            None => self.inner.get_vm(vm_id),
        }
    }

    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>> {
        self.query(Some(vm_id), || self.inner.list_snapshots(vm_id))
    }

    fn status(&self, vm_id: &VmId) -> Option<VmStatus> {
        match self.look(Some(vm_id)) {
            Some(seen) => seen.iter().find(|vm| vm.vm_id == *vm_id).map(|vm| vm.status),
            None => self.inner.status(vm_id),
        }
    }

    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        match self.look(None) {
            Some(seen) => seen.iter().find(|vm| vm.uid == uid).cloned(),
            None => self.inner.get_vm_by_uid(uid),
        }
    }

    fn name_of(&self, uid: Uid) -> Option<VmId> {
        match self.look(None) {
            Some(seen) => {
                let is_it = |vm: &&VmView| vm.uid == uid && vm.status != VmStatus::Destroyed;
                seen.iter().find(is_it).map(|vm| vm.vm_id.clone())
            }
            None => self.inner.name_of(uid),
        }
    }

    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        self.verb(Call::Probe, vm_id, || self.inner.probe(vm_id, probe, timeout))
    }

    fn console(&self, vm_id: &VmId, offset: u64, max_bytes: usize) -> Result<ConsoleChunk> {
        self.ask(Call::Console, Some(vm_id), || self.inner.console(vm_id, offset, max_bytes))
    }

    fn snapshot(&self, snapshot: &SnapshotRef) -> Result<SnapshotView> {
        self.query(None, || self.inner.snapshot(snapshot))
    }

    fn snapshot_fits(&self, snapshot_uid: Uid) -> Result<()> {
        self.ask(Call::Fits, None, || self.inner.snapshot_fits(snapshot_uid))
    }

    fn instance_bytes(&self, uid: Uid) -> Result<u64> {
        self.ask(Call::Query, None, || self.inner.instance_bytes(uid))
    }

    fn all_snapshots(&self) -> Vec<SnapshotView> {
        self.query(None, || self.inner.all_snapshots())
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

    use super::*;
    use crate::env::SeededEnv;
    use crate::memory::MemoryBackend;

    fn faulty() -> (Arc<Faulty>, FaultyControl) {
        let env: Arc<dyn Env> = Arc::new(SeededEnv::new(1));
        let memory = Arc::new(MemoryBackend::provider("memory", Arc::clone(&env)));
        let (faulty, control) = Faulty::new(memory, env);
        (Arc::new(faulty), control)
    }

    fn id(text: &str) -> VmId {
        VmId::parse(text).unwrap()
    }

    #[test]
    fn every_kind_of_error_can_be_scripted() {
        let (faulty, control) = faulty();
        for kind in crate::VmRuntimeError::KINDS {
            control.add(Call::Create, When::Next(1), Fault::Fail(kind));
            assert_eq!(faulty.create_vm(&id("a")).unwrap_err().kind(), kind);
        }
        faulty.create_vm(&id("a")).unwrap();
        assert_eq!(control.count(Call::Create), 16);
    }

    #[test]
    fn a_lost_answer_is_work_done() {
        let (faulty, control) = faulty();
        control.add(Call::Create, When::Next(1), Fault::LoseAnswer("timeout"));
        assert_eq!(faulty.create_vm(&id("a")).unwrap_err().kind(), "timeout");
        assert_eq!(faulty.status(&id("a")), Some(VmStatus::Created));
        control.add(Call::Start, When::Next(1), Fault::DoNothing);
        faulty.start_vm(&id("a")).unwrap();
        assert_eq!(faulty.status(&id("a")), Some(VmStatus::Created));
    }

    #[test]
    fn a_failure_can_be_hidden_and_a_call_made_twice() {
        let (faulty, control) = faulty();
        control.add(Call::Destroy, When::Next(1), Fault::HideError);
        faulty.destroy_vm(&id("a")).unwrap();
        control.add(Call::Create, When::Next(2), Fault::Twice);
        assert_eq!(faulty.create_vm(&id("a")).unwrap_err().kind(), "already_exists");
        assert_eq!(faulty.status(&id("a")), Some(VmStatus::Created));
        control.add(Call::Start, When::Next(1), Fault::Twice);
        assert_eq!(faulty.start_vm(&id("a")).unwrap_err().kind(), "invalid_transition");
        assert_eq!(faulty.status(&id("a")), Some(VmStatus::Running));
        assert_eq!(control.count(Call::Start), 1, "it was asked for once");
    }

    #[test]
    fn questions_are_answered_out_of_date() {
        let (faulty, control) = faulty();
        faulty.create_vm(&id("a")).unwrap();
        let uid = faulty.get_vm(&id("a")).unwrap().uid;
        // Fresh, stale, fresh ...
        control.add(Call::Query, When::Every(2), Fault::Stale);
        assert_eq!(faulty.list_vms().len(), 1);
        faulty.create_vm(&id("b")).unwrap();
        faulty.rename_vm(&id("a"), &id("c")).unwrap();
        assert_eq!(faulty.get_vm_by_uid(uid).unwrap().vm_id, id("a"), "as it was");
        assert_eq!(faulty.get_vm_by_uid(uid).unwrap().vm_id, id("c"));
        assert_eq!(faulty.list_vms().len(), 2, "as it was last seen");
        control.clear();
        // From the first question on nothing changes.
        control.add(Call::Query, When::Always, Fault::Stale);
        assert_eq!(faulty.status(&id("b")), Some(VmStatus::Created));
        faulty.destroy_vm(&id("b")).unwrap();
        assert_eq!(faulty.status(&id("b")), Some(VmStatus::Created));
        assert_eq!(faulty.list_vms().len(), 2);
        control.clear();
        assert_ne!(faulty.status(&id("b")), Some(VmStatus::Created));
        assert_eq!(faulty.list_vms().len(), 1);
    }

    #[test]
    fn rules_apply_to_their_vm_and_in_their_turn() {
        let (faulty, control) = faulty();
        control.add_for(&id("b"), Call::Create, When::Always, Fault::Fail("backend"));
        control.add(Call::Query, When::Always, Fault::Delay(Duration::from_nanos(1)));
        faulty.create_vm(&id("a")).unwrap();
        faulty.create_vm(&id("b")).unwrap_err();
        control.clear();
        faulty.create_vm(&id("b")).unwrap();
        control.add(Call::Rename, When::Every(3), Fault::Fail("backend"));
        let failed: Vec<_> =
            (0..6).map(|_| faulty.rename_vm(&id("a"), &id("a")).is_err()).collect();
        assert_eq!(failed, [false, false, true, false, false, true]);
        control.add(Call::Start, When::Chance(0.5), Fault::Fail("backend"));
        let failed = (0..100)
            .filter(|_| faulty.start_vm(&id("x")).is_err_and(|error| error.kind() == "backend"));
        assert!((20..80).contains(&failed.count()));
    }

    #[test]
    fn a_hang_ends_with_its_rule_or_its_control() {
        let (faulty, control) = faulty();
        let hang = control.add_for(&id("a"), Call::Create, When::Always, Fault::Hang);
        let create = |name| {
            let faulty = Arc::clone(&faulty);
            thread::spawn(move || faulty.create_vm(&id(name)))
        };
        let hangs = create("a");
        assert!(control.wait_hanging(Call::Create, 1, Duration::from_secs(60)));
        create("b").join().unwrap().unwrap();
        control.remove(hang);
        hangs.join().unwrap().unwrap();
        assert_eq!(control.hanging(Call::Create), 0);
        control.add(Call::Create, When::Always, Fault::Hang);
        let hangs = create("c");
        drop(control);
        hangs.join().unwrap().unwrap();
    }
}
