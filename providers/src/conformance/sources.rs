//! Whose snapshot is meant: by name the present holder's, by uid one VM's for ever.

use super::case::cases;
use super::outcome::{ensure, refused, same};
use super::scene::{Scene, Vm, by_name, by_uid, restore_of};
use crate::model::{SnapshotRef, VmStatus};

cases! {
    /// A living VM's snapshot is found by its name and by its uid.
    fn a_living_vms_snapshot_is_found(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        p.capture(&vm, "snap")?;
        p.restored("one", by_name(&vm.id, "snap"))?;
        p.restored("two", by_uid(vm.uid, "snap"))?;
        let from = |text: &str| p.view(&p.id(text)).map(|vm| vm.restored_from);
        same("what both come from", from("one")?, from("two")?)?;
    }

    /// After a rename a VM's snapshots are found by its new name.
    fn a_renamed_vms_snapshot_is_found_by_its_new_name(p)
    if (p.capabilities().restore && p.capabilities().rename) {
        let vm = p.running("vm")?;
        p.capture(&vm, "snap")?;
        p.rename_vm(&vm.id, &p.id("renamed"))?;
        same("its VM", p.snapshot(&by_name(&p.id("renamed"), "snap"))?.vm_uid, vm.uid)?;
        let other = p.created("vm")?;
        let hidden = p.snapshot(&by_name(&other.id, "snap"));
        refused(hidden, "snapshot_not_found")?;
    }

    /// While nobody has the name, it means the last VM that had it.
    fn a_gone_vms_snapshot_is_found_by_its_name(p) if (p.capabilities().restore) {
        let gone = gone_with_pinned_snapshot(p, "first")?;
        let clone = p.restored("clone", by_name(&gone.id, "snap"))?;
        says(p, &clone, "first")?;
    }

    /// A VM's snapshot is found by uid after its end, and after its name was used again.
    fn a_gone_vms_snapshot_is_found_by_uid(p) if (p.capabilities().restore) {
        let gone = gone_with_pinned_snapshot(p, "first")?;
        says(p, &p.restored("one", by_uid(gone.uid, "snap"))?, "first")?;
        p.created("vm")?;
        says(p, &p.restored("two", by_uid(gone.uid, "snap"))?, "first")?;
    }

    /// A name's new holder hides the snapshots of the one before it.
    fn the_next_holder_of_a_name_hides_older_snapshots(p) if (p.capabilities().restore) {
        let gone = gone_with_pinned_snapshot(p, "first")?;
        let next = p.created("vm")?;
        ensure!(next.uid != gone.uid, "a uid was used again");
        let by_name = by_name(&next.id, "snap");
        refused(p.snapshot(&by_name), "snapshot_not_found")?;
        refused(p.pin_snapshot(&by_name, "other"), "snapshot_not_found")?;
        refused(p.delete_snapshot(&by_name), "snapshot_not_found")?;
        let restored = p.create_vm_with_spec(&p.id("clone"), &restore_of(by_name));
        refused(restored, "snapshot_not_found")?;
        same("the VM", p.get_vm(&p.id("clone")), None)?;
    }

    /// Snapshots of two VMs that had one name in turn are told apart.
    fn snapshots_of_two_holders_of_a_name_are_told_apart(p) if (p.capabilities().restore) {
        let gone = gone_with_pinned_snapshot(p, "first")?;
        let next = p.running("vm")?;
        remark(p, &next, "second")?;
        let snapshot = p.capture(&next, "snap")?;
        says(p, &p.restored("old", by_uid(gone.uid, "snap"))?, "first")?;
        says(p, &p.restored("new", snapshot)?, "second")?;
        says(p, &p.restored("named", by_name(&next.id, "snap"))?, "second")?;
    }

    /// A snapshot whose VM is gone and that nothing keeps is gone too.
    fn an_unpinned_snapshot_goes_with_its_vm(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        let by_uid = p.capture(&vm, "snap")?;
        p.destroy_vm(&vm.id)?;
        same("the snapshots", p.snapshots(), vec![])?;
        for wanted in [by_uid, by_name(&vm.id, "snap")] {
            refused(p.snapshot(&wanted), "snapshot_not_found")?;
            let restored = p.create_vm_with_spec(&p.id("clone"), &restore_of(wanted));
            refused(restored, "snapshot_not_found")?;
        }
        same("the VM", p.get_vm(&p.id("clone")), None)?;
    }
}

/// A destroyed VM called `vm`, of which a pinned snapshot `snap` remains that says `remark`.
fn gone_with_pinned_snapshot(p: &Scene, text: &str) -> super::Outcome<Vm> {
    let vm = p.running("vm")?;
    remark(p, &vm, text)?;
    let snapshot: SnapshotRef = p.capture(&vm, "snap")?;
    p.pin_snapshot(&snapshot, "pin")?;
    p.destroy_vm(&vm.id)?;
    same("the status", p.status(&vm.id), Some(VmStatus::Destroyed))?;
    Ok(vm)
}

/// Leaves a remark in a guest that has memory to keep it.
fn remark(p: &Scene, vm: &Vm, text: &str) -> super::Outcome {
    if p.fixture().can_continue() {
        p.ask(&vm.id, &format!("name {text}"))?;
    }
    Ok(())
}

/// The guest has the remark that was left in the one it continues.
fn says(p: &Scene, vm: &Vm, text: &str) -> super::Outcome {
    if p.fixture().can_continue() {
        let name = p.agent(&vm.id)?.ping(p.patience())?.name;
        same("the remark in the guest", name.as_deref(), Some(text))?;
    }
    Ok(())
}
