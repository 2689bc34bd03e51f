//! A restore through the firecracker provider against the same restore by a bare driver.
//!
//! Both start the same binary with the same arguments, on the same files, in the same run, and
//! take turns in blocks. The provider's part is `create_vm_with_spec` with `restore_from` and
//! `resume_immediately`: it ends with a guest that runs. What `bare` leaves out is the price of
//! everything that the provider adds. Ending the VMs is not measured.
//!
//! Needs `HEARTH_FIRECRACKER`, the path of a Firecracker, and a `/dev/kvm` that works. Without
//! the former there is nothing to measure, and that is no failure.

mod bare;
mod guest;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bare::Bare;
use hearth_benches::{Alternation, alternate, median};
use hearth_providers::directory::Paths;
use hearth_providers::env::SystemEnv;
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig, FirecrackerProvider};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{SnapshotId, VmId, VmProvider as _, VmQuery as _, VmSpec};
use tokio::time::Instant;

const BLOCKS: usize = 40;
const PER_BLOCK: usize = 9;
const ROOTFS_BYTES: usize = 1 << 20;
/// Much longer than a guest takes to count to three.
const LONG: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(firecracker) = std::env::var_os("HEARTH_FIRECRACKER").map(PathBuf::from) else {
        println!("ignored: HEARTH_FIRECRACKER does not say where a Firecracker is");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let kernel = guest::build(dir.path())?;
    let rootfs = dir.path().join("rootfs");
    fs::write(&rootfs, vec![7; ROOTFS_BYTES])?;
    println!("state in {}, blocks of {PER_BLOCK}", dir.path().display());
    for (name, rootfs) in [("no drive", None), ("1 MiB drive", Some(rootfs))] {
        let spec = VmSpec { kernel: Some(kernel.clone()), rootfs, ..VmSpec::default() };
        let state = dir.path().join(name.replace(' ', "-"));
        let node = Node::with_template(&firecracker, &state, &spec)?;
        let measured = measure(&node, &firecracker, &dir.path().join("bare"));
        // Firecrackers outlive whoever started them: none is left, whatever happened.
        node.destroy_all();
        measured?.print(
            &format!("restore by the provider, {name}"),
            &format!("restore by a bare driver, {name}"),
        );
    }
    Ok(())
}

fn measure(node: &Node, firecracker: &Path, dir: &Path) -> Result<Alternation, Box<dyn Error>> {
    let bare = Bare { firecracker, snapshot: node.snapshot_dir()?, dir };
    alternate(
        BLOCKS,
        |block| repeat(|number| node.restore(&format!("clone-{block}-{number}"))),
        |_| repeat(|_| bare.restore()),
    )
}

/// The median of a block of restores, one after another.
fn repeat(
    mut restore: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    (0..PER_BLOCK).map(&mut restore).collect::<Result<_, _>>().map(median)
}

/// A provider with a VM `template` whose guest runs in the snapshot `ready`.
struct Node {
    provider: FirecrackerProvider,
    state: PathBuf,
    clone: VmSpec,
}

impl Node {
    fn with_template(
        firecracker: &Path,
        state: &Path,
        spec: &VmSpec,
    ) -> Result<Self, Box<dyn Error>> {
        let env = Arc::new(SystemEnv);
        let config =
            FirecrackerConfig { binary: firecracker.to_owned(), ..FirecrackerConfig::default() };
        let backend = FirecrackerBackend::new(config, Arc::clone(&env) as _)?;
        let paths = Paths { state: state.to_owned(), runtime: state.to_owned() };
        let (provider, _) = FirecrackerProvider::open("firecracker", backend, env, paths)?;
        let (template, ready) = (VmId::parse("template")?, SnapshotId::parse("ready")?);
        let restore_from = SnapshotRef {
            source: SnapshotSource::Name(template.clone()),
            snapshot_id: ready.clone(),
            resume_immediately: true,
            network_overrides: Vec::new(),
        };
        let clone = VmSpec { restore_from: Some(restore_from), ..VmSpec::default() };
        let node = Self { provider, state: state.to_owned(), clone };
        let captured = node.capture(&template, &ready, spec);
        captured.inspect_err(|_| node.destroy_all())?;
        Ok(node)
    }

    fn capture(
        &self,
        template: &VmId,
        ready: &SnapshotId,
        spec: &VmSpec,
    ) -> Result<(), Box<dyn Error>> {
        self.provider.create_vm_with_spec(template, spec)?;
        self.provider.start_vm(template)?;
        let counts = Readiness::ConsoleMarker("count 3\n".to_owned());
        wait_ready(&self.provider, template, &counts, LONG)?;
        self.provider.stop_vm(template)?;
        Ok(self.provider.snapshot_vm(template, ready)?)
    }

    /// The files of the only snapshot.
    fn snapshot_dir(&self) -> Result<PathBuf, Box<dyn Error>> {
        let all = self.provider.all_snapshots();
        let only = all.first().ok_or("there is no snapshot")?;
        Ok(self.state.join("snapshots").join(only.uid.to_string()))
    }

    fn restore(&self, name: &str) -> Result<Duration, Box<dyn Error>> {
        let name = VmId::parse(name)?;
        let begun = Instant::now();
        self.provider.create_vm_with_spec(&name, &self.clone)?;
        let took = begun.elapsed();
        self.provider.destroy_vm(&name)?;
        Ok(took)
    }

    fn destroy_all(&self) {
        for vm in self.provider.list_vms() {
            if let Err(error) = self.provider.destroy_vm(&vm.vm_id) {
                eprintln!("{} is left behind: {error}", vm.vm_id);
            }
        }
    }
}
