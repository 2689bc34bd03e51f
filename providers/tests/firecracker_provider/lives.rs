//! Boots, clones, snapshots, deaths and restarts: on our fake and on the real one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, mpsc};

use hearth_providers::model::{Drive, NetworkInterface, RateLimits};
use hearth_providers::provider::Probe;
use hearth_providers::{VmProvider as _, VmQuery as _, VmRuntimeError, VmSpec, VmStatus};

use crate::Case;
use crate::firecracker_fake::Settings;
use crate::rig::{Host, LONG, Rig, change, id, kill, restored, snapshot_id, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("clones_go_on_where_the_template_stood", clones_go_on_where_the_template_stood),
    ("memory_is_there_before_the_guest_touches_it", memory_is_there_before_the_guest_touches_it),
    ("a_snapshot_of_a_clone_stands_alone", a_snapshot_of_a_clone_stands_alone),
    ("a_diff_snapshot_stands_alone", a_diff_snapshot_stands_alone),
    ("a_tracked_clone_writes_diffs", a_tracked_clone_writes_diffs),
    ("a_failed_snapshot_leaves_the_guest_running", a_failed_snapshot_leaves_the_guest_running),
    ("all_devices_are_cloned", all_devices_are_cloned),
    ("a_bad_kernel_is_told_and_can_be_mended", a_bad_kernel_is_told_and_can_be_mended),
    ("what_is_missing_is_named_and_leaves_nothing", what_is_missing_is_named),
    ("a_damaged_snapshot_is_refused_and_leaves_nothing", a_damaged_snapshot_is_refused),
    ("a_killed_firecracker_is_a_failed_vm_and_reported", a_killed_firecracker_is_a_failed_vm),
    ("vms_run_on_without_hearth_and_are_taken_up", vms_run_on_without_hearth),
    ("what_died_meanwhile_is_found_failed", what_died_meanwhile_is_found_failed),
    ("a_half_made_instance_is_reaped", a_half_made_instance_is_reaped),
    ("an_interrupted_snapshot_lets_the_guest_go_on", an_interrupted_snapshot),
    ("a_pause_that_would_hang_the_vsock_is_refused", a_pause_that_would_hang_the_vsock),
    ("nothing_is_left_of_a_destroyed_vm", nothing_is_left_of_a_destroyed_vm),
];

/// As many clones as a case makes at once.
const CLONES: usize = 20;

fn clones_go_on_where_the_template_stood(host: &Host) {
    let rig = Rig::new(host);
    let last = rig.template("template");
    rig.provider().destroy_vm(&id("template")).unwrap_or_else(|error| panic!("{error}"));
    // Gone with its VM, for nothing pins it.
    let gone =
        rig.provider().create_vm_with_spec(&id("late"), &restored("template", "ready", true));
    assert_eq!(gone.unwrap_err().kind(), "snapshot_not_found");
    rig.assert_instances(0);

    let last = last.min(rig.template("template"));
    let last = rig.last_count("template").max(last);
    let names: Vec<_> = (0..CLONES).map(|number| format!("clone-{number}")).collect();
    for name in &names {
        rig.clone_as(name, "template", "ready");
    }
    for name in &names {
        rig.counts_past(name, last + 2);
        let first = rig.counts(name)[0];
        assert_eq!(first, last + 1, "{name} goes on where the template stood");
    }
    let mut pids: Vec<_> = names.iter().map(|name| rig.pid(name)).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), CLONES);
    println!(
        "{}: counter {last} -> {}; {CLONES} of {CLONES} clones count on by themselves",
        host.name,
        last + 1
    );
}

fn memory_is_there_before_the_guest_touches_it(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    assert_eq!(rig.provider().prefault_vm(&id("template")).unwrap(), 0, "it has what it has");
    rig.clone_as("clone", "template", "ready");
    let bytes = fs::metadata(rig.snapshot_dir("ready").join("memory")).unwrap().len();
    let before = rig.memory("clone", "Rss");
    assert!(before < bytes, "{before} of {bytes} bytes are there already");
    let copied = rig.memory("clone", "Anonymous");
    rig.provider().stop_vm(&id("clone")).unwrap();
    assert_eq!(rig.provider().prefault_vm(&id("clone")).unwrap(), bytes);
    assert_eq!(rig.memory("clone", "Rss"), bytes);
    let copied_now = rig.memory("clone", "Anonymous");
    assert!(copied_now < copied + bytes / 8, "{copied} bytes were copied, and now {copied_now}");
    rig.provider().start_vm(&id("clone")).unwrap();
    rig.counts_past("clone", rig.last_count("clone") + 1);
    println!("{}: {before} of {bytes} bytes were there, then all of them", host.name);
    kill(rig.pid("clone"));
    wait_until("its end is seen", || rig.status("clone") == Some(VmStatus::Failed));
    let refused = rig.provider().prefault_vm(&id("clone")).unwrap_err();
    assert_eq!(refused.kind(), "invalid_transition", "{refused}");
}

fn a_snapshot_of_a_clone_stands_alone(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let of_template = rig.last_count("template");
    rig.counts_past("clone", of_template + 2);
    rig.provider().snapshot_vm(&id("clone"), &snapshot_id("again")).unwrap();
    let at_most = rig.last_count("clone") + 1;
    rig.provider().destroy_vm(&id("template")).unwrap();
    rig.clone_as("grandchild", "clone", "again");
    rig.provider().destroy_vm(&id("clone")).unwrap();
    rig.counts_past("grandchild", at_most);
    let first = rig.counts("grandchild")[0];
    assert!(first > of_template + 2 && first <= at_most + 1, "{first}, at most {at_most}");
    rig.assert_instances(1);
}

fn tracked(rig: &Rig) -> VmSpec {
    VmSpec { track_dirty_pages: true, ..rig.cold_spec() }
}

/// The memory that changes are counted from is that of the snapshot.
fn is_base(rig: &Rig, name: &str, snapshot: &str) -> bool {
    let inode = |path: std::path::PathBuf| fs::metadata(path).map(|it| it.ino()).ok();
    let base = inode(rig.instance_dir(name).join("base-memory"));
    base.is_some() && base == inode(rig.snapshot_dir(snapshot).join("memory"))
}

fn a_diff_snapshot_stands_alone(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &tracked(&rig));
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("whole")).unwrap();
    assert!(is_base(&rig, "vm", "whole"));
    rig.counts_past("vm", rig.last_count("vm") + 2);
    rig.provider().stop_vm(&id("vm")).unwrap();
    let last = rig.last_count("vm");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("diff")).unwrap();
    assert!(is_base(&rig, "vm", "diff"));
    let whole = restored("vm", "whole", true).restore_from.unwrap();
    rig.provider().delete_snapshot(&whole).unwrap();
    rig.clone_as("clone", "vm", "diff");
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.counts_past("clone", last + 2);
    assert_eq!(rig.counts("clone")[0], last + 1);
}

fn a_tracked_clone_writes_diffs(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &tracked(&rig));
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("whole")).unwrap();
    rig.clone_as("clone", "vm", "whole");
    assert!(is_base(&rig, "clone", "whole"), "its changes are counted from where it began");
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.counts_past("clone", rig.last_count("clone") + 2);
    rig.provider().stop_vm(&id("clone")).unwrap();
    let last = rig.last_count("clone");
    rig.provider().snapshot_vm(&id("clone"), &snapshot_id("diff")).unwrap();
    rig.clone_as("grandchild", "clone", "diff");
    rig.counts_past("grandchild", last + 2);
    assert_eq!(rig.counts("grandchild")[0], last + 1);
}

fn a_failed_snapshot_leaves_the_guest_running(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &rig.cold_spec());
    // The drive cannot be copied: a directory stands in its place.
    let drive = rig.instance_dir("vm").join("drive-rootfs");
    fs::remove_file(&drive).unwrap();
    let failed = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one"));
    assert_eq!(failed.unwrap_err().kind(), "backend");
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
    rig.counts_past("vm", rig.last_count("vm"));
    assert!(rig.provider().all_snapshots().is_empty());
    assert_eq!(fs::read_dir(rig.state.join("snapshots")).unwrap().count(), 0);
    fs::write(&drive, vec![0; 1 << 20]).unwrap();
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap();
}

fn all_devices_are_cloned(host: &Host) {
    let rig = Rig::with(host, &Settings::default(), |config| config.metrics = true);
    let data = rig.dir.path().join("data");
    fs::write(&data, vec![7; 64 << 10]).unwrap();
    let spec = VmSpec {
        vcpu_count: 2,
        extra_drives: vec![
            Drive { drive_id: "data".into(), path: data.clone(), read_only: true },
            Drive { drive_id: String::new(), path: data, read_only: false },
        ],
        rate_limits: RateLimits {
            disk_bytes_per_second: 1 << 20,
            disk_operations_per_second: 100,
            network_bytes_per_second: 1 << 20,
        },
        vsock_cid: Some(7),
        ..rig.cold_spec()
    };
    rig.boot("vm", &spec);
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap();
    let captured = fs::read(rig.snapshot_dir("one").join("drive-drive1")).unwrap();
    assert_eq!(captured, vec![7; 64 << 10]);
    assert!(!rig.snapshot_dir("one").join("drive-data").exists(), "it is shared, not copied");
    for clone in ["clone-1", "clone-2"] {
        rig.clone_as(clone, "vm", "one");
        rig.counts_past(clone, rig.last_count(clone) + 1);
        let endpoints = rig.provider().get_vm(&id(clone)).unwrap().endpoints;
        assert_eq!(endpoints.len(), 2, "{endpoints:?}");
        assert!(std::path::Path::new(&endpoints[1].address).exists(), "{endpoints:?}");
    }
}

fn a_bad_kernel_is_told_and_can_be_mended(host: &Host) {
    let rig = Rig::new(host);
    let kernel = rig.dir.path().join("no-kernel");
    fs::write(&kernel, "no kernel at all, but long enough for a header".repeat(4)).unwrap();
    let spec = VmSpec { kernel: Some(kernel.clone()), ..rig.cold_spec() };
    rig.provider().create_vm_with_spec(&id("vm"), &spec).unwrap();
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    assert!(error.to_string().contains("Invalid Elf magic number"), "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
    assert!(rig.processes().is_empty());
    fs::copy(&rig.kernel, &kernel).unwrap();
    rig.provider().start_vm(&id("vm")).unwrap();
    rig.counts_past("vm", 0);
}

fn what_is_missing_is_named(host: &Host) {
    let rig = Rig::new(host);
    let nowhere = Some(rig.dir.path().join("nowhere"));
    let tap = NetworkInterface { host_dev_name: "no-such-tap".into(), ..Default::default() };
    let wrong: [(VmSpec, &str); 4] = [
        (VmSpec { kernel: nowhere.clone(), ..rig.cold_spec() }, "kernel"),
        (VmSpec { rootfs: nowhere, ..rig.cold_spec() }, "rootfs"),
        (VmSpec { network_interfaces: vec![tap], ..rig.cold_spec() }, "network_interfaces"),
        (VmSpec { vcpu_count: 33, ..rig.cold_spec() }, "vcpu_count"),
    ];
    for (spec, field) in wrong {
        let error = rig.provider().create_vm_with_spec(&id("vm"), &spec).unwrap_err();
        assert!(
            matches!(&error, VmRuntimeError::InvalidSpec { field: of, .. } if *of == field),
            "{error}"
        );
        assert!(error.to_string().contains("no") || field == "vcpu_count", "{error}");
        rig.assert_instances(0);
    }
}

fn a_damaged_snapshot_is_refused(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    rig.provider().snapshot_vm(&id("template"), &snapshot_id("other")).unwrap();
    let dir = rig.snapshot_dir("ready");
    let other = rig.snapshot_dir("other");
    let at = |name: &str| dir.join(name);
    let check = |what: &str, kind: &str, says: &str| {
        let spec = restored("template", "ready", true);
        let error = rig.provider().create_vm_with_spec(&id("clone"), &spec).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(says), "{what}: {error}");
        rig.assert_instances(1);
    };
    let kept = |name: &str| rig.dir.path().join(format!("kept-{name}"));
    let keep = |name: &str| fs::rename(at(name), kept(name)).unwrap();
    let put_back = |name: &str| fs::rename(kept(name), at(name)).unwrap();

    keep("state");
    check("a missing state", "snapshot_not_found", "state");
    fs::write(at("state"), b"").unwrap();
    check("an empty state", "snapshot_not_found", "empty");
    fs::copy(kept("state"), at("state")).unwrap();
    change(&at("state"), |bytes| bytes[100] ^= 1);
    check("a flipped byte", "snapshot_incompatible", "not the one that was written");
    fs::remove_file(at("state")).unwrap();
    put_back("state");

    keep("memory");
    check("a missing memory", "snapshot_not_found", "memory");
    fs::write(at("memory"), vec![0; 4096]).unwrap();
    check("a truncated memory", "snapshot_not_found", "cut short");
    fs::copy(other.join("memory"), at("memory")).unwrap();
    check("another snapshot's memory", "snapshot_incompatible", "another's");
    fs::remove_file(at("memory")).unwrap();
    put_back("memory");

    keep("drive-rootfs");
    check("a missing drive", "snapshot_not_found", "drive-rootfs");
    put_back("drive-rootfs");
    rig.clone_as("clone", "template", "ready");
}

fn a_killed_firecracker_is_a_failed_vm(host: &Host) {
    let rig = Rig::new(host);
    let (sender, receiver) = mpsc::channel();
    rig.provider().observe_exits(Arc::new(move |uid| sender.send(uid).unwrap()));
    rig.boot("vm", &rig.cold_spec());
    let view = rig.provider().get_vm(&id("vm")).unwrap();
    kill(rig.pid("vm"));
    assert_eq!(receiver.recv_timeout(LONG), Ok(view.uid));
    let view = rig.provider().get_vm(&id("vm")).unwrap();
    assert_eq!((view.status, view.process), (VmStatus::Failed, None));
    let failure = view.failure.unwrap();
    assert!(failure.reason.contains("Firecracker was ended by signal 9"), "{failure:?}");
    assert!(failure.console_tail.contains("count 3"), "{failure:?}");
    assert!(rig.provider().probe(&id("vm"), Probe::Alive, LONG).is_err());
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.assert_instances(0);
}

fn vms_run_on_without_hearth(host: &Host) {
    let mut rig = Rig::new(host);
    rig.boot("running", &rig.cold_spec());
    rig.boot("paused", &rig.cold_spec());
    rig.provider().pause_vm(&id("paused")).unwrap();
    rig.provider().create_vm_with_spec(&id("created"), &rig.cold_spec()).unwrap();
    rig.provider().rename_vm(&id("running"), &id("renamed")).unwrap();
    let pids = [rig.pid("renamed"), rig.pid("paused")];
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (3, 0), "{report:?}");
    assert_eq!([rig.pid("renamed"), rig.pid("paused")], pids);
    let stands = ["renamed", "paused", "created"].map(|name| rig.status(name).unwrap());
    assert_eq!(stands, [VmStatus::Running, VmStatus::Stopped, VmStatus::Created]);
    rig.counts_past("renamed", rig.last_count("renamed"));
    rig.provider().resume_vm(&id("paused")).unwrap();
    rig.counts_past("paused", rig.last_count("paused"));
    rig.provider().start_vm(&id("created")).unwrap();
    rig.counts_past("created", 0);
    kill(pids[0]);
    wait_until("its end is seen", || rig.status("renamed") == Some(VmStatus::Failed));
    for name in ["renamed", "paused", "created"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

fn what_died_meanwhile_is_found_failed(host: &Host) {
    let mut rig = Rig::new(host);
    rig.boot("vm", &rig.cold_spec());
    let pid = rig.pid("vm");
    rig.stop();
    kill(pid);
    wait_until("it is gone", || rig.processes().is_empty());
    // The provider that started it is gone, and with it whoever would reap it.
    rig.provider_again();
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert!(failure.reason.contains("while hearth did not run"), "{failure:?}");
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.assert_instances(0);
}

fn a_half_made_instance_is_reaped(host: &Host) {
    let mut rig = Rig::new(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let dir = rig.instance_dir("clone");
    // hearth was killed before it wrote down that the clone is made.
    for file in fs::read_dir(&dir).unwrap().flatten() {
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("instance")) {
            fs::remove_file(file.path()).unwrap();
        }
    }
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (1, 1), "{report:?}");
    assert_eq!(report.reaped_processes, 1);
    assert_eq!(rig.status("clone"), None);
    rig.assert_instances(1);
}

fn an_interrupted_snapshot(host: &Host) {
    let mut rig = Rig::new(host);
    rig.boot("vm", &rig.cold_spec());
    // hearth was killed while the guest stood still for a snapshot.
    fs::write(rig.instance_dir("vm").join("captured-while-running"), b"").unwrap();
    rig.provider().stop_vm(&id("vm")).unwrap();
    let before = rig.last_count("vm");
    rig.restart();
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
    rig.counts_past("vm", before);
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap();
}

fn a_pause_that_would_hang_the_vsock(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &VmSpec { vsock_cid: Some(3), ..rig.cold_spec() });
    for refused in [rig.provider().stop_vm(&id("vm")), rig.provider().pause_vm(&id("vm"))] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), "unsupported", "{error}");
        assert!(error.to_string().contains("vsock"), "{error}");
    }
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
    assert!(!rig.provider().capabilities().pause_keeps_channels);
    // With a snapshot in between it is none.
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap();
    rig.counts_past("vm", rig.last_count("vm"));
}

fn nothing_is_left_of_a_destroyed_vm(host: &Host) {
    let rig = Rig::new(host);
    let last = rig.template("template");
    rig.clone_as("clone", "template", "ready");
    rig.counts_past("clone", last);
    for name in ["clone", "template"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
    assert_eq!(fs::read_dir(rig.state.join("snapshots")).unwrap().count(), 0);
}
