//! Boots, clones, disks and snapshots.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::model::{Drive, RateLimits, SnapshotSource};
use hearth_providers::qemu::{Accel, QemuBackend, QemuConfig};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{VmProvider as _, VmQuery as _, VmRuntimeError, VmSpec, VmStatus};

use crate::rig::{
    LONG, Rig, agent, ask, cold_spec, counts_past, id, open, ping, restored, snapshot_id,
    template_pong,
};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("clones_go_on_where_the_template_stood", clones_go_on_where_the_template_stood),
    ("memory_is_there_before_the_guest_touches_it", memory_is_there_before_the_guest_touches_it),
    ("disks_are_independent_and_of_one_moment", disks_are_independent_and_of_one_moment),
    ("a_pause_keeps_the_channel_open", a_pause_keeps_the_channel_open),
    ("a_channel_has_one_holder", a_channel_has_one_holder),
    ("a_snapshot_of_a_running_clone_stands_alone", a_snapshot_of_a_running_clone_stands_alone),
    ("a_stopped_vm_is_captured_again_and_again", a_stopped_vm_is_captured_again_and_again),
    ("a_missing_file_is_a_missing_snapshot", a_missing_file_is_a_missing_snapshot),
    ("a_snapshot_of_another_qemu_is_refused", a_snapshot_of_another_qemu_is_refused),
    ("a_machine_with_all_devices_boots_and_is_cloned", all_devices),
    ("a_long_state_directory_is_no_obstacle", a_long_state_directory_is_no_obstacle),
    ("a_bad_binary_is_refused_with_advice", a_bad_binary_is_refused_with_advice),
    ("a_spec_that_cannot_be_leaves_nothing", a_spec_that_cannot_be_leaves_nothing),
    ("a_start_that_fails_can_be_tried_again", a_start_that_fails_can_be_tried_again),
    ("destroy_interrupts_a_long_start", destroy_interrupts_a_long_start),
];

fn clones_go_on_where_the_template_stood() {
    let rig = Rig::new();
    let names = ["one", "two", "three", "four"];
    std::thread::scope(|scope| {
        for name in names {
            let rig = &rig;
            scope.spawn(move || rig.clone_as(name));
        }
    });
    let template = template_pong();
    for name in names {
        assert_eq!(rig.provider().status(&id(name)), Some(VmStatus::Running));
        let pong = ping(rig.provider(), name);
        assert_eq!(pong.boot_id, template.boot_id);
        assert!(pong.counter >= template.counter, "it does not begin anew");
        counts_past(rig.provider(), name, pong.counter);
        assert_eq!(ask(rig.provider(), name, &format!("name {name}")), format!("ok name={name}"));
    }
    for name in names {
        assert_eq!(ping(rig.provider(), name).name.as_deref(), Some(name), "memory is its own");
    }
    let mut pids = names.map(|name| rig.pid(name));
    pids.sort_unstable();
    assert!(pids.windows(2).all(|pair| pair[0] < pair[1]), "{pids:?}");
    rig.assert_instances(4);
    for name in names {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

fn memory_is_there_before_the_guest_touches_it() {
    let rig = Rig::new();
    rig.clone_as("one");
    let bytes = cold_spec().mem_size_mib << 20;
    assert_eq!(rig.provider().prefault_vm(&id("one")).unwrap(), bytes);
    // What QEMU has beside the guest's memory counts, too.
    let status = fs::read_to_string(format!("/proc/{}/status", rig.pid("one"))).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident << 10 > bytes, "{resident} KiB are there of {bytes} bytes and QEMU itself");
    let counter = ping(rig.provider(), "one").counter;
    counts_past(rig.provider(), "one", counter);
    // A snapshot of a clone holds its memory, which a restore reads whole.
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("again")).unwrap();
    let spec = restored(SnapshotSource::Name(id("one")), "again", true);
    rig.provider().create_vm_with_spec(&id("grandchild"), &spec).unwrap();
    assert_eq!(rig.provider().prefault_vm(&id("grandchild")).unwrap(), 0);
    let counter = ping(rig.provider(), "grandchild").counter;
    counts_past(rig.provider(), "grandchild", counter);
}

fn disks_are_independent_and_of_one_moment() {
    let rig = Rig::new();
    rig.clone_as("one");
    rig.clone_as("two");
    let ask = |name, request| ask(rig.provider(), name, request);
    assert_eq!(ask("one", "read note"), "data template");
    assert_eq!(ask("one", "write note one"), "ok bytes=3");
    assert_eq!(ask("two", "read note"), "data template");
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("then")).unwrap();
    assert_eq!(ask("one", "write note later"), "ok bytes=5");
    let then = restored(SnapshotSource::Name(id("one")), "then", true);
    rig.provider().create_vm_with_spec(&id("back"), &then).unwrap();
    assert_eq!(ask("back", "read note"), "data one");
    assert_eq!(ask("back", "write note back"), "ok bytes=4");
    assert_eq!(ask("one", "read note"), "data later");
    rig.clone_as("three");
    assert_eq!(ask("three", "read note"), "data template", "a snapshot is never written");
    let first_line = ask("three", "read README");
    assert!(first_line.starts_with("data "), "{first_line}");
}

fn a_pause_keeps_the_channel_open() {
    let rig = Rig::new();
    rig.clone_as("one");
    let mut agent = agent(rig.provider(), "one");
    let before = agent.ping(LONG).unwrap();
    rig.provider().pause_vm(&id("one")).unwrap();
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Stopped));
    let silent = agent.ping(Duration::from_millis(200)).unwrap_err();
    assert_eq!(silent.kind(), "timeout", "{silent}");
    rig.provider().resume_vm(&id("one")).unwrap();
    // The answer to the question that was asked of the paused guest comes first.
    let answer = agent.ping(LONG).unwrap();
    assert!(answer.counter >= before.counter && answer.boot_id == before.boot_id);
}

fn a_channel_has_one_holder() {
    let rig = Rig::new();
    rig.clone_as("one");
    let held = rig.provider().guest_channel(&id("one")).unwrap();
    let refused = rig.provider().guest_channel(&id("one")).err().unwrap();
    assert_eq!(refused.kind(), "exhausted", "{refused}");
    drop(held);
    for _ in 0..20 {
        ping(rig.provider(), "one");
    }
}

fn a_snapshot_of_a_running_clone_stands_alone() {
    let rig = Rig::new();
    rig.clone_as("one");
    let ask = |name, request| ask(rig.provider(), name, request);
    assert_eq!(ask("one", "name first"), "ok name=first");
    assert_eq!(ask("one", "write note first"), "ok bytes=5");
    let before = ping(rig.provider(), "one");
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("private")).unwrap();
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Running));
    counts_past(rig.provider(), "one", before.counter);
    let uid = rig.provider().get_vm(&id("one")).unwrap().uid;
    let private = restored(SnapshotSource::VmUid(uid), "private", true);
    let wanted = private.restore_from.clone().unwrap();
    let view = rig.provider().pin_snapshot(&wanted, "test").unwrap();
    assert!(view.has_memory && view.size_bytes > 1 << 20, "{view:?}");
    assert_eq!(view.made_with["machine"], "q35");
    rig.provider().destroy_vm(&id("one")).unwrap();
    // A clone of a clone, captured, and a clone of that: each of them stands alone.
    let mut source = private;
    for generation in ["second", "third"] {
        rig.provider().create_vm_with_spec(&id(generation), &source).unwrap();
        let pong = ping(rig.provider(), generation);
        assert_eq!((pong.name.as_deref(), &pong.boot_id), (Some("first"), &before.boot_id));
        assert!(pong.counter >= before.counter);
        assert_eq!(ask(generation, "read note"), "data first");
        rig.provider().snapshot_vm(&id(generation), &snapshot_id("again")).unwrap();
        let uid = rig.provider().get_vm(&id(generation)).unwrap().uid;
        source = restored(SnapshotSource::VmUid(uid), "again", true);
        rig.provider().pin_snapshot(source.restore_from.as_ref().unwrap(), "test").unwrap();
        rig.provider().destroy_vm(&id(generation)).unwrap();
        rig.provider().unpin_snapshot(view.uid, "test").unwrap();
    }
    rig.assert_instances(0);
}

fn a_stopped_vm_is_captured_again_and_again() {
    let rig = Rig::new();
    rig.provider().create_vm_with_spec(&id("one"), &rig.template(false)).unwrap();
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Stopped));
    for name in ["first", "second"] {
        rig.provider().snapshot_vm(&id("one"), &snapshot_id(name)).unwrap();
        assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Stopped));
    }
    rig.provider().start_vm(&id("one")).unwrap();
    let pong = ping(rig.provider(), "one");
    counts_past(rig.provider(), "one", pong.counter);
    rig.provider().stop_vm(&id("one")).unwrap();
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("third")).unwrap();
    for name in ["first", "second", "third"] {
        let spec = restored(SnapshotSource::Name(id("one")), name, true);
        rig.provider().create_vm_with_spec(&id("back"), &spec).unwrap();
        let back = ping(rig.provider(), "back");
        assert_eq!(back.boot_id, pong.boot_id);
        assert!(name != "third" || back.counter > pong.counter);
        rig.provider().destroy_vm(&id("back")).unwrap();
    }
}

fn a_missing_file_is_a_missing_snapshot() {
    let rig = Rig::new();
    let snapshot = fs::read_dir(rig.state.join("snapshots")).unwrap().next().unwrap().unwrap();
    for file in ["ram", "state", "disk-0.0", "disk-0.1"] {
        let (file, aside) = (snapshot.path().join(file), snapshot.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        let error = rig.provider().create_vm_with_spec(&id("one"), &rig.template(true));
        let error = error.unwrap_err();
        assert!(matches!(error, VmRuntimeError::SnapshotNotFound { .. }), "{error}");
        rig.assert_instances(0);
        fs::rename(&aside, &file).unwrap();
    }
    rig.clone_as("one");
}

fn a_snapshot_of_another_qemu_is_refused() {
    let mut rig = Rig::new();
    let snapshot = fs::read_dir(rig.state.join("snapshots")).unwrap().next().unwrap().unwrap();
    let image = snapshot.path().join("image.json");
    let text = fs::read_to_string(&image).unwrap();
    let version = rig.provider().describe().into_iter().find(|(name, _)| *name == "version");
    let version = version.unwrap().1;
    // The file is a hard link: another one takes its place.
    fs::remove_file(&image).unwrap();
    fs::write(&image, text.replace(&format!("\"qemu\": \"{version}\""), "\"qemu\": \"9.9.9\""))
        .unwrap();
    rig.restart();
    let error = rig.provider().create_vm_with_spec(&id("one"), &rig.template(true)).unwrap_err();
    assert!(matches!(error, VmRuntimeError::SnapshotIncompatible { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("9.9.9") && text.contains(&version), "{text}");
    rig.assert_instances(0);
}

fn all_devices() {
    let rig = Rig::new();
    let extra = rig.state.join("extra.img");
    fs::write(&extra, vec![0; 1 << 20]).unwrap();
    let spec = VmSpec {
        vcpu_count: 2,
        rootfs_read_only: true,
        extra_drives: vec![
            Drive { drive_id: "data".into(), path: extra.clone(), read_only: false },
            Drive { drive_id: "tools".into(), path: extra, read_only: true },
        ],
        rate_limits: RateLimits {
            disk_bytes_per_second: 100 << 20,
            disk_operations_per_second: 10_000,
            network_bytes_per_second: 0,
        },
        ..cold_spec()
    };
    rig.provider().create_vm_with_spec(&id("one"), &spec).unwrap();
    rig.provider().start_vm(&id("one")).unwrap();
    wait_ready(rig.provider(), &id("one"), &Readiness::AgentAnswers, LONG).unwrap();
    let before = ping(rig.provider(), "one");
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("ready")).unwrap();
    let spec = restored(SnapshotSource::Name(id("one")), "ready", true);
    rig.provider().create_vm_with_spec(&id("two"), &spec).unwrap();
    assert_eq!(ping(rig.provider(), "two").boot_id, before.boot_id);
    assert!(ping(rig.provider(), "one").counter >= before.counter);
}

fn a_long_state_directory_is_no_obstacle() {
    let rig = Rig::below(&"a-long-name-of-a-directory/".repeat(6));
    assert!(rig.state.as_os_str().len() > 150);
    rig.clone_as("one");
    ping(rig.provider(), "one");
    rig.provider().pause_vm(&id("one")).unwrap();
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("again")).unwrap();
    rig.provider().resume_vm(&id("one")).unwrap();
    ping(rig.provider(), "one");
}

/// A program that says that it is QEMU `version`, answers canaries, and else does `otherwise`.
fn impostor(dir: &std::path::Path, version: &str, otherwise: &str) -> std::path::PathBuf {
    let path = dir.join("impostor");
    let real = QemuConfig::default().binary;
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo QEMU emulator version {version};;\n\
         *stdio*) PATH=/usr/local/bin:/usr/bin:/bin exec {real} \"$@\";;\n*) {otherwise};;\nesac\n",
        real = real.display()
    );
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn a_bad_binary_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |binary, accel| {
        let config = QemuConfig { binary, accel, ..QemuConfig::default() };
        QemuBackend::new(config, Arc::new(SystemEnv)).unwrap_err()
    };
    let error = refusal("/no/such/qemu".into(), Accel::Auto);
    assert!(error.to_string().contains("install qemu-system"), "{error}");
    let error = refusal(impostor(dir.path(), "7.2.19", "exit 1"), Accel::Auto);
    assert!(error.to_string().contains("7.2.19") && error.to_string().contains("9.0"), "{error}");
    let described = Rig::new().provider().describe();
    let accel = described.iter().find(|(name, _)| *name == "accel").unwrap();
    assert!(["kvm", "tcg"].contains(&accel.1.as_str()));
    let reason = described.iter().find(|(name, _)| *name == "accel_reason").unwrap();
    assert!(!reason.1.is_empty(), "{described:?}");
}

fn a_spec_that_cannot_be_leaves_nothing() {
    let rig = Rig::new();
    let error = rig.provider().create_vm(&id("one")).unwrap_err();
    assert!(matches!(error, VmRuntimeError::InvalidSpec { field: "kernel", .. }), "{error}");
    let spec = VmSpec { track_dirty_pages: true, ..cold_spec() };
    let error = rig.provider().create_vm_with_spec(&id("one"), &spec).unwrap_err();
    assert_eq!(error.kind(), "unsupported", "{error}");
    rig.assert_instances(0);
}

fn a_start_that_fails_can_be_tried_again() {
    let rig = Rig::new();
    let kernel = rig.state.join("kernel");
    fs::write(&kernel, b"no kernel at all").unwrap();
    let spec = VmSpec { kernel: Some(kernel.clone()), ..cold_spec() };
    rig.provider().create_vm_with_spec(&id("one"), &spec).unwrap();
    let error = rig.provider().start_vm(&id("one")).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(error.to_string().contains("exited with status 1"), "{error}");
    assert!(cause.contains("kernel"), "QEMU's last words are the cause: {cause}");
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Created));
    fs::copy(crate::rig::guest("vmlinuz"), &kernel).unwrap();
    rig.provider().start_vm(&id("one")).unwrap();
    assert_eq!(rig.provider().status(&id("one")), Some(VmStatus::Running));
}

fn destroy_interrupts_a_long_start() {
    let dir = tempfile::tempdir().unwrap();
    let binary = impostor(dir.path(), "10.0.0", "exec /bin/sleep 1000");
    let state = dir.path().join("state");
    let (provider, _) = open(&state, QemuConfig { binary, ..QemuConfig::default() });
    provider.create_vm_with_spec(&id("one"), &cold_spec()).unwrap();
    let begin = SystemEnv.boot_time();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| provider.start_vm(&id("one")));
        crate::rig::wait_until("it starts", || !crate::rig::processes_below(&state).is_empty());
        provider.destroy_vm(&id("one")).unwrap();
        let error = starting.join().unwrap().unwrap_err();
        assert!(
            matches!(error, VmRuntimeError::InvalidTransition { status: VmStatus::Destroyed, .. }),
            "{error}"
        );
    });
    assert!(SystemEnv.boot_time() - begin < QemuConfig::default().start_timeout);
    assert!(crate::rig::processes_below(&state).is_empty());
}
