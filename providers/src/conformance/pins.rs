//! A snapshot lives as long as its VM, a pin, or a clone that runs on its memory.

use super::case::cases;
use super::outcome::{refused, same};
use super::scene::{Scene, by_uid};
use crate::model::SnapshotRef;
use crate::{Uid, VmRuntimeError};

cases! {
    /// The end of a template's VM leaves its pinned snapshot, and the last unpin removes it.
    fn a_pinned_snapshot_outlives_its_vm(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        p.destroy_vm(&p.id("vm"))?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec!["pin".to_owned()])?;
        let clone = p.restored("clone", snapshot.clone())?;
        p.destroy_vm(&clone.id)?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec!["pin".to_owned()])?;
        p.unpin_snapshot(uid, "pin")?;
        refused(p.snapshot(&snapshot), "snapshot_not_found")?;
        same("the snapshots", p.snapshots(), vec![])?;
    }

    /// A pinned snapshot is not deleted, and the refusal says who pins it.
    fn a_pinned_snapshot_is_not_deleted(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        let error = refused(p.delete_snapshot(&snapshot), "snapshot_in_use")?;
        if let VmRuntimeError::SnapshotInUse { pinned_by, .. } = error {
            same("who pins it", pinned_by, vec!["pin".to_owned()])?;
        }
        p.restored("clone", snapshot.clone())?;
        p.destroy_vm(&p.id("clone"))?;
        p.unpin_snapshot(uid, "pin")?;
        p.delete_snapshot(&snapshot)?;
    }

    /// The end of its pins leaves a snapshot whose VM lives.
    fn an_unpinned_snapshot_of_a_living_vm_stays(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        p.unpin_snapshot(uid, "pin")?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec![])?;
        p.restored("clone", snapshot)?;
    }

    /// To pin twice is to pin once; to unpin what is not pinned does nothing.
    fn pins_are_counted_once_a_holder(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        p.unpin_snapshot(uid, "nobody")?;
        p.unpin_snapshot(Uid::from_random([8; 16]), "pin")?;
        same("the pins", p.pin_snapshot(&snapshot, "pin")?.pinned_by, vec!["pin".to_owned()])?;
        p.unpin_snapshot(uid, "pin")?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec![])?;
        p.unpin_snapshot(uid, "pin")?;
        p.delete_snapshot(&snapshot)?;
    }

    /// A snapshot stays until the last of its holders lets go.
    fn every_holder_keeps_a_snapshot(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        let pinned_by = p.pin_snapshot(&snapshot, "other")?.pinned_by;
        same("the pins", pinned_by, vec!["other".to_owned(), "pin".to_owned()])?;
        p.destroy_vm(&p.id("vm"))?;
        p.unpin_snapshot(uid, "pin")?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec!["other".to_owned()])?;
        p.unpin_snapshot(uid, "other")?;
        refused(p.snapshot(&snapshot), "snapshot_not_found")?;
    }

    /// A live clone keeps the snapshot that it came from, and lets it go with its end.
    fn a_live_clone_keeps_its_snapshot(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        let snapshot = p.capture(&vm, "snap")?;
        let clone = p.restored("clone", snapshot.clone())?;
        let pins = vec![format!("vm:{}", clone.uid)];
        same("the pins", p.snapshot(&snapshot)?.pinned_by, pins.clone())?;
        refused(p.delete_snapshot(&snapshot), "snapshot_in_use")?;
        p.destroy_vm(&vm.id)?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, pins)?;
        p.restored("second", snapshot.clone())?;
        p.destroy_vm(&clone.id)?;
        p.destroy_vm(&p.id("second"))?;
        refused(p.snapshot(&snapshot), "snapshot_not_found")?;
    }

    /// A snapshot fits the host that made it, for as long as it is there.
    fn a_snapshot_fits_where_it_was_made(p) if (p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        p.snapshot_fits(uid)?;
        p.destroy_vm(&p.id("vm"))?;
        p.snapshot_fits(uid)?;
        p.restored("clone", snapshot)?;
        p.snapshot_fits(uid)?;
        p.destroy_vm(&p.id("clone"))?;
        p.unpin_snapshot(uid, "pin")?;
        refused(p.snapshot_fits(uid), "snapshot_not_found")?;
    }

    /// What is exported is the same bytes each time, and what is not there is not exported.
    fn an_export_is_the_same_each_time(p) if (p.capabilities().export && p.capabilities().restore) {
        let (snapshot, uid) = pinned(p)?;
        let export = || {
            let mut bytes = Vec::new();
            p.export_snapshot(&snapshot, &mut bytes).map(|()| bytes)
        };
        let first = export()?;
        same("whether there is something", first.is_empty(), false)?;
        same("whether it is the same", export()? == first, true)?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec!["pin".to_owned()])?;
        p.unpin_snapshot(uid, "pin")?;
        p.delete_snapshot(&snapshot)?;
        refused(p.export_snapshot(&snapshot, &mut Vec::new()), "snapshot_not_found")?;
    }

    /// A reader that goes away ends the export, and leaves the snapshot as it was.
    fn an_export_ends_with_its_reader(p) if (p.capabilities().export && p.capabilities().restore) {
        let (snapshot, _) = pinned(p)?;
        let mut gone: [u8; 16] = [0; 16];
        refused(p.export_snapshot(&snapshot, &mut &mut gone[..]), "backend")?;
        same("the pins", p.snapshot(&snapshot)?.pinned_by, vec!["pin".to_owned()])?;
        p.restored("clone", snapshot)?;
    }

    /// A deleted snapshot is gone, and its name is free for another.
    fn a_deleted_snapshot_frees_its_name(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        let snapshot = p.capture(&vm, "snap")?;
        let first = p.snapshot(&snapshot)?.uid;
        p.delete_snapshot(&snapshot)?;
        same("the snapshots", p.list_snapshots(&vm.id), Some(vec![]))?;
        refused(p.delete_snapshot(&snapshot), "snapshot_not_found")?;
        p.capture(&vm, "snap")?;
        let second = p.snapshot(&by_uid(vm.uid, "snap"))?.uid;
        same("the uid used again", second == first, false)?;
        same("the snapshots", p.list_snapshots(&vm.id), Some(vec!["snap".to_owned()]))?;
    }
}

/// A pinned snapshot of a running VM called `vm`.
fn pinned(p: &Scene) -> super::Outcome<(SnapshotRef, Uid)> {
    let vm = p.running("vm")?;
    let snapshot = p.capture(&vm, "snap")?;
    let uid = p.pin_snapshot(&snapshot, "pin")?.uid;
    Ok((snapshot, uid))
}
