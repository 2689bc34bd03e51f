//! Pools on a provider whose guest channels do not live through a pause.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::error::Error;
use hearth_pool::pool::{PoolConfig, Provider, WarmState};
use hearth_pool::templates::Template;
use hearth_providers::error::Result;
use hearth_providers::model::{SnapshotRef, SnapshotView};
use hearth_providers::provider::{GuestChannel, Probe};
use hearth_providers::{
    Capabilities, SnapshotId, Uid, VmId, VmProvider, VmQuery, VmRuntime, VmSpec, VmView,
};

/// A provider that says of itself that a pause breaks channels; it is the one below else.
struct BreaksChannels(Arc<dyn VmRuntime>);

impl VmProvider for BreaksChannels {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        self.0.create_vm(vm_id)
    }
    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        self.0.create_vm_with_spec(vm_id, spec)
    }
    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        self.0.start_vm(vm_id)
    }
    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        self.0.stop_vm(vm_id)
    }
    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        self.0.snapshot_vm(vm_id, snapshot_id)
    }
    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        self.0.destroy_vm(vm_id)
    }
    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        self.0.rename_vm(old, new)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { pause_keeps_channels: false, ..self.0.capabilities() }
    }
    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        self.0.pin_snapshot(snapshot, holder)
    }
    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        self.0.unpin_snapshot(snapshot_uid, holder)
    }
    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        self.0.guest_channel(vm_id)
    }
}

impl VmQuery for BreaksChannels {
    fn list_vms(&self) -> Vec<VmView> {
        self.0.list_vms()
    }
    fn get_vm(&self, vm_id: &VmId) -> Option<VmView> {
        self.0.get_vm(vm_id)
    }
    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>> {
        self.0.list_snapshots(vm_id)
    }
    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        self.0.probe(vm_id, probe, timeout)
    }
}

/// A node whose template has a vsock or has none, on a provider that breaks channels or not.
async fn node(breaks: bool, vsock_cid: Option<u32>) -> (Host, Node) {
    let mut host = Host::new(1);
    let inner = Arc::clone(&host.provider.runtime);
    let runtime = if breaks { Arc::new(BreaksChannels(inner)) } else { inner };
    let (name, kind) = (Arc::clone(&host.provider.name), host.provider.kind.clone());
    host.provider = Arc::new(Provider { name, kind, runtime });
    let node = host.start().await;
    let template = template("default");
    let spec = VmSpec { vsock_cid, ..template.spec.clone() };
    let operation = node.create_template(Template { spec, ..template }, false).await.unwrap();
    node.operations().wait(&operation, Duration::from_secs(60)).await.unwrap();
    (host, node)
}

fn paused() -> PoolConfig {
    PoolConfig { warm_state: WarmState::Paused, ..pool("default", 2) }
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_whose_vsock_a_pause_would_hang_is_refused() {
    let (_host, node) = node(true, Some(3)).await;
    let refused = node.create_pool(paused(), false).await.unwrap_err();
    let Error::InvalidArgument(violations) = &refused else { panic!("{refused:?}") };
    assert_eq!(violations[0].field, "warm_state");
    assert!(violations[0].description.contains("hang the guest's vsock"), "{refused:?}");
    assert!(node.pools().is_empty());

    // Nor does one become paused.
    node.create_pool(pool("default", 2), false).await.unwrap();
    let id = pool("default", 2).id;
    let pause = |config: &mut PoolConfig| {
        config.warm_state = WarmState::Paused;
        Ok(())
    };
    assert_eq!(reason(node.update_pool(&id, "", false, pause).await), "invalid_argument");
    node.settle("default").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_is_fine_without_a_vsock_and_where_a_pause_keeps_it() {
    for (breaks, vsock_cid) in [(true, None), (false, Some(3)), (false, None)] {
        let (_host, node) = node(breaks, vsock_cid).await;
        node.create_pool(paused(), false).await.unwrap();
        node.settle("default").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_of_a_paused_pool_gets_no_vsock_that_a_pause_would_hang() {
    let (_host, node) = node(true, None).await;
    node.create_pool(paused(), false).await.unwrap();
    node.settle("default").await;
    let recipe = template("default");
    let spec = VmSpec { vsock_cid: Some(3), ..recipe.spec.clone() };
    let refused = node.create_template(Template { spec, ..recipe }, true).await.unwrap_err();
    let Error::InvalidArgument(violations) = &refused else { panic!("{refused:?}") };
    assert_eq!(violations[0].field, "spec.vsock_cid");
}
