//! What tenants may have and the node may give: the right code, reason and details.

use hearth_pool::bucket::Rate;
use hearth_proto::v1::explain_pool_response::Bound;
use hearth_proto::{StatusDetails, v1};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{eventually, from, reason, server_with};

/// A refusal that exhausted something: whether it says what, and when to come back.
fn exhausted(refused: &Status, expected: &str) -> (bool, bool) {
    assert_eq!(reason(refused, Code::ResourceExhausted), expected);
    let details = StatusDetails::of(refused);
    assert_eq!(details.allocated, Some(false), "{refused:?}");
    (refused.get_error_details().quota_failure().is_some(), details.retry_after.is_some())
}

#[tokio::test]
async fn a_tenant_gets_no_more_than_its_quota() {
    let server = server_with(|config| config.limits.tenants.default.max_vms = Some(1)).await;
    server.until_warm("default", 4).await;
    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    let refused = server.acquire(from("default")).await.unwrap_err();
    assert_eq!(exhausted(&refused, "TENANT_QUOTA_EXCEEDED"), (true, false), "waiting is no help");
    let metadata = StatusDetails::of(&refused).metadata;
    assert_eq!(metadata.get("max_vms").map(String::as_str), Some("1"));
    let created = server.client.vms.clone().create_vm(v1::CreateVmRequest::default()).await;
    assert_eq!(reason(&created.unwrap_err(), Code::ResourceExhausted), "TENANT_QUOTA_EXCEEDED");
    let request = v1::ResolvePoolRequest { name: "pools/default".to_owned(), request: None };
    let resolved = server.client.pools.clone().resolve_pool(request).await.unwrap().into_inner();
    assert_eq!(resolved.reason, "TENANT_QUOTA_EXCEEDED");
    server.client.release(&vm).await.unwrap();
    server.acquire(from("default")).await.expect("what was given back can be had again");
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_acquires_no_faster_than_its_rate() {
    let server = server_with(|config| {
        let rate = Rate { per_second: 0.001, burst: 2 };
        config.limits.tenants.default.acquire_rate = Some(rate);
    })
    .await;
    server.until_warm("default", 4).await;
    for _ in 0..2 {
        server.acquire(from("default")).await.unwrap();
    }
    let refused = server.acquire(from("default")).await.unwrap_err();
    assert_eq!(exhausted(&refused, "RATE_LIMITED"), (false, true));
    assert!(StatusDetails::of(&refused).retry_after.unwrap().as_secs() > 100, "when it is let in");
    server.stop().await;
}

#[tokio::test]
async fn a_node_gives_no_more_than_its_budget() {
    let server = server_with(|config| {
        config.limits.budget.max_vms = Some(2);
        config.limits.max_waiting_total = 77;
    })
    .await;
    server.until_warm("default", 2).await;
    let bound = server.explain("default").await;
    assert_eq!((bound.bound(), bound.target), (Bound::Budget, 2));
    let node = server.client.node.clone().get_node(v1::GetNodeRequest::default()).await;
    let node = node.unwrap().into_inner();
    assert_eq!(node.capacity.unwrap().max_vms, 2);
    let bounds = node.bounds.unwrap();
    assert_eq!((bounds.max_waiting, bounds.max_parallel_restores), (77, 16));

    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(server.acquire(from("default")).await.unwrap().vm.unwrap());
    }
    let refused = server.acquire(from("default")).await.unwrap_err();
    assert_eq!(exhausted(&refused, "CAPACITY_EXHAUSTED"), (true, true));
    let created = server.client.vms.clone().create_vm(v1::CreateVmRequest::default()).await;
    assert_eq!(reason(&created.unwrap_err(), Code::ResourceExhausted), "CAPACITY_EXHAUSTED");
    let explained = server.explain("default").await;
    assert_eq!((explained.bound(), explained.target), (Bound::Budget, 0));
    assert_eq!(explained.misses[0].reason, "CAPACITY_EXHAUSTED");
    server.client.release(&held[0]).await.unwrap();
    // Its room is free when it is gone, a moment after its name is.
    eventually("there is room again", async || server.acquire(from("default")).await.is_ok()).await;
    server.stop().await;
}
