//! Snapshots that outlive their VM, and processes.

use super::*;

#[test]
fn pins_and_owners_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    for vm in ["gone", "lives"] {
        before.create_vm(&id(vm)).unwrap();
        before.snapshot_vm(&id(vm), &snapshot_id("snap")).unwrap();
    }
    let (gone, lives) = (uid_of(&before, "gone"), uid_of(&before, "lives"));
    before.pin_snapshot(&reference(gone, "snap"), "template:default@1").unwrap();
    before.destroy_vm(&id("gone")).unwrap();
    drop(before);

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { adopted: 1, ..OpenReport::default() });
    assert_eq!(after.list_snapshots(&id("lives")), Some(vec!["snap".to_owned()]));
    let pinned = after.snapshot(&reference(gone, "snap")).unwrap();
    assert_eq!(pinned.pinned_by, ["template:default@1"]);
    assert_eq!(pinned.vm_id, id("gone"));
    // Guests of this provider are kept in memory: the files alone are not enough.
    let restore = VmSpec { restore_from: Some(reference(gone, "snap")), ..VmSpec::default() };
    let restored = after.create_vm_with_spec(&id("clone"), &restore);
    assert_eq!(restored.unwrap_err().kind(), "snapshot_not_found");
    assert_eq!(after.get_vm(&id("clone")), None);

    after.unpin_snapshot(pinned.uid, "template:default@1").unwrap();
    after.delete_snapshot(&reference(lives, "snap")).unwrap();
    assert_eq!(after.list_snapshots(&id("lives")), Some(vec![]));
    assert_eq!(entries(&dir.path().join("state/snapshots")), 0);
}

#[test]
fn a_clone_keeps_its_snapshot_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    before.create_vm(&id("vm")).unwrap();
    before.start_vm(&id("vm")).unwrap();
    before.snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let from = reference(uid_of(&before, "vm"), "snap");
    let restore = VmSpec { restore_from: Some(from.clone()), ..VmSpec::default() };
    before.create_vm_with_spec(&id("clone"), &restore).unwrap();
    before.destroy_vm(&id("vm")).unwrap();
    let clone = uid_of(&before, "clone");
    drop(before);

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { adopted: 1, ..OpenReport::default() });
    assert_eq!(after.snapshot(&from).unwrap().pinned_by, [format!("vm:{clone}")]);
    after.destroy_vm(&id("clone")).unwrap();
    assert_eq!(entries(&dir.path().join("state/snapshots")), 0);
}

#[test]
fn what_nothing_keeps_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    before.create_vm(&id("vm")).unwrap();
    before.snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let uid = uid_of(&before, "vm");
    drop(before);
    // Hearth ended between the end of the instance and that of its snapshot, and in the
    // middle of taking another one.
    std::fs::remove_dir_all(paths(dir.path()).instance(uid)).unwrap();
    std::fs::create_dir(paths(dir.path()).snapshot(Uid::from_random([3; 16]))).unwrap();

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { reaped_snapshots: 2, ..OpenReport::default() });
    assert_eq!(after.all_snapshots(), []);
    assert_eq!(entries(&dir.path().join("state/snapshots")), 0);
    assert_eq!(entries(&dir.path().join("run/names")), 0);
}

#[test]
fn a_preserved_directory_outlives_its_vm_and_goes_with_its_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let instances = dir.path().join("state/instances");
    let count = || std::fs::read_dir(&instances).unwrap().count();
    let uid = {
        let (provider, _) = open("memory", dir.path());
        provider.create_vm(&id("a")).unwrap();
        let uid = provider.get_vm(&id("a")).unwrap().uid;
        provider.preserve_vm(uid, "one").unwrap();
        provider.preserve_vm(uid, "two").unwrap();
        provider.destroy_vm(&id("a")).unwrap();
        assert_eq!(count(), 1, "it is kept");
        provider.create_vm(&id("a")).unwrap();
        provider.destroy_vm(&id("a")).unwrap();
        provider.unpreserve_vm(uid, "one").unwrap();
        uid
    };
    // It is no VM and no orphan, and its name is free.
    let (provider, _) = open("memory", dir.path());
    assert_eq!((count(), provider.list_vms().len()), (1, 0));
    provider.create_vm(&id("a")).unwrap();
    provider.unpreserve_vm(uid, "never").unwrap();
    provider.unpreserve_vm(uid, "two").unwrap();
    assert_eq!(count(), 1, "the VM's own");
}
