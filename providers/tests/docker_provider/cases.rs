//! What containers are made of, what is in their snapshots, and how their ends are seen.

use std::sync::Arc;

use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use hearth_providers::env::SystemEnv;
use hearth_providers::model::{MAX_VCPU_COUNT, NetworkInterface};
use hearth_providers::provider::Probe;
use hearth_providers::{Uid, VmProvider as _, VmQuery as _, VmRuntimeError, VmSpec, VmStatus};
use parking_lot::Mutex;

use crate::docker_engine::{EngineHost, LONG};
use crate::rig::{Case, Rig, id, restored, snapshot_id, spec, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("default_hardening_is_seen", default_hardening_is_seen),
    ("limits_and_read_only_disks_are_the_specs", limits_and_read_only_disks_are_the_specs),
    ("what_the_engine_refuses_is_named_by_field", what_the_engine_refuses_is_named_by_field),
    ("a_stop_is_a_pause", a_stop_is_a_pause),
    ("a_file_written_before_a_snapshot_is_in_the_restore", a_file_is_in_the_restore),
    ("a_snapshot_holds_the_disk_of_one_moment", a_snapshot_holds_the_disk_of_one_moment),
    ("a_commit_blanks_our_labels", a_commit_blanks_our_labels),
    ("a_snapshot_whose_image_is_gone_is_not_found", a_snapshot_whose_image_is_gone_is_not_found),
    ("a_killed_container_is_failed_and_reported", a_killed_container_is_failed_and_reported),
    ("a_removed_container_is_failed", a_removed_container_is_failed),
    ("a_command_that_ends_is_a_failed_vm", a_command_that_ends_is_a_failed_vm),
    ("a_command_that_is_not_there_does_not_start", a_command_that_is_not_there_does_not_start),
    ("a_provider_can_be_dropped_in_async_code", a_provider_can_be_dropped_in_async_code),
    ("nothing_is_left_of_clones_of_clones", nothing_is_left_of_clones_of_clones),
];

fn default_hardening_is_seen(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    let seen = rig.inspect(uid).unwrap();
    let limits = seen.host_config.unwrap();
    assert_eq!(limits.network_mode.as_deref(), Some("none"));
    assert_eq!(limits.pids_limit, Some(512));
    assert_eq!(limits.privileged, Some(false));
    let options = limits.security_opt.unwrap_or_default();
    assert!(options.iter().any(|option| option.starts_with("no-new-privileges")), "{options:?}");
    // The kernel's own word for it, whatever the engine's is.
    let status = rig.exec(uid, "cat /proc/1/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert!(!rig.exec(uid, "cat /proc/net/dev").contains("eth0"), "there is no network");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn limits_and_read_only_disks_are_the_specs(host: &EngineHost) {
    let rig = Rig::new(host);
    let spec = VmSpec { rootfs_read_only: true, mem_size_mib: 96, ..spec() };
    rig.provider().create_vm_with_spec(&id("vm"), &spec).unwrap();
    rig.provider().start_vm(&id("vm")).unwrap();
    let uid = rig.uid("vm");
    let limits = rig.inspect(uid).unwrap().host_config.unwrap();
    assert_eq!(limits.memory, Some(96 << 20));
    assert_eq!(limits.memory_swap, Some(96 << 20));
    assert_eq!(limits.nano_cpus, Some(1_000_000_000));
    assert_eq!(limits.readonly_rootfs, Some(true));
    assert!(
        rig.exec(uid, "echo x > /bin/file").contains("Read-only"),
        "its disk cannot be written"
    );
    // A restore has them from the snapshot, not from what it was asked with.
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    let limits = rig.inspect(rig.uid("clone")).unwrap().host_config.unwrap();
    assert_eq!((limits.memory, limits.readonly_rootfs), (Some(96 << 20), Some(true)));
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn what_the_engine_refuses_is_named_by_field(host: &EngineHost) {
    let rig = Rig::new(host);
    let refused = |spec: &VmSpec| match rig.provider().create_vm_with_spec(&id("vm"), spec) {
        Err(VmRuntimeError::InvalidSpec { field, .. }) => field,
        other => panic!("it answered {other:?}"),
    };
    let image = Some("hearth-test-not-there".to_owned());
    assert_eq!(refused(&VmSpec { image, ..spec() }), "image");
    let host_dev_name = "host".to_owned();
    let network = NetworkInterface { host_dev_name, ..NetworkInterface::default() };
    assert_eq!(
        refused(&VmSpec { network_interfaces: vec![network], ..spec() }),
        "network_interfaces"
    );
    if host.kind == "docker" {
        assert_eq!(refused(&VmSpec { vcpu_count: MAX_VCPU_COUNT, ..spec() }), "vcpu_count");
        assert_eq!(refused(&VmSpec { mem_size_mib: 1, ..spec() }), "mem_size_mib");
    }
    rig.assert_nothing_left();
}

fn a_stop_is_a_pause(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    let pid = rig.inspect(uid).unwrap().state.unwrap().pid;
    rig.provider().probe(&id("vm"), Probe::Alive, LONG).unwrap();
    rig.provider().stop_vm(&id("vm")).unwrap();
    assert_eq!(rig.inspect(uid).unwrap().state.unwrap().paused, Some(true));
    let probed = rig.provider().probe(&id("vm"), Probe::Alive, LONG);
    assert_eq!(probed.unwrap_err().kind(), "invalid_transition");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    assert_eq!(
        rig.inspect(uid).unwrap().state.unwrap().paused,
        Some(true),
        "it stands as it stood"
    );
    rig.provider().start_vm(&id("vm")).unwrap();
    let state = rig.inspect(uid).unwrap().state.unwrap();
    assert_eq!((state.paused, state.pid), (Some(false), pid), "the same process goes on");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_file_is_in_the_restore(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    rig.exec(uid, "echo kept > /etc/note; echo > /tmp/left; echo > /var/tmp/out");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
    assert_eq!(rig.inspect(uid).unwrap().state.unwrap().paused, Some(false), "it goes on");
    rig.provider().create_vm_with_spec(&id("one"), &restored(uid, true)).unwrap();
    assert_eq!(
        rig.exec(rig.uid("one"), "cat /etc/note; ls /tmp /var/tmp"),
        "kept\n/tmp:\n\n/var/tmp:\n"
    );
    rig.provider().create_vm_with_spec(&id("two"), &restored(uid, false)).unwrap();
    assert_eq!(rig.status("two"), Some(VmStatus::Stopped));
    rig.provider().start_vm(&id("two")).unwrap();
    assert_eq!(rig.exec(rig.uid("two"), "cat /etc/note"), "kept\n");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_snapshot_holds_the_disk_of_one_moment(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    rig.exec(uid, "echo before > /etc/note; head -c 3000000 /dev/zero > /etc/zeros");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.exec(uid, "echo after > /etc/note");
    let from = restored(uid, true);
    rig.provider().create_vm_with_spec(&id("one"), &from).unwrap();
    rig.exec(rig.uid("one"), "echo one > /etc/note");
    rig.provider().create_vm_with_spec(&id("two"), &from).unwrap();
    assert_eq!(rig.exec(rig.uid("two"), "cat /etc/note"), "before\n");
    assert_eq!(rig.exec(uid, "cat /etc/note"), "after\n");
    let view = rig.provider().snapshot(&from.restore_from.unwrap()).unwrap();
    assert!(!view.has_memory);
    assert!((3_000_000..20_000_000).contains(&view.size_bytes), "{} bytes", view.size_bytes);
    assert_eq!(view.made_with["engine"], host.kind);
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_commit_blanks_our_labels(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let snapshot = rig.provider().all_snapshots()[0].uid;
    let image = format!("hearth/snapshot:{snapshot}");
    let labels = host
        .ask(|client| async move { client.inspect_image(&image).await })
        .unwrap()
        .config
        .unwrap()
        .labels
        .unwrap();
    for blank in ["dev.hearth.uid", "dev.hearth.state"] {
        assert_eq!(labels.get(blank).map_or("", String::as_str), "", "{blank}");
    }
    assert_eq!(labels["dev.hearth.snapshot.state"], rig.config.state);
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    let clone = rig.uid("clone");
    let labels = rig.inspect(clone).unwrap().config.unwrap().labels.unwrap();
    assert_eq!(labels["dev.hearth.uid"], clone.to_string(), "its own");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_snapshot_whose_image_is_gone_is_not_found(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    rig.exec(uid, "echo x > /tmp/x");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let image = format!("hearth/snapshot:{}", rig.provider().all_snapshots()[0].uid);
    host.ask(|client| async move {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        client.remove_image(&image, Some(options), None).await
    })
    .unwrap();
    let made = rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true));
    assert_eq!(made.unwrap_err().kind(), "snapshot_not_found");
    assert_eq!(rig.provider().get_vm(&id("clone")), None);
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_killed_container_is_failed_and_reported(host: &EngineHost) {
    let rig = Rig::new(host);
    let reported: Arc<Mutex<Vec<Uid>>> = Arc::default();
    let seen = Arc::clone(&reported);
    rig.provider().observe_exits(Arc::new(move |uid| seen.lock().push(uid)));
    let (uid, other) = (rig.run("vm"), rig.run("other"));
    let name = format!("hearth-{uid}");
    host.ask(|client| async move {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        client.kill_container(&name, Some(options)).await
    })
    .unwrap();
    wait_until("it reads Failed", || rig.status("vm") == Some(VmStatus::Failed));
    wait_until("it is reported", || *reported.lock() == [uid]);
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert_eq!(failure.exit_status, Some(128 + 9));
    assert!(failure.reason.contains("signal 9"), "{}", failure.reason);
    assert!(failure.console_tail.contains("READY"), "{}", failure.console_tail);
    assert_eq!(rig.status("other"), Some(VmStatus::Running));
    rig.provider().destroy_vm(&id("other")).unwrap();
    rig.provider().destroy_vm(&id("vm")).unwrap();
    assert_eq!(rig.inspect(other).map(drop), None);
    assert_eq!(*reported.lock(), [uid], "a destroyed VM has not failed");
    rig.assert_nothing_left();
}

fn a_removed_container_is_failed(host: &EngineHost) {
    let rig = Rig::new(host);
    let uid = rig.run("vm");
    rig.provider().stop_vm(&id("vm")).unwrap();
    let name = format!("hearth-{uid}");
    host.ask(|client| async move {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        client.remove_container(&name, Some(options)).await
    })
    .unwrap();
    wait_until("it reads Failed", || rig.status("vm") == Some(VmStatus::Failed));
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_command_that_ends_is_a_failed_vm(host: &EngineHost) {
    let mut config = Rig::new(host).config.clone();
    config.state += "-ends";
    config.command = ["sh", "-c", "echo last words; exit 7"].map(str::to_owned).to_vec();
    let rig = Rig::with(host, config);
    rig.provider().create_vm_with_spec(&id("vm"), &spec()).unwrap();
    // It may have ended before its start was answered.
    let _ = rig.provider().start_vm(&id("vm"));
    wait_until("it reads Failed", || rig.status("vm") == Some(VmStatus::Failed));
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert_eq!(failure.exit_status, Some(7), "{failure:?}");
    assert!(failure.console_tail.contains("last words"), "{failure:?}");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_command_that_is_not_there_does_not_start(host: &EngineHost) {
    let mut config = Rig::new(host).config.clone();
    config.state += "-absent";
    config.command = vec!["/not/there".to_owned()];
    let rig = Rig::with(host, config);
    rig.provider().create_vm_with_spec(&id("vm"), &spec()).unwrap();
    assert_eq!(rig.provider().start_vm(&id("vm")).unwrap_err().kind(), "backend");
    let status = rig.status("vm");
    assert!(matches!(status, Some(VmStatus::Created | VmStatus::Failed)), "{status:?}");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_provider_can_be_dropped_in_async_code(host: &EngineHost) {
    let mut rig = Rig::new(host);
    rig.run("vm");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let provider = rig.provider.take();
    runtime.block_on(async move { drop(provider) });
    rig.restart();
    assert_eq!(rig.status("vm"), Some(VmStatus::Running), "its container went on");
    // Nor does one that is just being opened hold anybody up.
    let dir = tempfile::tempdir().unwrap();
    let paths = hearth_providers::directory::Paths {
        state: dir.path().join("state"),
        runtime: dir.path().join("run"),
    };
    let mut config = rig.config.clone();
    config.state += "-dropped";
    let opened =
        hearth_providers::docker::open("docker", config, Arc::new(SystemEnv), paths).unwrap();
    drop(opened);
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn nothing_is_left_of_clones_of_clones(host: &EngineHost) {
    let rig = Rig::new(host);
    let mut uid = rig.run("vm0");
    for generation in 1..4 {
        rig.exec(uid, &format!("echo {generation} >> /etc/generations"));
        let (before, next) = (format!("vm{}", generation - 1), format!("vm{generation}"));
        rig.provider().snapshot_vm(&id(&before), &snapshot_id("snap")).unwrap();
        rig.provider().create_vm_with_spec(&id(&next), &restored(uid, true)).unwrap();
        // The snapshot stays for its clone, although its VM is gone.
        rig.provider().destroy_vm(&id(&before)).unwrap();
        uid = rig.uid(&next);
    }
    assert_eq!(rig.exec(uid, "cat /etc/generations"), "1\n2\n3\n");
    rig.destroy_all();
    rig.assert_nothing_left();
}
