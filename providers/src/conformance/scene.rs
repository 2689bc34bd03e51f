//! What a case works with: the provider, names of its own, and VMs in any status.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fixture::{Fixture, Template};
use super::held::Hold;
use super::outcome::{Broken, Outcome, ensure};
use crate::agent::Agent;
use crate::capabilities::RunningSnapshot;
use crate::env::{Deadline, Env as _, SystemEnv};
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotSource, SnapshotView, VmSpec, VmStatus, VmView};
use crate::provider::VmRuntime;
use crate::readiness::wait_ready;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A provider, for one case.
#[derive(Debug)]
pub struct Scene {
    fixture: Arc<Fixture>,
    prefix: String,
}

/// A VM that a case made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// What it was called when it was made.
    pub id: VmId,
    /// Its identity.
    pub uid: Uid,
}

impl Deref for Scene {
    type Target = dyn VmRuntime;
    fn deref(&self) -> &Self::Target {
        &*self.fixture.provider
    }
}

impl Scene {
    pub(super) fn new(fixture: Arc<Fixture>) -> Self {
        let prefix = format!("c{}-", fixture.next_scene());
        Self { fixture, prefix }
    }

    /// The fixture.
    pub fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// A name that only this case uses.
    pub fn id(&self, text: &str) -> VmId {
        VmId::parse(&format!("{}{text}", self.prefix)).expect("cases use names of the grammar")
    }

    /// The VMs of this case, as the provider lists them, without what may change by itself.
    pub fn list(&self) -> Vec<VmView> {
        let mut mine = self.list_vms();
        mine.retain(|vm| self.is_mine(&vm.vm_id));
        mine.into_iter().map(gist).collect()
    }

    /// The VM of this name, without what may change by itself.
    ///
    /// # Errors
    /// [`Broken`] when there is none.
    #[track_caller]
    pub fn view(&self, vm_id: &VmId) -> Outcome<VmView> {
        let found = self.get_vm(vm_id).map(gist);
        found.ok_or_else(|| Broken::new(format!("there is no VM {vm_id}, and should be")))
    }

    /// Snapshots of this case's VMs.
    pub fn snapshots(&self) -> Vec<SnapshotView> {
        let mut mine = self.all_snapshots();
        mine.retain(|snapshot| self.is_mine(&snapshot.vm_id));
        mine
    }

    /// A VM that was never started.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    pub fn created(&self, text: &str) -> Outcome<Vm> {
        self.make(text, &self.fixture.spec)
    }

    /// A VM that runs and is ready: from the template where there are snapshots.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    pub fn running(&self, text: &str) -> Outcome<Vm> {
        if self.capabilities().restore {
            return self.restored(text, self.template()?.reference());
        }
        self.booted(text)
    }

    /// A VM that was booted and is ready, template or not.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    pub fn booted(&self, text: &str) -> Outcome<Vm> {
        let vm = self.created(text)?;
        self.start_vm(&vm.id)?;
        wait_ready(&**self, &vm.id, &self.fixture.readiness, self.patience())?;
        Ok(vm)
    }

    /// A VM that starts from `snapshot`.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    #[track_caller]
    pub fn restored(&self, text: &str, snapshot: SnapshotRef) -> Outcome<Vm> {
        self.make(text, &restore_of(snapshot))
    }

    /// A VM of `spec`.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    #[track_caller]
    pub fn make(&self, text: &str, spec: &VmSpec) -> Outcome<Vm> {
        let id = self.id(text);
        self.create_vm_with_spec(&id, spec)?;
        let uid = self.view(&id)?.uid;
        Ok(Vm { id, uid })
    }

    /// A VM of the case's in `status`.
    ///
    /// # Errors
    /// [`Broken`] when it cannot be led there.
    pub fn vm_in(&self, text: &str, status: VmStatus) -> Outcome<Vm> {
        let vm = match status {
            VmStatus::Created | VmStatus::Destroyed => self.created(text)?,
            VmStatus::Running | VmStatus::Stopped | VmStatus::Failed => self.running(text)?,
        };
        match status {
            VmStatus::Created | VmStatus::Running => {}
            VmStatus::Stopped => self.stop_vm(&vm.id)?,
            VmStatus::Failed => self.fail(&vm, "poweroff")?,
            VmStatus::Destroyed => self.destroy_vm(&vm.id)?,
        }
        super::outcome::same("the status", self.view(&vm.id)?.status, status)?;
        Ok(vm)
    }

    /// Lets a VM end by itself, by what its guest is asked, and waits for that to be seen.
    ///
    /// # Errors
    /// [`Broken`] when it is not seen.
    pub fn fail(&self, vm: &Vm, request: &str) -> Outcome {
        let mut agent = self.agent(&vm.id)?;
        // The guest may be gone before its answer is.
        let _ = agent.ask(request, self.patience());
        self.until("a VM that ended by itself reads Failed", || {
            self.status(&vm.id) == Some(VmStatus::Failed)
        })
    }

    /// A conversation with a VM's guest.
    ///
    /// # Errors
    /// [`Broken`] when the guest does not answer.
    #[track_caller]
    pub fn agent(&self, vm_id: &VmId) -> Outcome<Agent> {
        Ok(Agent::greet(self.guest_channel(vm_id)?, SystemEnv.uid(), self.patience())?)
    }

    /// Asks a VM's guest one line.
    ///
    /// # Errors
    /// [`Broken`] when it does not answer, or with an error.
    #[track_caller]
    pub fn ask(&self, vm_id: &VmId, request: &str) -> Outcome<String> {
        Ok(self.agent(vm_id)?.ask(request, self.patience())?)
    }

    /// Captures a VM, stopping it before and starting it again where it must be stopped.
    ///
    /// # Errors
    /// [`Broken`] when the provider refuses.
    #[track_caller]
    pub fn capture(&self, vm: &Vm, snapshot: &str) -> Outcome<SnapshotRef> {
        let runs = self.status(&vm.id) == Some(VmStatus::Running);
        let stop = runs && self.capabilities().snapshot_running == RunningSnapshot::StopRequired;
        if stop {
            self.stop_vm(&vm.id)?;
        }
        self.snapshot_vm(&vm.id, &snapshot_id(snapshot))?;
        if stop {
            self.start_vm(&vm.id)?;
        }
        Ok(by_uid(vm.uid, snapshot))
    }

    /// The template that all cases share.
    ///
    /// # Errors
    /// [`Broken`] when it could not be made.
    pub fn template(&self) -> Outcome<&Template> {
        self.fixture.template()
    }

    /// From now on the VM's backend does not answer, until the hold is released.
    ///
    /// # Errors
    /// [`Broken`] when there is no such VM.
    pub fn hold(&self, vm: &Vm) -> Outcome<Box<dyn Hold>> {
        let view = self.get_vm(&vm.id);
        let view = view.ok_or_else(|| Broken::new("the VM to be held is gone"))?;
        let holder = self.fixture.holder.as_ref();
        let holder = holder.ok_or_else(|| Broken::new("the fixture cannot hold VMs"))?;
        Ok(holder.hold(&view, self.patience()))
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// [`Broken`] when it has not come after half of the fixture's patience.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) -> Outcome {
        let deadline = Deadline::after(self.patience());
        while !condition() {
            ensure!(deadline.left().is_some(), "waited in vain until {what}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// How often a race is run.
    pub fn rounds(&self) -> std::ops::Range<usize> {
        0..self.fixture.effort.rounds
    }

    /// How many take part in a race.
    pub fn threads(&self) -> usize {
        self.fixture.effort.threads
    }

    /// How long a wait inside of a case may take.
    pub fn patience(&self) -> Duration {
        self.fixture.patience / 2
    }

    /// Destroys and unpins what the case left; then nothing of it may be there.
    pub(super) fn clear(&self) -> Outcome {
        for vm in self.list() {
            self.destroy_vm(&vm.vm_id)?;
        }
        for snapshot in self.snapshots() {
            for pin in snapshot.pinned_by.iter().filter(|pin| !pin.starts_with("vm:")) {
                self.unpin_snapshot(snapshot.uid, pin)?;
            }
        }
        let (vms, snapshots) = (self.list(), self.snapshots());
        ensure!(vms.is_empty(), "VMs are left: {vms:?}");
        ensure!(snapshots.is_empty(), "snapshots are left: {snapshots:?}");
        Ok(())
    }

    fn is_mine(&self, vm_id: &VmId) -> bool {
        vm_id.as_str().starts_with(&self.prefix)
    }
}

/// A view without what may change by itself.
fn gist(vm: VmView) -> VmView {
    VmView { endpoints: Vec::new(), process: None, failure: None, ..vm }
}

/// A snapshot's name.
pub(super) fn snapshot_id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).expect("cases use names of the grammar")
}

/// A reference to a snapshot by its VM's uid; what is restored from it runs at once.
pub(super) fn by_uid(vm_uid: Uid, snapshot: &str) -> SnapshotRef {
    SnapshotRef {
        source: SnapshotSource::VmUid(vm_uid),
        snapshot_id: snapshot_id(snapshot),
        resume_immediately: true,
        network_overrides: Vec::new(),
    }
}

/// As [`by_uid`], by its VM's name.
pub(super) fn by_name(vm_id: &VmId, snapshot: &str) -> SnapshotRef {
    let source = SnapshotSource::Name(vm_id.clone());
    SnapshotRef { source, ..by_uid(Uid::from_random([0; 16]), snapshot) }
}

/// A spec that starts from `snapshot`.
pub(super) fn restore_of(snapshot: SnapshotRef) -> VmSpec {
    VmSpec { restore_from: Some(snapshot), ..VmSpec::default() }
}

/// Runs `act` in `count` threads that begin together; answers in the order of their numbers.
///
/// Each time another number is begun last: on one processor, that one acts first.
pub(super) fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % count;
    // Closer together than a barrier, which wakes them one after another.
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let run = |number| {
            let (arrived, act) = (&arrived, &act);
            scope.spawn(move || {
                arrived.fetch_add(1, Ordering::AcqRel);
                while arrived.load(Ordering::Acquire) < count {
                    std::thread::yield_now();
                }
                act(number)
            })
        };
        let mut threads: Vec<_> = (turn..count).chain(0..turn).map(run).collect();
        threads.rotate_right(turn);
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}
