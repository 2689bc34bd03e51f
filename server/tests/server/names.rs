//! One name, one VM; one uid for ever.

use hearth_proto::v1;
use tonic::Code;

use crate::harness::{named, reason, server};

#[tokio::test]
async fn two_acquires_of_one_name_make_one_vm_and_spend_one() {
    let server = server().await;
    server.make_pool("still", 4, |_| ()).await;
    server.until_warm("still", 4).await;
    let request = || v1::AcquireVmRequest { pool: "pools/still".to_owned(), ..named("twice") };
    let (a, b) = tokio::join!(server.acquire(request()), server.acquire(request()));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    won.unwrap();
    let lost = lost.unwrap_err();
    assert_eq!(reason(&lost, Code::AlreadyExists), "VM_ALREADY_EXISTS");
    assert_eq!(hearth_proto::StatusDetails::of(&lost).allocated, Some(false));
    let status = server.status("still").await;
    assert_eq!(status.leased, 1);
    server.until_warm("still", 4).await;
    assert_eq!(server.list("pool = pools/still").await.len(), 5, "one spent, one restored for it");
    server.stop().await;
}

#[tokio::test]
async fn a_rename_moves_the_name_and_keeps_the_uid() {
    let server = server().await;
    let vm = server.acquire(named("before")).await.unwrap().vm.unwrap();
    let other = server.acquire(named("other")).await.unwrap().vm.unwrap();
    let mut vms = server.client.vms.clone();
    let rename = |new: &str| v1::RenameVmRequest {
        name: vm.name.clone(),
        uid: vm.uid.clone(),
        new_vm_id: new.to_owned(),
        ..Default::default()
    };
    let taken = vms.rename_vm(rename("other")).await.unwrap_err();
    assert_eq!(reason(&taken, Code::AlreadyExists), "VM_ALREADY_EXISTS");
    let same = vms.rename_vm(rename("before")).await.unwrap().into_inner();
    assert_eq!(same.name, "vms/before");
    let renamed = vms.rename_vm(rename("after")).await.unwrap().into_inner();
    assert_eq!((renamed.name.as_str(), &renamed.uid), ("vms/after", &vm.uid));
    let gone = server.get("vms/before").await.unwrap_err();
    assert_eq!(reason(&gone, Code::NotFound), "VM_NOT_FOUND");
    assert_eq!(server.get("vms/after").await.unwrap().uid, vm.uid);
    assert_eq!(server.get("vms/other").await.unwrap().uid, other.uid);
    server.stop().await;
}

#[tokio::test]
async fn a_late_call_does_not_hit_the_names_next_holder() {
    let server = server().await;
    let first = server.acquire(named("shared")).await.unwrap().vm.unwrap();
    server.client.release(&first).await.unwrap();
    let second = server.acquire(named("shared")).await.unwrap().vm.unwrap();
    assert_ne!(first.uid, second.uid);
    assert!(second.lease.as_ref().unwrap().fence > first.lease.as_ref().unwrap().fence);
    let mut vms = server.client.vms.clone();
    let (name, uid) = (first.name.clone(), first.uid.clone());
    let request = v1::StopVmRequest { name: name.clone(), uid: uid.clone(), ..Default::default() };
    let late = vms.stop_vm(request).await.unwrap_err();
    assert_eq!(reason(&late, Code::FailedPrecondition), "UID_MISMATCH");
    let request = v1::ReleaseVmRequest { name, uid, ..Default::default() };
    let _ = vms.release_vm(request).await;
    assert_eq!(server.get("vms/shared").await.unwrap().uid, second.uid, "it is still there");
    server.stop().await;
}

#[tokio::test]
async fn what_waits_in_a_pool_is_seen_and_not_touched() {
    let server = server().await;
    let warm = server.list("state = RUNNING").await;
    assert_eq!(warm.len(), 4);
    assert!(warm.iter().all(|vm| vm.lease.is_none() && vm.name.starts_with("vms/warm-")));
    let name = warm[0].name.clone();
    assert_eq!(server.get(&name).await.unwrap().uid, warm[0].uid);
    let mut vms = server.client.vms.clone();
    let request = v1::StopVmRequest { name: name.clone(), ..Default::default() };
    let refused = vms.stop_vm(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::FailedPrecondition), "VM_IN_POOL");
    let request = v1::ReleaseVmRequest { name, ..Default::default() };
    let refused = vms.release_vm(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::FailedPrecondition), "VM_IN_POOL");
    server.stop().await;
}
