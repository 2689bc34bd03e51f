//! What becomes of VMs and of calls when their engine goes, or has no room.

use hearth_proto::v1::vm::State;
use hearth_proto::v1::{CreateVmRequest, SnapshotVmRequest, StopVmRequest, Vm, VmSpec};
use rustix::process::Signal;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::containers::{name, stands};
use crate::docker_engine::{BASE, EngineHost};
use crate::hearth::Hearth;
use crate::site::{Case, DOCKER, Site, assert_runs, assert_unavailable, refusal, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("an_engine_that_goes_is_unavailable_and_comes_back", an_engine_that_goes, DOCKER),
    ("a_full_disk_fails_a_freeze_and_harms_nobody", a_full_disk_fails_a_freeze, DOCKER),
];

fn health(hearth: &Hearth, service: &str) -> ServingStatus {
    let asked = HealthCheckRequest { service: service.to_owned() };
    let answer = async {
        let address = format!("http://{}", hearth.address);
        let channel = tonic::transport::Channel::from_shared(address).unwrap().connect().await;
        HealthClient::new(channel.unwrap()).check(asked).await
    };
    hearth.call(answer).unwrap().status()
}

/// On an engine of its own: the other cases need theirs.
fn an_engine_that_goes(engine: &EngineHost) {
    let engine = EngineHost::start(engine.kind).unwrap();
    let site = Site::new(&engine, 1);
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.exec(&vm, "echo kept > /etc/note");
    wait_until("one is warm again", || hearth.warm() == 1);
    let before = stands(&engine, &name(&vm.uid));
    engine.end(Signal::TERM);

    let vms = || hearth.client.vms.clone();
    let stop = StopVmRequest { name: vm.name.clone(), ..StopVmRequest::default() };
    assert_unavailable(hearth.call(vms().stop_vm(stop)), "PROVIDER_UNAVAILABLE");
    let snapshot = SnapshotVmRequest {
        name: vm.name.clone(),
        snapshot_id: "one".to_owned(),
        ..SnapshotVmRequest::default()
    };
    assert_unavailable(hearth.call(vms().snapshot_vm(snapshot)), "PROVIDER_UNAVAILABLE");
    let spec = VmSpec { image: BASE.to_owned(), ..VmSpec::default() };
    let create = CreateVmRequest { spec: Some(spec), ..CreateVmRequest::default() };
    assert_unavailable(hearth.call(vms().create_vm(create)), "PROVIDER_UNAVAILABLE");
    assert_unavailable(hearth.freeze(&vm.name, ""), "PROVIDER_UNAVAILABLE");
    assert!(hearth.artifacts().is_empty());
    assert_eq!(hearth.get(&vm.name).unwrap().state(), State::Running, "as far as is known");

    // What waits needs no engine to be handed out. When it is gone, callers are told.
    let warm = hearth.acquire("other");
    assert_unavailable(hearth.try_acquire("none"), "RESTORE_FAILED");
    wait_until("the pool does not serve", || {
        health(&hearth, "pools/default") == ServingStatus::NotServing
    });
    assert_eq!(health(&hearth, ""), ServingStatus::Serving, "other providers may");
    hearth.release(&warm);

    engine.go_on().unwrap();
    wait_until("there is one warm again", || hearth.warm() == 1);
    wait_until("the pool serves", || health(&hearth, "pools/default") == ServingStatus::Serving);
    let now = hearth.get(&vm.name).unwrap();
    assert_eq!(now.uid, vm.uid);
    assert_runs(&site, &now);
    assert_eq!(stands(&engine, &name(&vm.uid)), before, "it lived on");
    assert_eq!(site.exec(&vm, "cat /etc/note"), "kept\n");
    wait_until("what was released meanwhile is gone", || {
        stands(&engine, &name(&warm.uid)).is_none()
    });
    assert_runs(&site, &hearth.acquire("third"));

    let artifact = hearth.freeze(&vm.name, "kept").unwrap();
    hearth.release(&vm);
    let resumed = hearth.resume(&artifact.name).unwrap();
    assert_eq!(site.exec(&resumed, "cat /etc/note"), "kept\n");
    hearth.release(&resumed);
    hearth.release(&hearth.get("vms/third").unwrap());
    hearth.delete_when_unused("kept");
    site.assert_nothing_left(&hearth);
}

/// On an engine of its own, whose disk is a small one in memory.
fn a_full_disk_fails_a_freeze(engine: &EngineHost) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m,mode=0711", "tmpfs"])
        .arg(&root)
        .status();
    assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
    let engine = EngineHost::start_in(engine.kind, dir).unwrap();
    let site = Site::new(&engine, 0);
    let hearth = site.start();
    let (vm, other) = (hearth.acquire("mine"), hearth.acquire("other"));
    let template = site.images();
    site.exec(&vm, "head -c 28000000 /dev/urandom > /etc/much");
    let refused = refusal(hearth.freeze(&vm.name, "much"));
    assert_eq!(refused, (Code::ResourceExhausted, "CAPACITY_EXHAUSTED".to_owned()));
    assert!(hearth.artifacts().is_empty());
    wait_until("there is no image", || site.images() == template);
    wait_until("there is no snapshot", || site.snapshots().len() == 1);
    let unharmed = |vm: &Vm| assert_runs(&site, &hearth.get(&vm.name).unwrap());
    unharmed(&vm);
    unharmed(&other);

    // With room again the same freeze succeeds, by the same name.
    site.exec(&vm, "echo > /etc/much");
    hearth.freeze(&vm.name, "much").unwrap();
    hearth.release(&vm);
    hearth.release(&other);
    hearth.delete_when_unused("much");
    site.assert_nothing_left(&hearth);
}
