//! VMs that a client keeps: acquired with retries, renewed in the background, lost and given back.

use std::time::Duration;

use hearth_proto::{Reason, v1};
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::{Server, eventually, from, named, server, starting_server, ttl};

const PATIENCE: Duration = Duration::from_secs(30);

fn ends(vm: &v1::Vm) -> Timestamp {
    vm.lease.as_ref().unwrap().expire_time.unwrap()
}

async fn is_there(server: &Server, name: &str) -> bool {
    server.get(name).await.is_ok()
}

#[tokio::test]
async fn a_lease_is_renewed_for_as_long_as_it_is_held() {
    let server = server().await;
    let request = v1::AcquireVmRequest { expiration: ttl(2), ..named("mine") };
    let held = server.client.lease(request, PATIENCE).await.unwrap();
    let vm = held.vm().unwrap().clone();
    assert!(!vm.lease.as_ref().unwrap().request_id.is_empty(), "it can be tried again");
    // It outlives what it was granted, twice.
    let later = ends(&vm).seconds + 4;
    eventually("it is renewed", async || {
        ends(&server.get(&vm.name).await.unwrap()).seconds >= later
    })
    .await;
    assert!(held.is_held());
    held.release().await.unwrap();
    assert!(!is_there(&server, "vms/mine").await);
    // Dropped, it runs out.
    let request = v1::AcquireVmRequest { expiration: ttl(1), ..named("other") };
    drop(server.client.lease(request, PATIENCE).await.unwrap());
    eventually("it runs out", async || !is_there(&server, "vms/other").await).await;
    server.stop().await;
}

#[tokio::test]
async fn whoever_loses_a_lease_is_told_why() {
    let server = server().await;
    let request = v1::AcquireVmRequest { expiration: ttl(1), ..named("mine") };
    let held = server.client.lease(request, PATIENCE).await.unwrap();
    server.client.release(held.vm().unwrap()).await.unwrap();
    let lost = tokio::time::timeout(PATIENCE, held.lost()).await.unwrap();
    assert!(lost.is(&Reason::LeaseNotHeld), "{lost}");
    assert!(!held.is_held());
    server.stop().await;
}

#[tokio::test]
async fn an_acquire_is_tried_again_while_the_server_starts_and_not_where_it_does_not_help() {
    let server = starting_server(|_| ()).await;
    let (begun, held) =
        tokio::join!(server.hearth.begin(false), server.client.lease(from("default"), PATIENCE),);
    begun.unwrap();
    // It came while the server started, or while the template was being built, which is no wait of its.
    match held {
        Ok(held) => held.release().await.unwrap(),
        Err(error) => assert!(error.is(&Reason::TemplateNotReady), "{error}"),
    }
    let refused = server.client.lease(from("nowhere"), PATIENCE).await.unwrap_err();
    assert_eq!((refused.code(), refused.allocated), (Code::NotFound, Some(false)));
    assert!(refused.is(&Reason::PoolNotFound));
    server.stop().await;
}
