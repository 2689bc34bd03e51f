//! A provider in this process, with a snapshot to restore from.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::backend::Backend;
use hearth_providers::directory::Paths;
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::qemu::{QemuBackend, QemuConfig};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{SnapshotId, VmId, VmRuntime, VmSpec};
use tokio::time::Instant;

/// Much longer than a guest takes to boot.
const LONG: Duration = Duration::from_secs(120);

/// A firecracker provider on `state`, which runs `program`.
///
/// # Errors
/// When there is no such Firecracker, or it cannot be used here.
pub(crate) fn firecracker(
    program: &Path,
    state: &Path,
) -> Result<Arc<dyn VmRuntime>, Box<dyn Error>> {
    let binary = program.to_owned();
    let config = FirecrackerConfig { binary, ..FirecrackerConfig::default() };
    open("firecracker", FirecrackerBackend::new(config, Arc::new(SystemEnv))?, state)
}

/// A qemu provider on `state`.
///
/// # Errors
/// When there is no QEMU, or it cannot be used here.
pub(crate) fn qemu(state: &Path) -> Result<Arc<dyn VmRuntime>, Box<dyn Error>> {
    open("qemu", QemuBackend::new(QemuConfig::default(), Arc::new(SystemEnv))?, state)
}

fn open<B: Backend>(
    name: &str,
    backend: B,
    state: &Path,
) -> Result<Arc<dyn VmRuntime>, Box<dyn Error>> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let paths = Paths { state: state.to_owned(), runtime: state.to_owned() };
    Ok(Arc::new(Engine::open(name, backend, env, paths)?.0))
}

/// The files of the only snapshot of a provider on `state`.
///
/// # Errors
/// When there is none.
pub(crate) fn snapshot_dir(
    provider: &dyn VmRuntime,
    state: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let all = provider.all_snapshots();
    let only = all.first().ok_or("there is no snapshot")?;
    Ok(state.join("snapshots").join(only.uid.to_string()))
}

/// Destroys all VMs of a provider: some outlive whoever started them.
pub(crate) fn destroy_all(provider: &dyn VmRuntime) {
    for vm in provider.list_vms() {
        if let Err(error) = provider.destroy_vm(&vm.vm_id) {
            eprintln!("{} is left behind: {error}", vm.vm_id);
        }
    }
}

/// A provider with a VM `template` whose guest runs in the snapshot `ready`; dropped, it has no VMs.
pub(crate) struct Node {
    /// The provider.
    pub(crate) provider: Arc<dyn VmRuntime>,
    /// The files of the snapshot.
    pub(crate) snapshot_dir: PathBuf,
    /// The snapshot.
    pub(crate) snapshot: SnapshotRef,
}

impl Node {
    /// Boots a VM of `spec` on `provider`, which works in `state`, and captures it when it has written
    /// `marker`. Blocks for as long as a guest takes to boot.
    ///
    /// # Errors
    /// Those of the provider.
    pub(crate) fn with_template(
        provider: Arc<dyn VmRuntime>,
        state: &Path,
        spec: &VmSpec,
        marker: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let template = VmId::parse("template")?;
        let snapshot = SnapshotRef {
            source: SnapshotSource::Name(template.clone()),
            snapshot_id: SnapshotId::parse("ready")?,
            resume_immediately: true,
            network_overrides: Vec::new(),
        };
        let mut node = Self { provider, snapshot, snapshot_dir: PathBuf::new() };
        node.provider.create_vm_with_spec(&template, spec)?;
        node.provider.start_vm(&template)?;
        let marker = Readiness::ConsoleMarker(marker.to_owned());
        wait_ready(node.provider.as_ref(), &template, &marker, LONG)?;
        node.provider.stop_vm(&template)?;
        node.provider.snapshot_vm(&template, &node.snapshot.snapshot_id)?;
        node.snapshot_dir = snapshot_dir(node.provider.as_ref(), state)?;
        Ok(node)
    }

    /// Restores a VM and destroys it; answers how long the restore took.
    ///
    /// # Errors
    /// Those of the provider.
    pub(crate) fn timed(&self, name: &str) -> Result<Duration, Box<dyn Error>> {
        let name = VmId::parse(name)?;
        let spec = VmSpec { restore_from: Some(self.snapshot.clone()), ..VmSpec::default() };
        let begun = Instant::now();
        self.provider.create_vm_with_spec(&name, &spec)?;
        let took = begun.elapsed();
        self.provider.destroy_vm(&name)?;
        Ok(took)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        destroy_all(self.provider.as_ref());
    }
}
