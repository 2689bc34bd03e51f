//! Every cell of the contract's table, by name.

use super::case::cases;
use super::outcome::{Outcome, ensure, refused, same};
use super::scene::{Scene, snapshot_id};
use crate::capabilities::RunningSnapshot;
use crate::error::{Result, VmRuntimeError};
use crate::id::VmId;
use crate::model::VmStatus::{self, Created, Destroyed, Failed, Running, Stopped};
use crate::transition::Verb;

cases! {
    /// A free name can be given to a new VM, which is Created.
    fn create_of_absent_works(p) {
        same("the VM of a free name", p.get_vm(&p.id("vm")), None)?;
        let vm = p.created("vm")?;
        same("the status", p.status(&vm.id), Some(Created))?;
        same("the number of VMs", p.list().len(), 1)?;
    }

    /// The name of a Created VM is taken.
    fn create_of_created_is_refused(p) { name_is_taken(p, Created)?; }

    /// The name of a Running VM is taken.
    fn create_of_running_is_refused(p) { name_is_taken(p, Running)?; }

    /// The name of a Stopped VM is taken.
    fn create_of_stopped_is_refused(p) { name_is_taken(p, Stopped)?; }

    /// The name of a Failed VM is taken until it is destroyed.
    fn create_of_failed_is_refused(p) if (p.can_fail()) { name_is_taken(p, Failed)?; }

    /// The name of a destroyed VM is free again, for a VM with another uid.
    fn create_of_destroyed_works(p) {
        let gone = p.vm_in("vm", Destroyed)?;
        let next = p.created("vm")?;
        ensure!(next.uid != gone.uid, "the uid of a destroyed VM was used again");
        same("the status of the next", p.status(&next.id), Some(Created))?;
        let remembered = p.get_vm_by_uid(gone.uid).map(|vm| vm.status);
        same("the status of the destroyed, by uid", remembered, Some(Destroyed))?;
    }

    /// There is nothing to start.
    fn start_of_absent_is_refused(p) { is_not_found(p, Verb::Start)?; }

    /// A VM that was never started boots.
    fn start_of_created_runs(p) { becomes(p, Created, Verb::Start, Running)?; }

    /// A VM that runs is not started again.
    fn start_of_running_is_refused(p) { is_invalid(p, Running, Verb::Start)?; }

    /// A stopped VM goes on.
    fn start_of_stopped_runs(p) { becomes(p, Stopped, Verb::Start, Running)?; }

    /// A VM that ended by itself is not started again.
    fn start_of_failed_is_refused(p) if (p.can_fail()) { is_invalid(p, Failed, Verb::Start)?; }

    /// A destroyed VM is not started again.
    fn start_of_destroyed_is_refused(p) { is_invalid(p, Destroyed, Verb::Start)?; }

    /// There is nothing to stop.
    fn stop_of_absent_is_refused(p) { is_not_found(p, Verb::Stop)?; }

    /// What was never started cannot be stopped.
    fn stop_of_created_is_refused(p) { is_invalid(p, Created, Verb::Stop)?; }

    /// A running VM stops.
    fn stop_of_running_stops(p) { becomes(p, Running, Verb::Stop, Stopped)?; }

    /// A stopped VM is not stopped again.
    fn stop_of_stopped_is_refused(p) { is_invalid(p, Stopped, Verb::Stop)?; }

    /// A VM that ended by itself is not stopped.
    fn stop_of_failed_is_refused(p) if (p.can_fail()) { is_invalid(p, Failed, Verb::Stop)?; }

    /// A destroyed VM is not stopped.
    fn stop_of_destroyed_is_refused(p) { is_invalid(p, Destroyed, Verb::Stop)?; }

    /// There is nothing to capture.
    fn snapshot_of_absent_is_refused(p) { is_not_found(p, Verb::Snapshot)?; }

    /// A VM that was never started can be captured, where the provider can.
    fn snapshot_of_created_keeps_it_created(p) if (p.capabilities().snapshot_created) {
        becomes(p, Created, Verb::Snapshot, Created)?;
    }

    /// A VM that was never started is not captured, where the provider cannot.
    fn snapshot_of_created_is_refused(p) if (!p.capabilities().snapshot_created) {
        is_invalid(p, Created, Verb::Snapshot)?;
    }

    /// A running VM is captured and runs on, where the provider can.
    fn snapshot_of_running_keeps_it_running(p)
    if (p.capabilities().snapshot_running == RunningSnapshot::Pauses) {
        becomes(p, Running, Verb::Snapshot, Running)?;
    }

    /// A running VM has to be stopped first, where the provider cannot pause it.
    fn snapshot_of_running_asks_for_a_stop(p)
    if (p.capabilities().snapshot_running == RunningSnapshot::StopRequired) {
        let vm = p.vm_in("vm", Running)?;
        let before = p.list();
        refused(ask(p, Verb::Snapshot, &vm.id), "stop_required")?;
        same("the case's VMs", p.list(), before)?;
    }

    /// A stopped VM is captured and stays stopped.
    fn snapshot_of_stopped_keeps_it_stopped(p) {
        becomes(p, Stopped, Verb::Snapshot, Stopped)?;
    }

    /// A VM that ended by itself is not captured.
    fn snapshot_of_failed_is_refused(p) if (p.can_fail()) {
        is_invalid(p, Failed, Verb::Snapshot)?;
    }

    /// A destroyed VM is not captured.
    fn snapshot_of_destroyed_is_refused(p) { is_invalid(p, Destroyed, Verb::Snapshot)?; }

    /// There is nothing to destroy.
    fn destroy_of_absent_is_refused(p) { is_not_found(p, Verb::Destroy)?; }

    /// A Created VM can be destroyed.
    fn destroy_of_created_destroys(p) { is_destroyed(p, Created)?; }

    /// A Running VM can be destroyed.
    fn destroy_of_running_destroys(p) { is_destroyed(p, Running)?; }

    /// A Stopped VM can be destroyed.
    fn destroy_of_stopped_destroys(p) { is_destroyed(p, Stopped)?; }

    /// A Failed VM can be destroyed.
    fn destroy_of_failed_destroys(p) if (p.can_fail()) { is_destroyed(p, Failed)?; }

    /// A destroyed VM is not destroyed again.
    fn destroy_of_destroyed_is_refused(p) { is_invalid(p, Destroyed, Verb::Destroy)?; }

    /// There is nothing to rename.
    fn rename_of_absent_is_refused(p) if (p.capabilities().rename) {
        is_not_found(p, Verb::Rename)?;
        same("the VM of the new name", p.get_vm(&p.id("renamed")), None)?;
    }

    /// A Created VM can be renamed.
    fn rename_of_created_keeps_it_created(p) if (p.capabilities().rename) {
        becomes(p, Created, Verb::Rename, Created)?;
    }

    /// A Running VM can be renamed and runs on.
    fn rename_of_running_keeps_it_running(p) if (p.capabilities().rename) {
        becomes(p, Running, Verb::Rename, Running)?;
    }

    /// A Stopped VM can be renamed.
    fn rename_of_stopped_keeps_it_stopped(p) if (p.capabilities().rename) {
        becomes(p, Stopped, Verb::Rename, Stopped)?;
    }

    /// A Failed VM can be renamed.
    fn rename_of_failed_keeps_it_failed(p) if (p.capabilities().rename && p.can_fail()) {
        becomes(p, Failed, Verb::Rename, Failed)?;
    }

    /// A destroyed VM is not renamed.
    fn rename_of_destroyed_is_refused(p) if (p.capabilities().rename) {
        is_invalid(p, Destroyed, Verb::Rename)?;
        same("the VM of the new name", p.get_vm(&p.id("renamed")), None)?;
    }
}

fn ask(p: &Scene, verb: Verb, vm_id: &VmId) -> Result<()> {
    match verb {
        Verb::Start => p.start_vm(vm_id),
        Verb::Stop => p.stop_vm(vm_id),
        Verb::Snapshot => p.snapshot_vm(vm_id, &snapshot_id("snap")),
        Verb::Destroy => p.destroy_vm(vm_id),
        Verb::Rename => p.rename_vm(vm_id, &p.id("renamed")),
    }
}

/// `verb` leads a VM of status `from` to `to`; whatever else is seen of it stays.
fn becomes(p: &Scene, from: VmStatus, verb: Verb, to: VmStatus) -> Outcome {
    let vm = p.vm_in("vm", from)?;
    let mut wanted = p.view(&vm.id)?;
    ask(p, verb, &vm.id)?;
    wanted.status = to;
    match verb {
        Verb::Snapshot => wanted.snapshots.push(snapshot_id("snap")),
        Verb::Rename => wanted.vm_id = p.id("renamed"),
        Verb::Start | Verb::Stop | Verb::Destroy => {}
    }
    same("the VM", p.view(&wanted.vm_id)?, wanted.clone())?;
    same("the status", p.status(&wanted.vm_id), Some(to))?;
    let by_uid = p.get_vm_by_uid(vm.uid).map(|vm| (vm.vm_id, vm.status));
    same("the VM, by uid", by_uid, Some((wanted.vm_id.clone(), to)))?;
    if verb == Verb::Rename {
        same("the VM of the old name", p.get_vm(&vm.id), None)?;
        same("the status at the old name", p.status(&vm.id), None)?;
    }
    same("the case's VMs", p.list(), vec![wanted])
}

fn is_destroyed(p: &Scene, from: VmStatus) -> Outcome {
    let vm = p.vm_in("vm", from)?;
    p.destroy_vm(&vm.id)?;
    same("the case's live VMs", p.list(), vec![])?;
    let seen = p.view(&vm.id)?;
    same("what is remembered by name", (seen.uid, seen.status), (vm.uid, Destroyed))?;
    same("the status by name", p.status(&vm.id), Some(Destroyed))?;
    let by_uid = p.get_vm_by_uid(vm.uid).map(|vm| (vm.vm_id, vm.status));
    same("what is remembered by uid", by_uid, Some((vm.id, Destroyed)))
}

/// `verb` on a VM of `status` is refused, with the reason, and changes nothing.
fn is_invalid(p: &Scene, status: VmStatus, verb: Verb) -> Outcome {
    let vm = p.vm_in("vm", status)?;
    let before = (p.list(), p.view(&vm.id)?, p.snapshots());
    let error = refused(ask(p, verb, &vm.id), "invalid_transition")?;
    if let VmRuntimeError::InvalidTransition { vm_id, status: seen, verb: asked } = error {
        same("what the error says", (vm_id, seen, asked), (vm.id.clone(), status, verb))?;
    }
    same("what is there", (p.list(), p.view(&vm.id)?, p.snapshots()), before)
}

fn is_not_found(p: &Scene, verb: Verb) -> Outcome {
    let vm_id = p.id("absent");
    let error = refused(ask(p, verb, &vm_id), "not_found")?;
    if let VmRuntimeError::NotFound { vm_id: named } = error {
        same("what the error says", named, vm_id.clone())?;
    }
    same("the VM", p.get_vm(&vm_id), None)?;
    same("the case's VMs", p.list(), vec![])
}

fn name_is_taken(p: &Scene, status: VmStatus) -> Outcome {
    let vm = p.vm_in("vm", status)?;
    let before = p.list();
    let error = refused(p.create_vm_with_spec(&vm.id, &p.fixture().spec), "already_exists")?;
    if let VmRuntimeError::AlreadyExists { vm_id } = error {
        same("what the error says", vm_id, vm.id.clone())?;
    }
    refused(p.create_vm(&vm.id), "already_exists")?;
    same("the case's VMs", p.list(), before)
}
