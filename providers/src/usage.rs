//! What a provider's VMs and snapshots take on disk, by kind.

use crate::error::Result;
use crate::freeze;
use crate::model::VmStatus;
use crate::provider::VmRuntime;

/// How many there are of a kind, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What a provider has on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// VMs that live.
    pub instances: Share,
    /// VMs that failed, and are kept for whoever looks for the reason.
    pub quarantine: Share,
    /// Snapshots that are not artifacts, those of templates among them.
    pub snapshots: Share,
    /// Snapshots that are artifacts.
    pub artifacts: Share,
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Adds up what `runtime` has. Snapshots take what they took when they were made. Reads the disk, and
/// may ask the backend for each VM; blocks.
///
/// # Errors
/// Those of the backend.
pub fn usage(runtime: &dyn VmRuntime) -> Result<Usage> {
    let mut usage = Usage::default();
    for vm in runtime.list_vms() {
        let bytes = runtime.instance_bytes(vm.uid)?;
        match vm.status {
            VmStatus::Failed => usage.quarantine.add(bytes),
            _ => usage.instances.add(bytes),
        }
    }
    for snapshot in runtime.all_snapshots() {
        match freeze::artifacts_of(&snapshot).next() {
            Some(_) => usage.artifacts.add(snapshot.size_bytes),
            None => usage.snapshots.add(snapshot.size_bytes),
        }
    }
    Ok(usage)
}
