//! VMs from their making to their end, also across restarts of hearth.

use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};

use crate::cli_fake::Machine;
use crate::rig::{Case, Rig, STATE, id, restored, snapshot_id, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("the_tool_knows_a_vm_by_its_uid_alone", the_tool_knows_a_vm_by_its_uid_alone),
    ("a_snapshot_keeps_disk_processors_and_memory", a_snapshot_keeps_disk_processors_and_memory),
    ("an_unstarted_clone_is_captured_as_it_was_made", an_unstarted_clone_is_captured),
    ("a_death_is_noticed", a_death_is_noticed),
    ("a_stop_is_no_death", a_stop_is_no_death),
    ("vms_are_taken_up_as_they_stand", vms_are_taken_up_as_they_stand),
    ("what_ended_meanwhile_is_failed", what_ended_meanwhile_is_failed),
    ("only_what_is_ours_is_swept", only_what_is_ours_is_swept),
    ("an_unfinished_instance_is_reaped", an_unfinished_instance_is_reaped),
];

fn the_tool_knows_a_vm_by_its_uid_alone() {
    let rig = Rig::with(|config| config.command = vec!["serve".to_owned()]);
    let uid = rig.run("before");
    rig.provider().rename_vm(&id("before"), &id("after")).unwrap();
    let machine = rig.machine(uid).unwrap();
    assert_eq!(machine.labels["dev.hearth.state"], STATE);
    assert_eq!((machine.vcpu_count, machine.mem_size_mib), (2, 256));
    assert_eq!(machine.command, ["serve"]);
    assert_eq!(machine.state, "running");
    rig.provider().destroy_vm(&id("after")).unwrap();
    assert_eq!(rig.fake.machines(), []);
}

fn a_snapshot_keeps_disk_processors_and_memory() {
    let rig = Rig::new();
    let uid = rig.run("vm");
    rig.change(uid, |machine| machine.disk = "a note".to_owned());
    rig.change(uid, |machine| machine.temporary = "left over".to_owned());
    let refused = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert_eq!(refused.kind(), "stop_required");
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.change(uid, |machine| machine.disk = "a later note".to_owned());
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    let clone = rig.machine(rig.provider().get_vm(&id("clone")).unwrap().uid).unwrap();
    assert_eq!((clone.disk.as_str(), clone.temporary.as_str()), ("a note", ""));
    assert_eq!((clone.vcpu_count, clone.mem_size_mib), (2, 256));
    assert_eq!(clone.state, "running");
    let snapshot = rig.provider().all_snapshots().remove(0);
    let dir = rig.paths().snapshot(snapshot.uid);
    assert!(dir.join("machine.smolmachine").is_file());
    assert!(!dir.join("machine").exists(), "the stub is of no use");
    assert!(!snapshot.has_memory && snapshot.size_bytes > 0);
}

fn an_unstarted_clone_is_captured() {
    let mut rig = Rig::new();
    let uid = rig.run("vm");
    rig.change(uid, |machine| machine.disk = "a note".to_owned());
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, false)).unwrap();
    rig.close();
    rig.open();
    let clone = rig.provider().get_vm(&id("clone")).unwrap();
    assert_eq!(clone.status, VmStatus::Stopped);
    // The tool could not: it was never started.
    assert_eq!(rig.machine(clone.uid).unwrap().state, "created");
    rig.provider().snapshot_vm(&id("clone"), &snapshot_id("snap")).unwrap();
    rig.provider().create_vm_with_spec(&id("second"), &restored(clone.uid, true)).unwrap();
    let second = rig.provider().get_vm(&id("second")).unwrap().uid;
    assert_eq!(rig.machine(second).unwrap().disk, "a note");
}

fn a_death_is_noticed() {
    let rig = Rig::new();
    let (vm, removed) = (rig.run("vm"), rig.run("removed"));
    rig.change(vm, |machine| {
        machine.state = "stopped".to_owned();
        machine.output += "panic\n";
    });
    rig.fake.remove(&format!("hearth-{removed}"));
    wait_until("both are failed", || {
        ["vm", "removed"].iter().all(|name| rig.status(name) == Some(VmStatus::Failed))
    });
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert_eq!(failure.reason, "the machine ended by itself");
    assert!(failure.console_tail.ends_with("panic\n"), "{failure:?}");
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.provider().destroy_vm(&id("removed")).unwrap();
}

fn a_stop_is_no_death() {
    let rig = Rig::new();
    let other = rig.run("other");
    rig.run("vm");
    for _ in 0..10 {
        rig.provider().stop_vm(&id("vm")).unwrap();
        rig.provider().start_vm(&id("vm")).unwrap();
    }
    // The watch has looked since, for it has seen this.
    rig.change(other, |machine| machine.state = "failed".to_owned());
    wait_until("the other is failed", || rig.status("other") == Some(VmStatus::Failed));
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
}

fn vms_are_taken_up_as_they_stand() {
    let mut rig = Rig::new();
    rig.create("created");
    rig.run("running");
    rig.run("stopped");
    rig.provider().stop_vm(&id("stopped")).unwrap();
    rig.close();
    let report = rig.open();
    assert_eq!((report.adopted, report.reaped_instances), (3, 0));
    assert_eq!(rig.status("created"), Some(VmStatus::Created));
    assert_eq!(rig.status("running"), Some(VmStatus::Running));
    assert_eq!(rig.status("stopped"), Some(VmStatus::Stopped));
    rig.provider().start_vm(&id("stopped")).unwrap();
    rig.provider().start_vm(&id("created")).unwrap();
    rig.provider().stop_vm(&id("running")).unwrap();
}

fn what_ended_meanwhile_is_failed() {
    let mut rig = Rig::new();
    let (ended, removed) = (rig.run("ended"), rig.run("removed"));
    rig.close();
    rig.change(ended, |machine| machine.state = "stopped".to_owned());
    rig.fake.remove(&format!("hearth-{removed}"));
    rig.open();
    for (name, reason) in [("ended", "ended while hearth"), ("removed", "was removed while")] {
        let vm = rig.provider().get_vm(&id(name)).unwrap();
        assert_eq!(vm.status, VmStatus::Failed);
        let failure = vm.failure.unwrap();
        assert!(failure.reason.contains(reason), "{failure:?}");
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    assert_eq!(rig.fake.machines(), []);
}

fn only_what_is_ours_is_swept() {
    let mut rig = Rig::new();
    rig.close();
    let machine = |number: u8, state: Option<&str>| Machine {
        name: format!("hearth-{}", hearth_providers::Uid::from_random([number; 16])),
        state: "running".to_owned(),
        labels: state
            .map(|it| ("dev.hearth.state".to_owned(), it.to_owned()))
            .into_iter()
            .collect(),
        ..Machine::default()
    };
    let ours = machine(1, Some(STATE));
    let strangers = [machine(2, Some("another-state")), machine(3, None)];
    rig.fake.put(&ours);
    strangers.iter().for_each(|stranger| rig.fake.put(stranger));
    rig.fake.put(&Machine { name: "mine".to_owned(), ..machine(1, Some(STATE)) });
    let report = rig.open();
    assert_eq!(report.reaped_instances, 1);
    assert_eq!(rig.fake.machine(&ours.name), None);
    assert_eq!(rig.fake.machines().len(), 3, "somebody else's were removed");
}

fn an_unfinished_instance_is_reaped() {
    let mut rig = Rig::new();
    let uid = rig.run("vm");
    rig.close();
    // As if hearth had ended before the engine's record was written.
    let dir = rig.paths().instance(uid);
    let records: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().collect();
    for record in records.iter().filter(|entry| entry.file_name() != "machine.json") {
        std::fs::remove_file(record.path()).unwrap();
    }
    let report = rig.open();
    assert_eq!((report.adopted, report.reaped_instances, report.reaped_processes), (0, 1, 1));
    assert_eq!(rig.machine(uid), None);
    assert_eq!(rig.status("vm"), None);
}
