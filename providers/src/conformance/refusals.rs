//! Refusals beyond the table: each of its kind, and nothing changes by it.

use std::path::Path;

use super::case::cases;
use super::outcome::{Broken, Outcome, refused, same};
use super::scene::{Scene, by_name, by_uid, restore_of, snapshot_id};
use crate::model::{SnapshotRef, VmStatus};
use crate::provider::Probe;

cases! {
    /// A snapshot's name is its VM's only once; the first one stays.
    fn a_snapshot_name_is_taken_once(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        p.capture(&vm, "snap")?;
        let before = (p.list(), p.snapshots());
        p.stop_vm(&vm.id)?;
        let again = p.snapshot_vm(&vm.id, &snapshot_id("snap"));
        refused(again, "snapshot_already_exists")?;
        p.start_vm(&vm.id)?;
        same("what is there", (p.list(), p.snapshots()), before)?;
    }

    /// Two VMs can have snapshots of one name.
    fn snapshot_names_are_their_vms_own(p) if (p.capabilities().restore) {
        let (one, other) = (p.running("one")?, p.running("other")?);
        p.capture(&one, "snap")?;
        p.capture(&other, "snap")?;
        same("the number of snapshots", p.snapshots().len(), 2)?;
    }

    /// A VM cannot start from a snapshot that its source never had.
    fn restore_of_a_snapshot_nobody_took_is_refused(p) if (p.capabilities().restore) {
        let vm = p.created("vm")?;
        cannot_be_restored(p, "one", by_uid(vm.uid, "missing"))?;
        cannot_be_restored(p, "two", by_name(&vm.id, "missing"))?;
    }

    /// A VM cannot start from a snapshot of a VM that never was.
    fn restore_from_an_unknown_vm_is_refused(p) if (p.capabilities().restore) {
        let gone = p.vm_in("gone", VmStatus::Destroyed)?;
        cannot_be_restored(p, "one", by_name(&p.id("nobody"), "ready"))?;
        cannot_be_restored(p, "two", by_uid(gone.uid, "ready"))?;
    }

    /// A VM cannot start from a snapshot whose files are gone, which is then not held by it.
    fn restore_of_a_snapshot_without_files_is_refused(p)
    if (p.capabilities().restore && p.snapshots_dir.is_some()) {
        let vm = p.running("vm")?;
        let snapshot = p.capture(&vm, "snap")?;
        let uid = p.snapshot(&snapshot)?.uid;
        if let Some(dir) = &p.fixture().snapshots_dir {
            let (from, to) = (dir.join(uid.to_string()), dir.join("aside"));
            let moved = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(Broken::new);
            moved(&from, &to)?;
            let refused = cannot_be_restored(p, "one", snapshot.clone());
            moved(&to, &from)?;
            refused?;
        }
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec![])?;
        p.restored("two", snapshot)?;
    }

    /// A restore does not take a name that is taken.
    fn restore_onto_a_taken_name_is_refused(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        let before = p.list();
        let spec = restore_of(p.template()?.reference());
        refused(p.create_vm_with_spec(&vm.id, &spec), "already_exists")?;
        same("the case's VMs", p.list(), before)?;
    }

    /// What is not there can be neither pinned nor deleted nor described.
    fn a_missing_snapshot_is_not_found(p) if (p.capabilities().restore) {
        let vm = p.created("vm")?;
        for missing in [by_uid(vm.uid, "missing"), by_name(&vm.id, "missing")] {
            refused(p.pin_snapshot(&missing, "pin"), "snapshot_not_found")?;
            refused(p.delete_snapshot(&missing), "snapshot_not_found")?;
            refused(p.snapshot(&missing), "snapshot_not_found")?;
        }
    }

    /// A VM cannot take another one's name; neither of them changes.
    fn rename_onto_a_taken_name_is_refused(p) if (p.capabilities().rename) {
        let (one, other) = (p.created("one")?, p.running("other")?);
        let before = p.list();
        refused(p.rename_vm(&one.id, &other.id), "already_exists")?;
        refused(p.rename_vm(&other.id, &one.id), "already_exists")?;
        same("the case's VMs", p.list(), before)?;
        same("the VM of the one name", p.view(&one.id)?.uid, one.uid)?;
        same("the VM of the other", p.view(&other.id)?.uid, other.uid)?;
    }

    /// A Failed VM keeps its name until it is destroyed.
    fn rename_onto_the_name_of_a_failed_vm_is_refused(p)
    if (p.capabilities().rename && p.can_fail()) {
        let failed = p.vm_in("failed", VmStatus::Failed)?;
        let vm = p.created("vm")?;
        refused(p.rename_vm(&vm.id, &failed.id), "already_exists")?;
        same("the status of the failed", p.status(&failed.id), Some(VmStatus::Failed))?;
    }

    /// A provider that cannot rename says so, whatever it is asked.
    fn rename_is_unsupported_where_it_is(p) if (!p.capabilities().rename) {
        let vm = p.created("vm")?;
        refused(p.rename_vm(&vm.id, &p.id("other")), "unsupported")?;
        same("the VM", p.view(&vm.id)?.uid, vm.uid)?;
    }

    /// Only a VM that runs has a channel.
    fn a_channel_needs_a_running_vm(p) if (p.capabilities().guest_channel) {
        refused(p.guest_channel(&p.id("absent")).map(drop), "not_found")?;
        let vm = p.created("vm")?;
        refused(p.guest_channel(&vm.id).map(drop), "invalid_transition")?;
        let stopped = p.vm_in("stopped", VmStatus::Stopped)?;
        refused(p.guest_channel(&stopped.id).map(drop), "invalid_transition")?;
    }

    /// Nobody is connected to a VM that does not run.
    fn a_connection_needs_a_running_vm(p) if (p.capabilities().connect) {
        refused(p.connect_vm(&p.id("absent"), None).map(drop), "not_found")?;
        let stopped = p.vm_in("stopped", VmStatus::Stopped)?;
        refused(p.connect_vm(&stopped.id, None).map(drop), "invalid_transition")?;
    }

    /// A provider that connects nobody to its VMs says so.
    fn a_connection_is_unsupported_where_it_is(p) if (!p.capabilities().connect) {
        let vm = p.running("vm")?;
        refused(p.connect_vm(&vm.id, None).map(drop), "unsupported")?;
    }

    /// Only a VM that runs is alive.
    fn a_probe_needs_a_running_vm(p) {
        let patience = p.patience();
        let alive = |text: &str| p.probe(&p.id(text), Probe::Alive, patience);
        refused(alive("absent"), "not_found")?;
        p.created("created")?;
        refused(alive("created"), "invalid_transition")?;
        p.vm_in("stopped", VmStatus::Stopped)?;
        refused(alive("stopped"), "invalid_transition")?;
        p.running("running")?;
        alive("running")?;
    }

    /// Nobody has the console of a VM that is not there.
    fn the_console_of_an_absent_vm_is_not_found(p) if (p.capabilities().console) {
        refused(p.console(&p.id("absent"), 0, 1), "not_found")?;
    }

    /// There are no snapshots of a VM that is not there.
    fn an_absent_vm_has_no_list_of_snapshots(p) {
        same("the snapshots", p.list_snapshots(&p.id("absent")), None)?;
        let vm = p.created("vm")?;
        same("the snapshots of a new VM", p.list_snapshots(&vm.id), Some(vec![]))?;
    }
}

/// A restore from `snapshot` under the name `text` is refused, and nothing is left of it.
fn cannot_be_restored(p: &Scene, text: &str, snapshot: SnapshotRef) -> Outcome {
    let before = (p.list(), p.snapshots());
    let vm_id = p.id(text);
    let restored = p.create_vm_with_spec(&vm_id, &restore_of(snapshot));
    refused(restored, "snapshot_not_found")?;
    same("what is there", (p.list(), p.snapshots()), before)?;
    same("the VM", p.get_vm(&vm_id), None)?;
    p.created(text).map(drop)
}
