//! What a new process makes of what a former one left.

use super::*;

#[test]
fn what_a_former_life_left_is_adopted_by_name_and_uid() {
    let dir = tempfile::tempdir().unwrap();
    let (before, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport::default());
    let mut spec = VmSpec::default();
    std::sync::Arc::make_mut(&mut spec.tags).insert("pool".to_owned(), "default".to_owned());
    before.create_vm_with_spec(&id("one"), &spec).unwrap();
    before.start_vm(&id("one")).unwrap();
    before.rename_vm(&id("one"), &id("renamed")).unwrap();
    before.create_vm(&id("two")).unwrap();
    let seen = before.get_vm(&id("renamed")).unwrap();
    drop(before);

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { adopted: 2, ..OpenReport::default() });
    let adopted = after.get_vm(&id("renamed")).unwrap();
    assert_eq!((adopted.uid, adopted.create_time), (seen.uid, seen.create_time));
    assert_eq!((adopted.tags, adopted.status), (spec.tags, VmStatus::Failed));
    assert!(adopted.failure.unwrap().reason.contains("hearth ended"));
    assert_eq!(after.get_vm(&id("one")), None);
    assert_eq!(after.list_vms().len(), 2);

    after.rename_vm(&id("renamed"), &id("again")).unwrap();
    after.destroy_vm(&id("again")).unwrap();
    after.destroy_vm(&id("two")).unwrap();
    after.create_vm(&id("again")).unwrap();
    after.destroy_vm(&id("again")).unwrap();
    assert_eq!(entries(&dir.path().join("state/instances")), 0);
    assert_eq!(entries(&dir.path().join("run/names")), 0);
}

#[test]
fn an_instance_that_was_never_finished_is_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    let (uid, nameless) = (Uid::from_random([1; 16]), Uid::from_random([2; 16]));
    before.directory.claim(&id("half"), uid).unwrap();
    for uid in [uid, nameless] {
        std::fs::create_dir(paths(dir.path()).instance(uid)).unwrap();
    }
    drop(before);

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { reaped_instances: 2, ..OpenReport::default() });
    assert_eq!(entries(&dir.path().join("state/instances")), 0);
    assert_eq!(after.get_vm(&id("half")), None);
    after.create_vm(&id("half")).unwrap();
}

#[test]
fn an_instance_that_cannot_be_read_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    before.create_vm(&id("vm")).unwrap();
    let instance = paths(dir.path()).instance(uid_of(&before, "vm"));
    drop(before);
    std::fs::write(instance.join("instance.json"), "{").unwrap();

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport::default());
    assert!(instance.is_dir());
    assert_eq!(after.get_vm(&id("vm")), None);
    assert_eq!(after.create_vm(&id("vm")).unwrap_err().kind(), "already_exists");
}

#[test]
fn what_another_provider_made_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, _) = open("theirs", dir.path());
    theirs.create_vm(&id("vm")).unwrap();
    theirs.snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let uid = uid_of(&theirs, "vm");
    drop(theirs);

    let (ours, report) = open("ours", dir.path());
    assert_eq!(report, OpenReport::default());
    assert_eq!((ours.list_vms(), ours.all_snapshots()), (vec![], vec![]));
    assert_eq!(ours.create_vm(&id("vm")).unwrap_err().kind(), "already_exists");
    drop(ours);

    let (theirs, report) = open("theirs", dir.path());
    assert_eq!(report, OpenReport { adopted: 1, ..OpenReport::default() });
    assert_eq!(uid_of(&theirs, "vm"), uid);
    assert_eq!(theirs.list_snapshots(&id("vm")), Some(vec!["snap".to_owned()]));
}

/// A durable guest goes on as it stood, as a container may that an engine starts with the host.
#[test]
fn what_another_boot_of_the_host_left_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let open_in_boot = |seed| {
        let env: Arc<dyn Env> = Arc::new(SeededEnv::new(seed));
        let backend = MemoryBackend::durable(Arc::clone(&env));
        Engine::open("memory", backend, env, paths(dir.path())).unwrap()
    };
    let (before, _) = open_in_boot(1);
    before.create_vm(&id("runs")).unwrap();
    before.start_vm(&id("runs")).unwrap();
    before.create_vm(&id("kept")).unwrap();
    before.preserve_vm(uid_of(&before, "kept"), "artifact").unwrap();
    let kept = paths(dir.path()).instance(uid_of(&before, "kept"));
    let same = open_in_boot(1).0;
    assert_eq!(same.status(&id("runs")), Some(VmStatus::Running), "in the same boot it goes on");
    drop((before, same));
    // Also at the next start in that boot.
    for _ in 0..2 {
        let (after, report) = open_in_boot(2);
        assert_eq!(report, OpenReport { adopted: 2, ..OpenReport::default() });
        for name in ["runs", "kept"] {
            let failure = after.get_vm(&id(name)).unwrap().failure.unwrap();
            assert_eq!(failure.reason, "the host was restarted");
        }
        let failure = after.get_vm(&id("runs")).unwrap().failure.unwrap();
        assert_eq!(failure.console_tail, "READY\n");
        assert_eq!(after.start_vm(&id("runs")).unwrap_err().kind(), "invalid_transition");
    }
    let (after, _) = open_in_boot(2);
    after.destroy_vm(&id("runs")).unwrap();
    after.destroy_vm(&id("kept")).unwrap();
    assert!(kept.is_dir(), "an artifact's directory stays");
    assert_eq!(entries(&dir.path().join("state/instances")), 1);
    after.create_vm(&id("new")).unwrap();
    assert_eq!(open_in_boot(2).0.status(&id("new")), Some(VmStatus::Created));
}

#[test]
fn lost_names_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = open("memory", dir.path());
    before.create_vm(&id("vm")).unwrap();
    let first = uid_of(&before, "vm");
    before.rename_vm(&id("vm"), &id("other")).unwrap();
    before.create_vm(&id("vm")).unwrap();
    let second = uid_of(&before, "vm");
    drop(before);
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();

    let (after, report) = open("memory", dir.path());
    assert_eq!(report, OpenReport { adopted: 2, ..OpenReport::default() });
    // Both were made under one name: one has it, and the other is called after its uid.
    let holder = uid_of(&after, "vm");
    let other = if holder == first { second } else { first };
    assert_eq!(after.get_vm_by_uid(other).unwrap().vm_id, VmId::warm(other));
    assert_eq!(uid_of(&after, VmId::warm(other).as_str()), other);
    assert_eq!(entries(&dir.path().join("run/names")), 2);
}
