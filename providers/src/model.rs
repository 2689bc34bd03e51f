//! The data of the contract: what a VM is made from, and what it looks like.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::VmRuntimeError;
use crate::id::{SnapshotId, Uid, VmId};

/// What somebody wrote on a VM: never changed from then on, so that its spec, its record and every view of
/// it have the same.
pub type Tags = Arc<BTreeMap<String, String>>;

/// What to make a VM from: a cold boot, or a snapshot when `restore_from` is set.
///
/// With `restore_from` the cold-boot fields are ignored: the snapshot has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmSpec {
    /// Kernel image on the host.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk on the host.
    pub initrd: Option<PathBuf>,
    /// Root disk on the host, raw; every VM gets a writable layer of its own over it.
    pub rootfs: Option<PathBuf>,
    /// The VM must not write to its root disk.
    pub rootfs_read_only: bool,
    /// Container image, for providers that boot images.
    pub image: Option<String>,
    /// Virtual CPUs, 1 to [`MAX_VCPU_COUNT`].
    pub vcpu_count: u32,
    /// Memory in MiB, 1 to [`MAX_MEM_SIZE_MIB`].
    pub mem_size_mib: u64,
    /// Kernel command line, appended to what the provider itself needs.
    pub boot_args: String,
    /// Network interfaces, in the order of the guest's devices.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Further disks, in the order of the guest's devices.
    pub extra_drives: Vec<Drive>,
    /// Limits of disk and network traffic.
    pub rate_limits: RateLimits,
    /// The guest's vsock context id, where the VM is to have a vsock.
    pub vsock_cid: Option<u32>,
    /// Keep a record of changed pages, for differential snapshots.
    pub track_dirty_pages: bool,
    /// Start from this snapshot instead of booting.
    pub restore_from: Option<SnapshotRef>,
    /// Opaque to the provider: kept with the instance and given back in [`VmView::tags`], also
    /// after a restart. The pool writes here whose the instance is.
    pub tags: Tags,
}

/// The most vCPUs that a spec may ask for.
pub const MAX_VCPU_COUNT: u32 = 256;
/// The most memory that a spec may ask for, in MiB (4 TiB).
pub const MAX_MEM_SIZE_MIB: u64 = 4 << 20;

impl Default for VmSpec {
    /// One vCPU and 128 MiB, and nothing to boot from.
    fn default() -> Self {
        Self {
            kernel: None,
            initrd: None,
            rootfs: None,
            rootfs_read_only: false,
            image: None,
            vcpu_count: 1,
            mem_size_mib: 128,
            boot_args: String::new(),
            network_interfaces: Vec::new(),
            extra_drives: Vec::new(),
            rate_limits: RateLimits::default(),
            vsock_cid: None,
            track_dirty_pages: false,
            restore_from: None,
            tags: Tags::default(),
        }
    }
}

impl VmSpec {
    /// Refuses what no provider could make: sizes out of range, boot arguments that are not one
    /// line, files that are not there. Of a spec that restores, the cold-boot fields are ignored.
    /// Looks at the file system.
    ///
    /// # Errors
    /// [`VmRuntimeError::InvalidSpec`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), VmRuntimeError> {
        let refuse = |field, reason: String| Err(VmRuntimeError::InvalidSpec { field, reason });
        if self.restore_from.is_some() {
            return Ok(());
        }
        if !(1..=MAX_VCPU_COUNT).contains(&self.vcpu_count) {
            return refuse("vcpu_count", format!("{} is not in 1..=256", self.vcpu_count));
        }
        if !(1..=MAX_MEM_SIZE_MIB).contains(&self.mem_size_mib) {
            return refuse("mem_size_mib", format!("{} is not in 1..=4194304", self.mem_size_mib));
        }
        if self.boot_args.len() > 2048 || self.boot_args.contains(['\0', '\n']) {
            return refuse("boot_args", "longer than 2048 bytes, or not one line".to_owned());
        }
        let files = [("kernel", &self.kernel), ("initrd", &self.initrd), ("rootfs", &self.rootfs)]
            .into_iter()
            .filter_map(|(field, path)| path.as_ref().map(|path| (field, path)))
            .chain(self.extra_drives.iter().map(|drive| ("extra_drives", &drive.path)));
        for (field, path) in files {
            match path.metadata() {
                Ok(found) if found.is_file() => {}
                Ok(_) => return refuse(field, format!("{} is not a file", path.display())),
                Err(error) => return refuse(field, format!("{}: {error}", path.display())),
            }
        }
        Ok(())
    }
}

/// One network interface of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkInterface {
    /// The provider's name of the device, as `eth0`; overrides find it by this.
    pub iface_id: String,
    /// The TAP device on the host.
    pub host_dev_name: String,
    /// The guest's MAC address; the provider's choice when unset.
    pub guest_mac: Option<String>,
}

/// One further disk of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drive {
    /// The provider's name of the device.
    pub drive_id: String,
    /// Raw image on the host.
    pub path: PathBuf,
    /// The VM must not write to it.
    pub read_only: bool,
}

/// Limits of a VM's traffic; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Disk bytes a second, over all disks.
    pub disk_bytes_per_second: u64,
    /// Disk operations a second, over all disks.
    pub disk_operations_per_second: u64,
    /// Network bytes a second, over all interfaces and both directions.
    pub network_bytes_per_second: u64,
}

/// Whose snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotSource {
    /// The VM that has this name now; if none has it, the last one that had it.
    /// A VM of that name without such a snapshot hides those of its predecessors.
    Name(VmId),
    /// The VM of this uid, whatever it is called and whether or not it still lives.
    VmUid(Uid),
}

/// Which snapshot to start from, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Whose snapshot it is.
    pub source: SnapshotSource,
    /// Which of that VM's snapshots.
    pub snapshot_id: SnapshotId,
    /// End Running; otherwise Stopped.
    #[serde(default)]
    pub resume_immediately: bool,
    /// Interfaces that replace those of the snapshot, found by `iface_id`.
    #[serde(default)]
    pub network_overrides: Vec<NetworkInterface>,
}

/// Where a VM stands in its life, as its provider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmStatus {
    /// Made, never started.
    Created,
    /// Its vCPUs run.
    Running,
    /// Stopped or paused; [`crate::Capabilities::stop_keeps`] says what is kept.
    Stopped,
    /// It ended by itself; only destroy leads on.
    Failed,
    /// It is gone, and remembered for a while.
    Destroyed,
}

impl VmStatus {
    /// Every status, in the order of a VM's life.
    pub const ALL: [Self; 5] =
        [Self::Created, Self::Running, Self::Stopped, Self::Failed, Self::Destroyed];
}

/// A VM as its provider shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmView {
    /// Its name now.
    pub vm_id: VmId,
    /// Its identity for ever.
    pub uid: Uid,
    /// Where it stands.
    pub status: VmStatus,
    /// When it was made, by the host's wall clock.
    pub create_time: SystemTime,
    /// As given in [`VmSpec::tags`].
    pub tags: Tags,
    /// Names of its snapshots, in the order they were taken.
    pub snapshots: Vec<SnapshotId>,
    /// The uid of the snapshot it was restored from.
    pub restored_from: Option<Uid>,
    /// How to reach it on this host.
    pub endpoints: Vec<Endpoint>,
    /// The host process that runs it, where there is one.
    pub process: Option<VmmProcess>,
    /// Why it is [`VmStatus::Failed`].
    pub failure: Option<Failure>,
}

/// The kinds of [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// A file or socket that carries the serial console.
    Serial,
    /// A vsock address.
    Vsock,
    /// A TCP address.
    Tcp,
    /// A Unix socket that reaches the guest's channel.
    Unix,
}

/// One way to reach a VM, as seen from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What answers there.
    pub kind: EndpointKind,
    /// Path, or host and port.
    pub address: String,
}

/// The process that runs a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmProcess {
    /// Its process id.
    pub pid: u32,
    /// When it started, by the host's wall clock.
    pub start_time: SystemTime,
    /// The program it runs.
    pub executable: PathBuf,
}

/// How a VM ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, in one sentence.
    pub reason: String,
    /// When it was seen, by the host's wall clock.
    pub time: SystemTime,
    /// Exit status, or 128 + signal, of the VMM; unset when unknown (it was not our child).
    pub exit_status: Option<i32>,
    /// The last bytes of the console, at most [`CONSOLE_TAIL_BYTES`].
    pub console_tail: String,
}

/// How much of the console a [`Failure`] keeps.
pub const CONSOLE_TAIL_BYTES: usize = 4096;

/// A snapshot as its provider shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotView {
    /// Its identity for ever.
    pub uid: Uid,
    /// Its name among those of its VM.
    pub snapshot_id: SnapshotId,
    /// The VM it is of.
    pub vm_uid: Uid,
    /// What that VM was called when the snapshot was taken.
    pub vm_id: VmId,
    /// Memory is in it: a restore continues. Otherwise a restore boots.
    pub has_memory: bool,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Versions it was made with, as `qemu` to `10.0.2`.
    pub made_with: BTreeMap<String, String>,
    /// Who keeps it: names of pins, and `vm:<uid>` for live clones.
    pub pinned_by: Vec<String>,
    /// When it was taken, by the host's wall clock.
    pub create_time: SystemTime,
}
