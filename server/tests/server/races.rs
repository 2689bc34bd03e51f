//! Many callers at once, and one caller many times.

use std::collections::BTreeSet;

use hearth_proto::v1;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{eventually, from, named, reason, server, server_with};

const REQUEST_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_parallel_acquires_get_a_thousand_vms() {
    let server = server_with(|config| {
        config.default_pool.depth = Some(100);
        config.limits.max_waiting = 2000;
    })
    .await;
    server.until_warm("default", 100).await;
    let mut acquires = JoinSet::new();
    for _ in 0..1000 {
        let client = server.client.clone();
        acquires.spawn(async move {
            client.acquire(from("default"), std::time::Duration::from_secs(60)).await
        });
    }
    let (mut uids, mut names) = (BTreeSet::new(), BTreeSet::new());
    while let Some(acquired) = acquires.join_next().await {
        let vm = acquired.unwrap().unwrap().vm.unwrap();
        uids.insert(vm.uid);
        names.insert(vm.name);
    }
    assert_eq!((uids.len(), names.len()), (1000, 1000));
    server.until_warm("default", 100).await;
    let status = server.status("default").await;
    assert_eq!((status.leased, status.waiting), (1000, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_calls_with_one_request_id_get_one_vm() {
    let server = server().await;
    server.make_pool("empty", 0, |_| ()).await;
    for pool in ["default", "empty"] {
        let mut acquires = JoinSet::new();
        for _ in 0..16 {
            let client = server.client.clone();
            let request = v1::AcquireVmRequest {
                request_id: REQUEST_ID.replace('7', if pool == "empty" { "1" } else { "7" }),
                ..from(pool)
            };
            let patience = std::time::Duration::from_secs(30);
            acquires.spawn(async move { client.acquire(request, patience).await });
        }
        let answers: Vec<_> =
            acquires.join_all().await.into_iter().map(|answer| answer.unwrap()).collect();
        let uids: BTreeSet<_> = answers.iter().map(|it| it.vm.clone().unwrap().uid).collect();
        assert_eq!(uids.len(), 1, "{pool}");
        let firsts = answers.iter().filter(|answer| !answer.replayed).count();
        assert_eq!(
            firsts, 1,
            "{pool}: one was carried out, the others are told that theirs is its"
        );
        assert_eq!(server.status(pool).await.leased, 1, "{pool}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_id_is_of_one_request_for_ever() {
    let server = server().await;
    let request = v1::AcquireVmRequest { request_id: REQUEST_ID.to_owned(), ..named("a") };
    let first = server.acquire(request.clone()).await.unwrap();
    let replay = server.acquire(request.clone()).await.unwrap();
    assert!(!first.replayed && replay.replayed);
    assert_eq!(first.vm.as_ref().unwrap().uid, replay.vm.unwrap().uid);
    let other = v1::AcquireVmRequest { vm_id: "b".to_owned(), ..request.clone() };
    let reused = server.acquire(other).await.unwrap_err();
    assert_eq!(reason(&reused, Code::AlreadyExists), "REQUEST_ID_REUSED");
    server.client.release(&first.vm.unwrap()).await.unwrap();
    eventually("the lease has ended for good", async || {
        let late = server.acquire(request.clone()).await.unwrap_err();
        reason(&late, Code::FailedPrecondition) == "LEASE_EXPIRED"
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_retry_of_another_method_gets_its_first_answer() {
    let server = server().await;
    let vm = server.acquire(named("a")).await.unwrap().vm.unwrap();
    let mut vms = server.client.vms.clone();
    let request = v1::RenameVmRequest {
        name: vm.name.clone(),
        new_vm_id: "b".to_owned(),
        request_id: REQUEST_ID.to_owned(),
        ..Default::default()
    };
    let first = vms.rename_vm(request.clone()).await.unwrap().into_inner();
    let retry = vms.rename_vm(request).await.unwrap().into_inner();
    assert_eq!(first, retry);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_renames_onto_one_name_one_wins() {
    let server = server().await;
    let mut renames = JoinSet::new();
    for index in 0..4 {
        let vm = server.acquire(named(&format!("vm{index}"))).await.unwrap().vm.unwrap();
        let mut vms = server.client.vms.clone();
        let new_vm_id = "wanted".to_owned();
        let request = v1::RenameVmRequest { name: vm.name, new_vm_id, ..Default::default() };
        renames.spawn(async move { vms.rename_vm(request).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) =
        renames.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 3));
    for refused in lost {
        assert_eq!(reason(&refused.unwrap_err(), Code::AlreadyExists), "VM_ALREADY_EXISTS");
    }
    server.stop().await;
}
