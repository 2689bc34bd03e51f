//! What a machine is made of: what the guest sees, and which files are behind it.
//!
//! Made once from a spec or a snapshot and written into the instance's directory, so that the
//! machine can be captured and taken up again after a restart of hearth. What the guest sees
//! follows from it alone: two machines of equal blueprints have the same devices in the same
//! slots, which is what lets one go on from the state of the other.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::Uid;
use crate::local::image;
use crate::local::network::{self, HOST_DEVICES};
use crate::model::{NetworkInterface, RateLimits, VmSpec};

/// In the instance's directory.
const FILE: &str = "machine.json";

/// What every guest needs to be told; `reboot=t` and `panic=-1` make it end instead of hang.
const COMMAND_LINE: &str = if cfg!(target_arch = "aarch64") {
    "console=ttyAMA0 reboot=t panic=-1 quiet"
} else {
    "console=ttyS0 reboot=t panic=-1 quiet"
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Blueprint {
    pub(super) vcpu_count: u32,
    pub(super) mem_size_mib: u64,
    pub(super) memory: Memory,
    /// Unset for what goes on from a snapshot: it has been booted.
    pub(super) boot: Option<Boot>,
    pub(super) disks: Vec<Disk>,
    pub(super) interfaces: Vec<NetworkInterface>,
    pub(super) vsock_cid: Option<u32>,
    pub(super) rate_limits: RateLimits,
}

/// Where a guest's memory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Memory {
    /// In the file `ram` of the instance: copied for a snapshot.
    OwnFile,
    /// In a snapshot's file, copied on write: a snapshot has to write all of it.
    CloneOf(PathBuf),
    /// In the process alone.
    Private,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boot {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Option<PathBuf>,
    pub(super) command_line: String,
}

impl Blueprint {
    /// The machine that `spec` asks for. What QEMU cannot do, or we not yet, is refused.
    pub(super) fn from_spec(uid: Uid, spec: &VmSpec) -> Result<Self> {
        let kernel = spec.kernel.as_deref().ok_or_else(|| VmRuntimeError::InvalidSpec {
            field: "kernel",
            reason: "QEMU boots a kernel, and none is given".to_owned(),
        })?;
        refuse_unsupported(spec)?;
        let rootfs = spec.rootfs.iter().map(|path| Disk::of(path, spec.rootfs_read_only, ""));
        let drives = spec.extra_drives.iter();
        let drives = drives.map(|drive| Disk::of(&drive.path, drive.read_only, &drive.drive_id));
        let interfaces = spec.network_interfaces.iter().enumerate();
        Ok(Self {
            vcpu_count: spec.vcpu_count,
            mem_size_mib: spec.mem_size_mib,
            memory: Memory::OwnFile,
            boot: Some(Boot {
                kernel: image::absolute("kernel", kernel)?,
                initrd: spec
                    .initrd
                    .as_deref()
                    .map(|path| image::absolute("initrd", path))
                    .transpose()?,
                command_line: command_line(spec),
            }),
            disks: rootfs.chain(drives).collect::<Result<_>>()?,
            interfaces: interfaces
                .map(|(index, it)| network::on_host(uid, index, it, Some(Path::new(HOST_DEVICES))))
                .collect::<Result<_>>()?,
            vsock_cid: spec.vsock_cid,
            rate_limits: spec.rate_limits,
        })
    }

    pub(super) fn mem_size_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(FILE))
    }
}

fn refuse_unsupported(spec: &VmSpec) -> Result<()> {
    let refuse = |what: &str| Err(VmRuntimeError::Unsupported { what: what.to_owned() });
    if spec.image.is_some() {
        return refuse("booting a container image");
    }
    if spec.track_dirty_pages {
        return refuse("tracking dirty pages");
    }
    if spec.rate_limits.network_bytes_per_second != 0 {
        return refuse("limiting network traffic");
    }
    if spec.vsock_cid.is_some() && !Path::new("/dev/vhost-vsock").exists() {
        return refuse("vsock, for this host has no /dev/vhost-vsock");
    }
    if spec.vsock_cid.is_some_and(|cid| cid < 3) {
        let reason = "context ids below 3 are reserved".to_owned();
        return Err(VmRuntimeError::InvalidSpec { field: "vsock_cid", reason });
    }
    Ok(())
}

/// A disk without an initial RAM disk is meant to be the root.
fn command_line(spec: &VmSpec) -> String {
    let mut line = COMMAND_LINE.to_owned();
    let names_root = spec.boot_args.split_ascii_whitespace().any(|it| it.starts_with("root="));
    if spec.rootfs.is_some() && spec.initrd.is_none() && !names_root {
        line.push_str(if spec.rootfs_read_only {
            " root=/dev/vda ro"
        } else {
            " root=/dev/vda rw"
        });
    }
    if !spec.boot_args.is_empty() {
        line.push(' ');
        line.push_str(&spec.boot_args);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        let this = std::env::current_exe().unwrap();
        VmSpec { kernel: Some(this.clone()), rootfs: Some(this), ..VmSpec::default() }
    }

    fn uid() -> Uid {
        Uid::from_random([7; 16])
    }

    #[test]
    fn a_spec_without_a_kernel_is_refused() {
        let error = Blueprint::from_spec(uid(), &VmSpec::default()).unwrap_err();
        assert!(matches!(error, VmRuntimeError::InvalidSpec { field: "kernel", .. }), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_refused_and_never_ignored() {
        let wrong = [
            VmSpec { image: Some("x".to_owned()), ..spec() },
            VmSpec { track_dirty_pages: true, ..spec() },
            VmSpec {
                rate_limits: RateLimits { network_bytes_per_second: 1, ..RateLimits::default() },
                ..spec()
            },
        ];
        for spec in wrong {
            assert_eq!(Blueprint::from_spec(uid(), &spec).unwrap_err().kind(), "unsupported");
        }
        for name in ["no-such-tap", "", "a/b", "..", "lo"] {
            let interface = NetworkInterface { host_dev_name: name.into(), ..Default::default() };
            let spec = VmSpec { network_interfaces: vec![interface], ..spec() };
            assert_eq!(Blueprint::from_spec(uid(), &spec).unwrap_err().kind(), "invalid_spec");
        }
    }

    #[test]
    fn a_disk_without_an_initrd_is_the_root_unless_the_caller_names_one() {
        let line = |spec: &VmSpec| command_line(spec);
        assert!(line(&spec()).ends_with("root=/dev/vda rw"));
        let named = VmSpec { boot_args: "quiet root=/dev/vdb".to_owned(), ..spec() };
        assert!(line(&named).ends_with("quiet root=/dev/vdb") && !line(&named).contains("vda"));
        let with_initrd = VmSpec { initrd: spec().kernel, ..spec() };
        assert!(!line(&with_initrd).contains("root="));
    }
}
