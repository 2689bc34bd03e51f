//! What a VM's holder does with it, from acquire to release.

use hearth_proto::v1;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;
use tonic::Code;

use crate::harness::{eventually, from, named, reason, server, server_with, ttl};

#[tokio::test]
async fn a_warm_vm_is_acquired_used_and_released() {
    let server = server().await;
    let request = v1::AcquireVmRequest {
        labels: [("team".to_owned(), "ci".to_owned())].into(),
        ..named("mine")
    };
    let answer = server.acquire(request).await.unwrap();
    assert_eq!((answer.source(), answer.replayed), (Source::Warm, false));
    assert!(answer.timing.unwrap().total.is_some());
    let vm = answer.vm.unwrap();
    assert_eq!((vm.name.as_str(), vm.state()), ("vms/mine", State::Running));
    assert_eq!((vm.pool.as_str(), vm.template.as_str()), ("pools/default", "templates/default"));
    assert_eq!(vm.labels["team"], "ci");
    assert!(vm.acquire_time.is_some() && vm.lease.as_ref().unwrap().fence > 0);
    assert_eq!(vm.origin(), v1::vm::Origin::Template);
    assert_eq!(server.get("vms/mine").await.unwrap(), vm);

    let mut vms = server.client.vms.clone();
    let (name, uid) = (vm.name.clone(), vm.uid.clone());
    let stop = v1::StopVmRequest { name: name.clone(), uid: uid.clone(), ..Default::default() };
    assert_eq!(vms.stop_vm(stop).await.unwrap().into_inner().state(), State::Stopped);
    let start = v1::StartVmRequest { name: name.clone(), uid: uid.clone(), ..Default::default() };
    assert_eq!(vms.start_vm(start).await.unwrap().into_inner().state(), State::Running);

    server.client.release(&vm).await.unwrap();
    let gone = server.get("vms/mine").await.unwrap_err();
    assert_eq!(reason(&gone, Code::NotFound), "VM_NOT_FOUND");
    server.client.release(&vm).await.expect("releasing twice is fine");
    server.until_warm("default", 4).await;
    server.stop().await;
}

#[tokio::test]
async fn an_empty_pool_restores_or_refuses_as_it_is_told() {
    let server = server().await;
    server.make_pool("empty", 0, |_| ()).await;
    let answer = server.acquire(from("empty")).await.unwrap();
    assert_eq!(answer.source(), Source::Cold);
    let only = |overflow: v1::pool::Overflow| v1::AcquireVmRequest {
        overflow: overflow.into(),
        ..from("empty")
    };
    let refused = server.acquire(only(v1::pool::Overflow::WarmOnly)).await.unwrap_err();
    assert_eq!(reason(&refused, Code::ResourceExhausted), "POOL_EMPTY");
    let details = hearth_proto::StatusDetails::of(&refused);
    assert_eq!(details.allocated, Some(false));
    assert!(details.retry_after.is_some());
    assert_eq!(refused.metadata().get("allocated").unwrap(), "false");
    let cold = v1::AcquireVmRequest {
        pool: "pools/default".to_owned(),
        ..only(v1::pool::Overflow::ColdOnly)
    };
    assert_eq!(server.acquire(cold).await.unwrap().source(), Source::Cold);
    assert_eq!(server.status("default").await.warm, 4, "a cold one takes no warm one");
    server.stop().await;
}

#[tokio::test]
async fn who_waits_too_long_or_to_the_end_is_told() {
    let mut server = server().await;
    server.make_pool("empty", 0, |_| ()).await;
    let wait =
        || v1::AcquireVmRequest { overflow: v1::pool::Overflow::Wait.into(), ..from("empty") };
    let late = server.client.acquire(wait(), std::time::Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(reason(&late, Code::DeadlineExceeded), "DEADLINE_TOO_SHORT");
    let details = hearth_proto::StatusDetails::of(&late);
    assert!(details.retry_after.is_some() && details.allocated == Some(false));

    let client = server.client.clone();
    let waits = std::time::Duration::from_secs(60);
    let waiting =
        tokio::task::JoinSet::from_iter([async move { client.acquire(wait(), waits).await }]);
    eventually("it stands in line", async || server.status("empty").await.waiting == 1).await;
    server.hearth.end(true).await;
    let told = waiting.join_all().await.remove(0).unwrap_err();
    assert_eq!(reason(&told, Code::Unavailable), "NODE_DRAINING");
    assert!(hearth_proto::StatusDetails::of(&told).retry_after.is_some());
}

#[tokio::test]
async fn a_paused_pool_hands_out_vms_that_run() {
    let server = server().await;
    server.make_pool("paused", 2, |pool| pool.set_warm_state(v1::pool::WarmState::Paused)).await;
    server.until_warm("paused", 2).await;
    let answer = server.acquire(from("paused")).await.unwrap();
    assert_eq!(answer.source(), Source::Warm);
    assert!(answer.timing.unwrap().resume.is_some());
    assert_eq!(answer.vm.unwrap().state(), State::Running);
    server.stop().await;
}

#[tokio::test]
async fn leases_end_and_are_renewed() {
    let server = server().await;
    let request = v1::AcquireVmRequest { expiration: ttl(1), ..named("short") };
    let first = server.acquire(request).await.unwrap().vm.unwrap();
    let request = v1::AcquireVmRequest { expiration: ttl(600), ..named("long") };
    let long = server.acquire(request).await.unwrap().vm.unwrap();
    let until = |vm: &v1::Vm| vm.lease.as_ref().unwrap().expire_time.unwrap().seconds;
    let renew = |seconds, allow_shorten| {
        let ttl = prost_types::Duration { seconds, nanos: 0 };
        let request = v1::RenewLeaseRequest {
            name: "vms/long".to_owned(),
            expiration: Some(v1::renew_lease_request::Expiration::Ttl(ttl)),
            allow_shorten,
            ..Default::default()
        };
        let mut vms = server.client.vms.clone();
        async move { vms.renew_lease(request).await.unwrap().into_inner() }
    };
    assert_eq!(until(&renew(5, false).await), until(&long), "a lease is not shortened by chance");
    assert!(until(&renew(5, true).await) < until(&long));
    assert!(until(&renew(1200, false).await) > until(&long));
    eventually("the short lease ends", async || server.get("vms/short").await.is_err()).await;
    let request = v1::RenewLeaseRequest {
        name: first.name.clone(),
        uid: first.uid.clone(),
        ..Default::default()
    };
    let late = server.client.vms.clone().renew_lease(request).await.unwrap_err();
    assert_eq!(reason(&late, Code::FailedPrecondition), "LEASE_NOT_HELD");
    server.stop().await;
}

#[tokio::test]
async fn a_vm_is_made_to_its_callers_own_specification() {
    let server = server().await;
    let mut vms = server.client.vms.clone();
    let request = v1::CreateVmRequest { vm_id: "own".to_owned(), ..Default::default() };
    let checked = v1::CreateVmRequest { validate_only: true, ..request.clone() };
    let planned = vms.create_vm(checked).await.unwrap().into_inner();
    assert_eq!((planned.name.as_str(), planned.uid.as_str()), ("vms/own", ""));
    assert!(server.get("vms/own").await.is_err(), "it was only checked");
    let vm = vms.create_vm(request).await.unwrap().into_inner();
    assert_eq!((vm.state(), vm.origin()), (State::Created, v1::vm::Origin::Spec));
    assert!(vm.lease.is_some() && vm.pool.is_empty());
    let request = v1::DestroyVmRequest { name: vm.name, uid: vm.uid, ..Default::default() };
    let last = vms.destroy_vm(request).await.unwrap().into_inner();
    assert_eq!(last.state(), State::Destroyed);
    assert!(server.get("vms/own").await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_taken_restored_and_deleted() {
    let server = server().await;
    let vm = server.acquire(named("origin")).await.unwrap().vm.unwrap();
    let mut vms = server.client.vms.clone();
    let request = v1::SnapshotVmRequest {
        name: vm.name.clone(),
        snapshot_id: "s1".to_owned(),
        ..Default::default()
    };
    let taken = vms.snapshot_vm(request.clone()).await.unwrap().into_inner();
    assert_eq!((taken.name.as_str(), taken.vm_uid.as_str()), ("vms/origin/snapshots/s1", &*vm.uid));
    assert!(taken.has_memory);
    let again = vms.snapshot_vm(request).await.unwrap_err();
    assert_eq!(reason(&again, Code::AlreadyExists), "SNAPSHOT_ALREADY_EXISTS");
    assert_eq!(server.get("vms/origin").await.unwrap().snapshots, ["s1"]);

    let from = v1::SnapshotRef {
        vm: Some(v1::snapshot_ref::Vm::Uid(vm.uid.clone())),
        snapshot_id: "s1".to_owned(),
        resume_immediately: true,
        ..Default::default()
    };
    let spec = v1::VmSpec { restore_from: Some(from), ..Default::default() };
    let request =
        v1::CreateVmRequest { vm_id: "clone".to_owned(), spec: Some(spec), ..Default::default() };
    let clone = vms.create_vm(request).await.unwrap().into_inner();
    assert_eq!(clone.state(), State::Running);
    let delete = v1::DeleteSnapshotRequest { name: taken.name.clone(), ..Default::default() };
    let pinned = vms.delete_snapshot(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&pinned, Code::FailedPrecondition), "SNAPSHOT_IN_USE");
    server.client.release(&clone).await.unwrap();
    eventually("the clone is gone", async || vms.delete_snapshot(delete.clone()).await.is_ok())
        .await;
    let request = v1::GetSnapshotRequest { name: taken.name };
    let gone = vms.get_snapshot(request).await.unwrap_err();
    assert_eq!(reason(&gone, Code::NotFound), "SNAPSHOT_NOT_FOUND");
    server.stop().await;
}

#[tokio::test]
async fn a_console_is_read_from_its_beginning_or_its_tail_and_followed() {
    use tokio_stream::StreamExt as _;
    let server = server().await;
    // One that boots: a restored one goes on silently.
    let mut vms = server.client.vms.clone();
    let request = v1::CreateVmRequest { vm_id: "loud".to_owned(), ..Default::default() };
    let vm = vms.create_vm(request).await.unwrap().into_inner();
    let request = v1::StartVmRequest { name: vm.name.clone(), ..Default::default() };
    vms.start_vm(request).await.unwrap();
    let read = |tail_bytes, follow| {
        let request = v1::ReadConsoleRequest {
            name: vm.name.clone(),
            tail_bytes,
            follow,
            ..Default::default()
        };
        let mut vms = server.client.vms.clone();
        async move { vms.read_console(request).await.unwrap().into_inner() }
    };
    let whole: Vec<_> = read(0, false).await.map(|it| it.unwrap().data).collect().await;
    let whole = String::from_utf8(whole.concat()).unwrap();
    assert!(whole.contains("READY"), "{whole:?}");
    let tail: Vec<_> = read(3, false).await.map(|it| it.unwrap().data).collect().await;
    assert_eq!(tail.concat(), whole.as_bytes()[whole.len() - 3..]);

    let mut followed = read(0, true).await;
    assert!(followed.next().await.unwrap().is_ok(), "what is there comes at once");
    server.client.release(&vm).await.unwrap();
    while let Some(piece) = followed.next().await {
        piece.expect("it ends with the VM, and well");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_former_life_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let of_this = |config: &mut hearth_server::config::Config| config.state = Some(state.clone());
    let first = server_with(of_this).await;
    first.until_warm("default", 4).await;
    first.make_pool("kept", 1, |_| ()).await;
    let request = v1::AcquireVmRequest {
        request_id: "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned(),
        ..named("held")
    };
    let vm = first.acquire(request.clone()).await.unwrap().vm.unwrap();
    first.stop_leaving_vms().await;

    let second = server_with(of_this).await;
    // What was only remembered ended with the process; its holder is told, and not given another.
    let found = second.get("vms/held").await.unwrap();
    assert_eq!((found.uid, found.state), (vm.uid, i32::from(State::Failed)));
    let replay = second.acquire(request).await.unwrap();
    assert!(replay.replayed && replay.vm.unwrap().state() == State::Failed);
    // The template's snapshot went too, and was made anew.
    second.until_warm("default", 4).await;
    second.until_warm("kept", 1).await;
    second.stop().await;
}
