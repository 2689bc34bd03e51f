//! What streams show a tenant: its own, and nothing of others.

use std::time::Duration;

use hearth_proto::v1::connect_vm_request::{Message, Open};
use hearth_proto::v1::watch_vms_response::Type;
use hearth_proto::{HearthClient, v1};
use tonic::{Code, Streaming};

use super::site::{BOBS, Site, Who, make_vm};
use crate::harness::reason;

async fn watch(client: &HearthClient) -> Streaming<v1::WatchVmsResponse> {
    let watched = client.vms.clone().watch_vms(v1::WatchVmsRequest::default()).await;
    watched.unwrap().into_inner()
}

/// The VMs that are told of until one is that satisfies `last`.
async fn told(
    events: &mut Streaming<v1::WatchVmsResponse>,
    last: impl Fn(&v1::WatchVmsResponse) -> bool,
) -> Vec<v1::Vm> {
    let mut vms = Vec::new();
    let all = async {
        loop {
            let event = events.message().await.unwrap().expect("the watch goes on");
            let is_last = last(&event);
            vms.extend(event.vm);
            if is_last {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it comes");
    vms
}

#[tokio::test]
async fn a_tenant_watches_its_own_vms_alone() {
    let site = Site::open().await;
    let (alice, bob) = (site.client(Who::Alice).await, site.client(Who::Bob).await);
    let before = make_vm(&bob).await;
    let mut events = watch(&alice).await;
    let first = told(&mut events, |event| event.r#type() == Type::Synced).await;
    assert!(first.is_empty(), "neither what waits nor what is another's: {first:?}");
    // What becomes of Bob's comes before what becomes of hers.
    bob.release(&before).await.unwrap();
    let theirs = make_vm(&bob).await;
    let mine = make_vm(&alice).await;
    let is_mine =
        |event: &v1::WatchVmsResponse| event.vm.as_ref().is_some_and(|vm| vm.uid == mine.uid);
    let seen = told(&mut events, is_mine).await;
    assert!(seen.iter().all(|vm| vm.tenant == "alice"), "{seen:?}");
    // An operator's watch has both: there was something to leave out.
    let mut all = watch(&site.client(Who::Root).await).await;
    let all = told(&mut all, |event| event.r#type() == Type::Synced).await;
    assert!(all.iter().any(|vm| vm.uid == theirs.uid && vm.tenant == BOBS));
    drop(events);
    site.server.stop().await;
}

#[tokio::test]
async fn a_tenant_cannot_be_connected_to_anothers_guest() {
    let site = Site::open().await;
    let (alice, bob) = (site.client(Who::Alice).await, site.client(Who::Bob).await);
    let theirs = make_vm(&bob).await;
    for uid in [String::new(), theirs.uid.clone()] {
        let open = Open { name: theirs.name.clone(), uid, ..Default::default() };
        let request = v1::ConnectVmRequest { message: Some(Message::Open(open)) };
        let connected = alice.vms.clone().connect_vm(tokio_stream::iter([request])).await;
        assert_eq!(reason(&connected.unwrap_err(), Code::NotFound), "VM_NOT_FOUND");
    }
    site.server.stop().await;
}
