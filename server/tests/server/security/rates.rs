//! What bounds a tenant's calls, and what changes while the server runs.

use hearth_pool::bucket::Rate;
use hearth_pool::tenants::TenantSettings;
use hearth_proto::{StatusDetails, v1};
use tonic::Code;

use super::site::{Site, Who, auth_file, make_vm};
use crate::harness::{eventually, from, reason};

#[tokio::test]
async fn a_tenant_that_calls_too_often_is_told_when_to_come_back() {
    let rate = Rate { per_second: 0.001, burst: 3 };
    let site = Site::with(|config| {
        let settings = TenantSettings { request_rate: Some(rate), ..TenantSettings::default() };
        config.limits.tenants.named.insert("alice".to_owned(), settings);
    })
    .await;
    let (alice, bob) = (site.client(Who::Alice).await, site.client(Who::Bob).await);
    for _ in 0..3 {
        alice.vms.clone().list_vms(v1::ListVmsRequest::default()).await.unwrap();
    }
    let patience = std::time::Duration::from_secs(30);
    let refused = alice.acquire(from("default"), patience).await.unwrap_err();
    assert_eq!(reason(&refused, Code::ResourceExhausted), "RATE_LIMITED");
    let details = StatusDetails::of(&refused);
    assert!(details.retry_after.is_some_and(|after| !after.is_zero()), "{details:?}");
    assert_eq!(details.allocated, Some(false));
    for _ in 0..9 {
        bob.vms.clone().list_vms(v1::ListVmsRequest::default()).await.unwrap();
    }
    site.server.stop().await;
}

#[tokio::test]
async fn who_is_taken_out_of_the_file_is_refused_and_who_is_put_in_is_let_in() {
    let site = Site::open().await;
    let alice = site.client(Who::Alice).await;
    let vm = make_vm(&alice).await;
    let get = async || {
        let request = v1::GetVmRequest { name: vm.name.clone() };
        alice.vms.clone().get_vm(request).await.map(tonic::Response::into_inner)
    };
    get().await.unwrap();
    let without = auth_file().replace("[identities.alice]", "[identities.alice2]");
    let (before, after) = without.split_once("[identities.alice2]").unwrap();
    let after = after.split_once("[identities").unwrap().1;
    std::fs::write(&site.file, format!("{before}[identities{after}")).unwrap();
    eventually("the token is refused", async || {
        get().await.is_err_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    // A file that makes no sense changes nothing.
    std::fs::write(&site.file, "nonsense").unwrap();
    site.server.client.node.clone().get_node(v1::GetNodeRequest::default()).await.unwrap();
    std::fs::write(&site.file, auth_file()).unwrap();
    eventually("the token is let in", async || get().await.is_ok()).await;
    site.server.stop().await;
}

#[tokio::test]
async fn a_pool_is_there_for_whom_it_was_granted_to() {
    let site = Site::open().await;
    let (alice, eyes) = (site.client(Who::Alice).await, site.client(Who::Eyes).await);
    let names = async |client: &hearth_proto::HearthClient| {
        let listed = client.pools.clone().list_pools(v1::ListPoolsRequest::default()).await;
        let pools = listed.unwrap().into_inner().pools;
        pools.into_iter().map(|pool| pool.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&alice).await, ["pools/default"]);
    assert_eq!(names(&eyes).await, ["pools/default", "pools/hidden"]);
    let request = v1::ResolvePoolRequest { name: "pools/hidden".to_owned(), request: None };
    let refused = alice.pools.clone().resolve_pool(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::NotFound), "POOL_NOT_FOUND");
    // The devices, files and images of the host are not a tenant's to name.
    let interface = v1::NetworkInterface {
        iface_id: "eth0".to_owned(),
        host_dev_name: "tap0".to_owned(),
        ..Default::default()
    };
    let overrides = v1::AcquireVmRequest { network_overrides: vec![interface], ..from("default") };
    let patience = std::time::Duration::from_secs(30);
    let refused = alice.acquire(overrides, patience).await.unwrap_err();
    assert_eq!(reason(&refused, Code::PermissionDenied), "PERMISSION_DENIED");
    assert_eq!(StatusDetails::of(&refused).allocated, Some(false));
    for spec in [
        None,
        Some(v1::VmSpec { kernel: "/etc/shadow".to_owned(), ..Default::default() }),
        Some(v1::VmSpec { image: "private".to_owned(), ..Default::default() }),
    ] {
        let request = v1::CreateVmRequest { spec, ..Default::default() };
        let refused = alice.vms.clone().create_vm(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::PermissionDenied), "PERMISSION_DENIED");
    }
    // Of the node a tenant sees what it has to know.
    let mut node = alice.node.clone();
    let seen = node.get_node(v1::GetNodeRequest::default()).await.unwrap().into_inner();
    assert!(seen.bounds.is_some() && seen.providers.is_empty() && seen.capacity.is_none());
    let refused = node.get_node(v1::GetNodeRequest { with_usage: true }).await.unwrap_err();
    assert_eq!(reason(&refused, Code::PermissionDenied), "PERMISSION_DENIED");
    site.server.stop().await;
}
