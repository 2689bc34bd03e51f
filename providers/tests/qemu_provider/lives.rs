//! Ends of VMs, and restarts of hearth.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hearth_providers::model::SnapshotSource;
use hearth_providers::provider::Probe;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{
    LONG, Rig, ask, cold_spec, counts_past, id, ping, processes_below, restored, snapshot_id,
    template_pong, wait_until,
};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_killed_qemu_is_a_failed_vm_and_reported", a_killed_qemu_is_a_failed_vm_and_reported),
    ("a_guest_that_ends_itself_has_failed", a_guest_that_ends_itself_has_failed),
    ("vms_run_on_without_hearth_and_are_taken_up", vms_run_on_without_hearth_and_are_taken_up),
    ("what_died_meanwhile_is_found_failed", what_died_meanwhile_is_found_failed),
    ("a_half_made_instance_is_reaped", a_half_made_instance_is_reaped),
    ("an_interrupted_snapshot_lets_the_guest_go_on", an_interrupted_snapshot),
    ("a_qemu_that_hangs_fails_its_probe_and_can_be_destroyed", a_qemu_that_hangs),
    ("destroy_against_a_snapshot_leaves_nothing", destroy_against_a_snapshot),
    ("nothing_is_left_of_a_destroyed_vm", nothing_is_left_of_a_destroyed_vm),
];

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn a_killed_qemu_is_a_failed_vm_and_reported() {
    let rig = Rig::new();
    let (sender, receiver) = mpsc::channel();
    rig.provider().observe_exits(Arc::new(move |uid| sender.send(uid).unwrap()));
    rig.clone_as("one");
    let view = rig.provider().get_vm(&id("one")).unwrap();
    kill(rig.pid("one"));
    assert_eq!(receiver.recv_timeout(LONG), Ok(view.uid));
    let view = rig.provider().get_vm(&id("one")).unwrap();
    assert_eq!(view.status, VmStatus::Failed);
    assert_eq!(view.process, None);
    let failure = view.failure.unwrap();
    assert_eq!(failure.exit_status, Some(137));
    assert!(failure.reason.contains("signal 9"), "{failure:?}");
    assert!(rig.provider().probe(&id("one"), Probe::Alive, LONG).is_err());
    rig.provider().destroy_vm(&id("one")).unwrap();
    rig.assert_instances(0);
}

fn a_guest_that_ends_itself_has_failed() {
    let rig = Rig::new();
    for (request, on_console) in [("poweroff", ""), ("panic", "agent: panic asked for")] {
        rig.clone_as("one");
        assert_eq!(ask(rig.provider(), "one", request), "ok");
        wait_until("the end is seen", || {
            rig.provider().status(&id("one")) == Some(VmStatus::Failed)
        });
        let failure = rig.provider().get_vm(&id("one")).unwrap().failure.unwrap();
        assert_eq!(failure.exit_status, Some(0), "{failure:?}");
        assert!(failure.console_tail.contains(on_console), "{failure:?}");
        let console = rig.provider().console(&id("one"), 0, 1 << 20).unwrap();
        assert!(String::from_utf8_lossy(&console.bytes).contains(on_console));
        rig.provider().destroy_vm(&id("one")).unwrap();
    }
}

fn vms_run_on_without_hearth_and_are_taken_up() {
    let mut rig = Rig::new();
    rig.clone_as("running");
    rig.clone_as("paused");
    rig.provider().pause_vm(&id("paused")).unwrap();
    rig.provider().create_vm_with_spec(&id("created"), &cold_spec()).unwrap();
    rig.provider().rename_vm(&id("running"), &id("renamed")).unwrap();
    let pids = [rig.pid("renamed"), rig.pid("paused")];
    let started = rig.provider().get_vm(&id("renamed")).unwrap().process.unwrap().start_time;
    let before = ping(rig.provider(), "renamed");
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (3, 0), "{report:?}");
    let provider = rig.provider();
    assert_eq!(provider.status(&id("renamed")), Some(VmStatus::Running));
    assert_eq!(provider.status(&id("paused")), Some(VmStatus::Stopped));
    assert_eq!(provider.status(&id("created")), Some(VmStatus::Created));
    assert_eq!([rig.pid("renamed"), rig.pid("paused")], pids);
    let again = provider.get_vm(&id("renamed")).unwrap().process.unwrap().start_time;
    let apart = again.duration_since(started).unwrap_or_else(|error| error.duration());
    assert!(apart.as_millis() < 50, "the same start: {apart:?}");
    // And they go on being worked with as if nothing had been.
    counts_past(provider, "renamed", before.counter);
    provider.resume_vm(&id("paused")).unwrap();
    assert_eq!(ping(provider, "paused").boot_id, before.boot_id);
    provider.snapshot_vm(&id("renamed"), &snapshot_id("later")).unwrap();
    let spec = restored(SnapshotSource::Name(id("renamed")), "later", true);
    provider.create_vm_with_spec(&id("back"), &spec).unwrap();
    assert!(ping(provider, "back").counter > before.counter);
    let (sender, receiver) = mpsc::channel();
    provider.observe_exits(Arc::new(move |uid| sender.send(uid).unwrap()));
    kill(rig.pid("paused"));
    let uid = provider.get_vm(&id("paused")).unwrap().uid;
    assert_eq!(receiver.recv_timeout(LONG), Ok(uid));
    for name in ["renamed", "paused", "created", "back"] {
        provider.destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

fn what_died_meanwhile_is_found_failed() {
    let mut rig = Rig::new();
    rig.clone_as("one");
    let pid = rig.pid("one");
    // Between two lives nobody takes the exit status.
    kill(pid);
    let report = rig.restart();
    assert_eq!(report.adopted, 1, "{report:?}");
    let view = rig.provider().get_vm(&id("one")).unwrap();
    assert_eq!((view.status, view.process), (VmStatus::Failed, None));
    assert!(view.failure.is_some_and(|failure| !failure.reason.is_empty()));
    rig.provider().destroy_vm(&id("one")).unwrap();
    assert!(rig.provider().list_vms().is_empty());
}

fn a_half_made_instance_is_reaped() {
    let mut rig = Rig::new();
    rig.clone_as("whole");
    rig.clone_as("half");
    rig.clone_as("unrecorded");
    let (half, unrecorded) = (rig.instance_dir("half"), rig.instance_dir("unrecorded"));
    let pid = rig.pid("unrecorded");
    fs::remove_file(half.join("instance.json")).unwrap();
    fs::remove_file(unrecorded.join("vmm.json")).unwrap();
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (2, 1), "{report:?}");
    assert_eq!(report.reaped_processes, 1);
    assert!(!half.exists());
    assert_eq!(rig.provider().get_vm(&id("half")), None);
    assert_eq!(processes_below(&rig.state).len(), 2);
    assert_eq!(rig.pid("unrecorded"), pid, "found by the directory it works in");
    ping(rig.provider(), "whole");
    ping(rig.provider(), "unrecorded");
}

fn an_interrupted_snapshot() {
    let mut rig = Rig::new();
    rig.clone_as("one");
    // As hearth leaves it when it ends in the middle: marked, and standing still.
    rig.provider().pause_vm(&id("one")).unwrap();
    let mark = rig.instance_dir("one").join("captured-while-running");
    fs::write(&mark, b"").unwrap();
    rig.restart();
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Running));
    assert!(!mark.exists());
    counts_past(rig.provider(), "one", template_pong().counter);
}

fn a_qemu_that_hangs() {
    let rig = Rig::new();
    rig.clone_as("one");
    rig.provider().probe(&id("one"), Probe::Alive, LONG).unwrap();
    let pid = Pid::from_raw(rig.pid("one").cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    for probe in [Probe::Alive, Probe::AgentAnswers] {
        let error = rig.provider().probe(&id("one"), probe, Duration::from_millis(100));
        assert_eq!(error.unwrap_err().kind(), "timeout");
    }
    rig.provider().destroy_vm(&id("one")).unwrap();
    rig.assert_instances(0);
}

fn destroy_against_a_snapshot() {
    let rig = Rig::new();
    let snapshots = rig.state.join("snapshots");
    let known: Vec<_> = fs::read_dir(&snapshots).unwrap().map(|it| it.unwrap().path()).collect();
    // From the first file on, each is a later moment to be interrupted at.
    for file in ["", "state", "disk-0.1", "disk-0.0", "image.json"] {
        let is_there = || {
            let mut all = fs::read_dir(&snapshots).unwrap().map(|it| it.unwrap().path());
            all.any(|dir| !known.contains(&dir) && dir.join(file).exists())
        };
        rig.clone_as("one");
        std::thread::scope(|scope| {
            let capturing =
                scope.spawn(|| rig.provider().snapshot_vm(&id("one"), &snapshot_id("late")));
            wait_until("the file is there", || is_there() || capturing.is_finished());
            rig.provider().destroy_vm(&id("one")).unwrap();
            let captured = capturing.join().unwrap();
            assert!(captured.is_ok() || captured.unwrap_err().kind() == "invalid_transition");
        });
        rig.assert_instances(0);
        assert_eq!(fs::read_dir(&snapshots).unwrap().count(), known.len());
    }
}

fn nothing_is_left_of_a_destroyed_vm() {
    let rig = Rig::new();
    rig.clone_as("one");
    let (pid, dir) = (rig.pid("one"), rig.instance_dir("one"));
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("vmm.json")).unwrap()).unwrap();
    let cgroup = record["cgroup"].as_str().map(PathBuf::from);
    if let Some(cgroup) = &cgroup {
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), pid.to_string());
    }
    let session = rustix::process::getsid(Pid::from_raw(pid.cast_signed())).unwrap();
    assert_eq!(session.as_raw_nonzero().get().cast_unsigned(), pid, "a session of its own");
    rig.provider().destroy_vm(&id("one")).unwrap();
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    assert!(cgroup.is_none_or(|cgroup| !cgroup.exists()));
    rig.assert_instances(0);
}
