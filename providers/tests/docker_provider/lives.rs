//! What a restart of hearth, and one of the engine, make of the VMs that were there.

use bollard::query_parameters::KillContainerOptionsBuilder;
use hearth_providers::docker::DockerConfig;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};
use rustix::process::Signal;

use crate::docker_engine::EngineHost;
use crate::rig::{Case, Rig, id, restored, snapshot_id, spec, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("vms_are_adopted_as_they_stand", vms_are_adopted_as_they_stand),
    ("a_console_goes_on_after_a_restart", a_console_goes_on_after_a_restart),
    ("what_died_while_nobody_looked_is_failed", what_died_while_nobody_looked_is_failed),
    ("an_engine_that_goes_is_unavailable_and_comes_back", an_engine_that_goes_comes_back),
    ("a_full_disk_harms_nobody_else", a_full_disk_harms_nobody_else),
    ("without_an_engine_there_is_no_provider", without_an_engine_there_is_no_provider),
];

fn vms_are_adopted_as_they_stand(host: &EngineHost) {
    let mut rig = Rig::new(host);
    let uid = rig.run("running");
    rig.run("stopped");
    rig.provider().stop_vm(&id("stopped")).unwrap();
    rig.provider().create_vm_with_spec(&id("created"), &spec()).unwrap();
    rig.provider().snapshot_vm(&id("running"), &snapshot_id("snap")).unwrap();
    rig.provider().create_vm_with_spec(&id("restored"), &restored(uid, false)).unwrap();
    rig.provider().rename_vm(&id("running"), &id("renamed")).unwrap();

    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (4, 0), "{report:?}");
    assert_eq!(rig.uid("renamed"), uid);
    assert_eq!(rig.status("renamed"), Some(VmStatus::Running));
    assert_eq!(rig.status("stopped"), Some(VmStatus::Stopped));
    assert_eq!(rig.status("created"), Some(VmStatus::Created));
    assert_eq!(rig.status("restored"), Some(VmStatus::Stopped));
    for name in ["stopped", "created", "restored"] {
        rig.provider().start_vm(&id(name)).unwrap();
        assert_eq!(rig.exec(rig.uid(name), "echo on"), "on\n");
    }
    rig.provider().stop_vm(&id("renamed")).unwrap();
    // The snapshot is there too, for a clone that is made now.
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    assert_eq!(rig.exec(rig.uid("clone"), "echo on"), "on\n");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_console_goes_on_after_a_restart(host: &EngineHost) {
    let mut config = Rig::new(host).config.clone();
    config.state += "-console";
    let talk = "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; \
                while [ ! -e /tmp/more ]; do sleep 0.1; done; echo more; exec sleep 1000000";
    config.command = ["sh", "-c", talk].map(str::to_owned).to_vec();
    let mut rig = Rig::with(host, config);
    rig.provider().create_vm_with_spec(&id("vm"), &spec()).unwrap();
    rig.provider().start_vm(&id("vm")).unwrap();
    let read = |rig: &Rig<'_>| {
        let chunk = rig.provider().console(&id("vm"), 0, 1 << 20).unwrap();
        String::from_utf8(chunk.bytes).unwrap()
    };
    wait_until("the first lines are there", || read(&rig).ends_with("line 9\n"));
    let before = read(&rig);
    let uid = rig.uid("vm");
    rig.restart();
    rig.exec(uid, "echo > /tmp/more");
    wait_until("the next line is there", || read(&rig).ends_with("more\n"));
    assert_eq!(read(&rig), format!("{before}more\n"), "and nothing twice");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn what_died_while_nobody_looked_is_failed(host: &EngineHost) {
    let mut rig = Rig::new(host);
    let (uid, gone) = (rig.run("vm"), rig.run("gone"));
    rig.close();
    host.ask(|client| async move {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        client.kill_container(&format!("hearth-{uid}"), Some(options)).await?;
        let options = bollard::query_parameters::RemoveContainerOptionsBuilder::new();
        client.remove_container(&format!("hearth-{gone}"), Some(options.force(true).build())).await
    })
    .unwrap();
    assert_eq!(rig.restart().adopted, 2);
    for name in ["vm", "gone"] {
        assert_eq!(rig.status(name), Some(VmStatus::Failed), "{name}");
    }
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert_eq!(failure.exit_status, Some(128 + 9));
    assert!(failure.console_tail.contains("READY"));
    let failure = rig.provider().get_vm(&id("gone")).unwrap().failure.unwrap();
    assert!(failure.reason.contains("removed"), "{}", failure.reason);
    rig.destroy_all();
    rig.assert_nothing_left();
}

/// On an engine of its own: the other cases need theirs.
fn an_engine_that_goes_comes_back(host: &EngineHost) {
    let host = EngineHost::start(host.kind).unwrap();
    let rig = Rig::new(&host);
    let uid = rig.run("vm");
    rig.run("other");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let pid = rig.inspect(uid).unwrap().state.unwrap().pid;
    host.end(Signal::KILL);

    let unavailable = |done: Result<(), hearth_providers::VmRuntimeError>| {
        assert_eq!(done.unwrap_err().kind(), "unavailable");
    };
    unavailable(rig.provider().stop_vm(&id("vm")));
    unavailable(rig.provider().create_vm_with_spec(&id("new"), &spec()));
    unavailable(rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)));
    unavailable(rig.provider().snapshot_vm(&id("vm"), &snapshot_id("second")));
    assert_eq!(rig.status("vm"), Some(VmStatus::Running), "as far as is known");
    assert_eq!(rig.provider().get_vm(&id("new")), None);
    // Destroyed for its holder; what is left of it goes when the engine is back.
    rig.provider().destroy_vm(&id("other")).unwrap();
    assert_eq!(rig.status("other"), Some(VmStatus::Destroyed));

    host.go_on().unwrap();
    let state = rig.inspect(uid).unwrap().state.unwrap();
    assert_eq!((state.running, state.pid), (Some(true), pid), "it lived on");
    wait_until("what was destroyed meanwhile is gone", || rig.on_engine().0 == 1);
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.provider().start_vm(&id("vm")).unwrap();
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    assert_eq!(rig.exec(rig.uid("clone"), "echo on"), "on\n");
    // Its events are heard again.
    let name = format!("hearth-{uid}");
    host.ask(|client| async move {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        client.kill_container(&name, Some(options)).await
    })
    .unwrap();
    wait_until("it reads Failed", || rig.status("vm") == Some(VmStatus::Failed));
    assert_eq!(rig.status("clone"), Some(VmStatus::Running));
    rig.destroy_all();
    rig.assert_nothing_left();
}

/// On an engine of its own, whose disk is a small tmpfs.
fn a_full_disk_harms_nobody_else(host: &EngineHost) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m,mode=0711", "tmpfs"])
        .arg(&root)
        .status();
    assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
    let host = EngineHost::start_in(host.kind, dir).unwrap();
    let rig = Rig::new(&host);
    let (uid, other) = (rig.run("vm"), rig.run("other"));
    rig.exec(uid, "head -c 28000000 /dev/urandom > /etc/much");
    let captured = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap"));
    assert_eq!(captured.unwrap_err().kind(), "exhausted");
    assert!(rig.provider().all_snapshots().is_empty());
    assert_eq!(rig.on_engine().1, 0, "there is no image");
    for (name, uid) in [("vm", uid), ("other", other)] {
        assert_eq!(rig.status(name), Some(VmStatus::Running));
        assert_eq!(rig.exec(uid, "echo on"), "on\n", "{name} goes on");
    }
    // Room again: the same snapshot, by the same name.
    rig.exec(uid, "echo > /etc/much");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn without_an_engine_there_is_no_provider(_: &EngineHost) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        DockerConfig { socket: dir.path().join("engine.sock"), ..DockerConfig::new("state") };
    let paths = hearth_providers::directory::Paths {
        state: dir.path().join("state"),
        runtime: dir.path().join("run"),
    };
    let env = std::sync::Arc::new(hearth_providers::env::SystemEnv);
    let opened = hearth_providers::docker::open("docker", config, env, paths);
    assert_eq!(opened.unwrap_err().kind(), "unavailable");
}
