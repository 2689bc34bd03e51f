//! What a machine is made of: what the guest sees, and which files are behind it.
//!
//! Made once from a spec or a snapshot and written into the instance's directory, so that the
//! machine can be captured and taken up again after a restart of hearth. A snapshot's state names
//! files by their paths, so all of them are names in the directory where the process works: the
//! same in every instance, in a jail or not.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{FirecrackerConfig, Mmds};
use super::drive::Drive;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::Uid;
use crate::local::image;
use crate::local::network;
use crate::model::{NetworkInterface, RateLimits, VmSpec};

/// In the instance's directory.
const FILE: &str = "machine.json";
/// What every guest needs to be told: where to write, and to end instead of hanging.
const COMMAND_LINE: &str = if cfg!(target_arch = "aarch64") {
    "console=ttyS0 reboot=k panic=-1 pci=off keep_bootcon"
} else {
    "console=ttyS0 reboot=k panic=-1 pci=off"
};
/// The most vCPUs that Firecracker gives.
const MAX_VCPU_COUNT: u32 = 32;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Blueprint {
    pub(super) vcpu_count: u32,
    pub(super) mem_size_mib: u64,
    pub(super) track_dirty_pages: bool,
    /// Unset for what goes on from a snapshot: it has been booted.
    pub(super) boot: Option<Boot>,
    pub(super) drives: Vec<Drive>,
    pub(super) interfaces: Vec<NetworkInterface>,
    pub(super) vsock_cid: Option<u32>,
    pub(super) rate_limits: RateLimits,
    pub(super) entropy: bool,
    pub(super) mmds: Option<MmdsSettings>,
    /// Unset for what is not locked in, and in snapshots: each clone gets its own.
    pub(super) jail: Option<Jail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boot {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Option<PathBuf>,
    pub(super) command_line: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MmdsSettings {
    pub(super) without_token: bool,
    pub(super) ipv4_address: Option<std::net::Ipv4Addr>,
}

/// Where a machine is locked in, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Jail {
    /// User and group.
    pub(super) uid: u32,
    /// Its root, below the instance's directory.
    pub(super) root: PathBuf,
    /// The cgroups that the jailer makes for it.
    pub(super) cgroups: Vec<PathBuf>,
}

impl Blueprint {
    /// The machine that `spec` asks for. What Firecracker cannot do is refused.
    pub(super) fn from_spec(uid: Uid, spec: &VmSpec, config: &FirecrackerConfig) -> Result<Self> {
        let invalid =
            |field, reason: &str| VmRuntimeError::InvalidSpec { field, reason: reason.to_owned() };
        let kernel = spec.kernel.as_deref();
        let kernel = kernel
            .ok_or_else(|| invalid("kernel", "Firecracker boots a kernel, and none is given"))?;
        if spec.vcpu_count > MAX_VCPU_COUNT {
            return Err(invalid("vcpu_count", "Firecracker gives a VM at most 32"));
        }
        if spec.image.is_some() {
            let what = "booting a container image".to_owned();
            return Err(VmRuntimeError::Unsupported { what });
        }
        if spec.vsock_cid.is_some_and(|cid| cid < 3) {
            return Err(invalid("vsock_cid", "context ids below 3 are reserved"));
        }
        let names_root = spec.boot_args.split_ascii_whitespace().any(|it| it.starts_with("root="));
        // A disk without an initial RAM disk is meant to be the root.
        let is_root = spec.initrd.is_none() && !names_root;
        let rootfs = spec.rootfs.iter();
        let rootfs = rootfs.map(|path| Drive::of("rootfs", path, spec.rootfs_read_only, is_root));
        let extra = spec.extra_drives.iter().enumerate().map(|(index, drive)| {
            let id = match drive.drive_id.as_str() {
                "" => format!("drive{index}"),
                id => id.to_owned(),
            };
            Drive::of(&id, &drive.path, drive.read_only, false)
        });
        let drives: Vec<_> = rootfs.chain(extra).collect::<Result<_>>()?;
        let blueprint = Self {
            vcpu_count: spec.vcpu_count,
            mem_size_mib: spec.mem_size_mib,
            track_dirty_pages: spec.track_dirty_pages,
            boot: Some(Boot {
                kernel: image::absolute("kernel", kernel)?,
                initrd: spec
                    .initrd
                    .as_deref()
                    .map(|path| image::absolute("initrd", path))
                    .transpose()?,
                command_line: format!("{COMMAND_LINE} {}", spec.boot_args).trim_end().to_owned(),
            }),
            drives,
            interfaces: interfaces(uid, &spec.network_interfaces, config)?,
            vsock_cid: spec.vsock_cid,
            rate_limits: spec.rate_limits,
            entropy: config.entropy,
            mmds: config.mmds.as_ref().map(MmdsSettings::of),
            jail: None,
        };
        blueprint.refuse_twins()?;
        Ok(blueprint)
    }

    /// The machine with its interfaces replaced; they are found by their ids.
    pub(super) fn with_overrides(
        mut self,
        uid: Uid,
        overrides: &[NetworkInterface],
        config: &FirecrackerConfig,
    ) -> Result<Self> {
        let invalid = |reason| VmRuntimeError::InvalidSpec { field: "network_overrides", reason };
        for wanted in overrides {
            let found = self.interfaces.iter_mut().find(|it| it.iface_id == wanted.iface_id);
            let found = found.ok_or_else(|| {
                invalid(format!("the snapshot has no interface {:?}", wanted.iface_id))
            })?;
            if wanted.guest_mac.is_some() && wanted.guest_mac != found.guest_mac {
                let what = "changing a guest's MAC address at a restore".to_owned();
                return Err(VmRuntimeError::Unsupported { what });
            }
            found.host_dev_name.clone_from(&wanted.host_dev_name);
        }
        // Also those of the snapshot: a TAP that is gone would silently be made.
        interfaces(uid, &self.interfaces, config)?;
        Ok(self)
    }

    pub(super) const fn mem_size_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }

    /// Where the process works.
    pub(super) fn home(&self, dir: &Path) -> PathBuf {
        self.jail.as_ref().map_or_else(|| dir.to_owned(), |jail| dir.join(&jail.root))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&dir.join(FILE))
    }

    /// Firecracker would take the second of two devices of one id for a change of the first.
    fn refuse_twins(&self) -> Result<()> {
        let twins = |field, mut ids: Vec<&str>| {
            ids.sort_unstable();
            match ids.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => {
                    let reason = format!("two of them have the id {:?}", pair[0]);
                    Err(VmRuntimeError::InvalidSpec { field, reason })
                }
                None => Ok(()),
            }
        };
        twins("extra_drives", self.drives.iter().map(|drive| drive.id.as_str()).collect())?;
        let ids = self.interfaces.iter().map(|it| it.iface_id.as_str()).collect();
        twins("network_interfaces", ids)
    }
}

impl MmdsSettings {
    fn of(mmds: &Mmds) -> Self {
        Self { without_token: mmds.without_token, ipv4_address: mmds.ipv4_address }
    }
}

/// Refuses ids that are no part of a path of Firecracker's API.
pub(super) fn check_id(field: &'static str, id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !id.is_empty() && id.len() <= 64 && id.bytes().all(fits) {
        return Ok(());
    }
    let reason = format!("{id:?} is no id of a device: letters, digits and '_' only, at most 64");
    Err(VmRuntimeError::InvalidSpec { field, reason })
}

fn interfaces(
    uid: Uid,
    wanted: &[NetworkInterface],
    config: &FirecrackerConfig,
) -> Result<Vec<NetworkInterface>> {
    let elsewhere = config.jailer.as_ref().is_some_and(|jailer| jailer.netns.is_some());
    let devices = (!elsewhere).then_some(config.network_devices.as_path());
    let checked = wanted.iter().enumerate().map(|(index, it)| {
        let mut interface = network::on_host(uid, index, it, devices)?;
        if interface.iface_id.is_empty() {
            interface.iface_id = format!("eth{index}");
        }
        check_id("network_interfaces", &interface.iface_id)?;
        Ok(interface)
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    fn spec() -> VmSpec {
        let this = std::env::current_exe().unwrap();
        VmSpec { kernel: Some(this.clone()), rootfs: Some(this), ..VmSpec::default() }
    }

    fn made(spec: &VmSpec) -> Result<Blueprint> {
        Blueprint::from_spec(Uid::from_random([7; 16]), spec, &FirecrackerConfig::default())
    }

    #[test]
    fn a_disk_is_the_root_unless_something_else_is() {
        assert!(made(&spec()).unwrap().drives[0].is_root);
        let with_initrd = VmSpec { initrd: spec().kernel, ..spec() };
        assert!(!made(&with_initrd).unwrap().drives[0].is_root);
        let named = VmSpec { boot_args: "root=/dev/vdb".to_owned(), ..spec() };
        let named = made(&named).unwrap();
        assert!(!named.drives[0].is_root);
        assert!(named.boot.unwrap().command_line.ends_with("root=/dev/vdb"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        let drive = |id: &str| model::Drive {
            drive_id: id.to_owned(),
            path: std::env::current_exe().unwrap(),
            read_only: true,
        };
        let tap = NetworkInterface { host_dev_name: "no-such-tap".into(), ..Default::default() };
        for (wrong, field) in [
            (VmSpec { kernel: None, ..spec() }, "kernel"),
            (VmSpec { vcpu_count: 33, ..spec() }, "vcpu_count"),
            (VmSpec { vsock_cid: Some(2), ..spec() }, "vsock_cid"),
            (VmSpec { extra_drives: vec![drive("a-b")], ..spec() }, "extra_drives"),
            (VmSpec { extra_drives: vec![drive("a"), drive("a")], ..spec() }, "extra_drives"),
            (VmSpec { network_interfaces: vec![tap], ..spec() }, "network_interfaces"),
        ] {
            let error = made(&wrong).unwrap_err();
            assert!(
                matches!(&error, VmRuntimeError::InvalidSpec { field: of, .. } if *of == field),
                "{error}"
            );
        }
    }
}
