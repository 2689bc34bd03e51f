//! What a machine is made from, as it is kept for the machines that are made from its snapshots.

use serde::{Deserialize, Serialize};

use super::config::CliConfig;
use crate::error::{Result, VmRuntimeError};
use crate::model::{RateLimits, VmSpec};

/// A machine without its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blueprint {
    /// The image that it boots.
    pub image: String,
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub mem_size_mib: u64,
    /// It must not write to its root disk.
    pub read_only: bool,
    /// What it runs; the image's own when empty.
    pub command: Vec<String>,
    /// The tool's network that it is on.
    pub network: Option<String>,
}

impl Blueprint {
    /// Refuses what such machines do not have, rather than to leave it out.
    ///
    /// # Errors
    /// `InvalidSpec` naming the first field that is wrong.
    pub fn from_spec(spec: &VmSpec, config: &CliConfig, can_be_read_only: bool) -> Result<Self> {
        let refuse = |field, reason: &str| {
            Err(VmRuntimeError::InvalidSpec { field, reason: reason.to_owned() })
        };
        let own = "the tool brings its own: name an image";
        if spec.kernel.is_some() {
            return refuse("kernel", own);
        }
        if spec.initrd.is_some() {
            return refuse("initrd", own);
        }
        if spec.rootfs.is_some() {
            return refuse("rootfs", own);
        }
        if spec.rootfs_read_only && !can_be_read_only {
            return refuse("rootfs_read_only", "the tool cannot do that");
        }
        if !spec.extra_drives.is_empty() {
            return refuse("extra_drives", "the tool gives a machine none");
        }
        if spec.rate_limits != RateLimits::default() {
            return refuse("rate_limits", "the tool has none");
        }
        if spec.vsock_cid.is_some() {
            return refuse("vsock_cid", "the tool keeps the vsock for itself");
        }
        if spec.track_dirty_pages {
            return refuse("track_dirty_pages", "memory is not in snapshots");
        }
        let image = spec.image.clone().unwrap_or_default();
        // What begins with a dash would be a flag, or mean the closed input.
        if image.is_empty() || image.starts_with('-') || image.contains(char::is_whitespace) {
            return refuse("image", "a machine is made from one, named by one word");
        }
        let words = spec.boot_args.split_ascii_whitespace().map(str::to_owned);
        Ok(Self {
            image,
            vcpu_count: spec.vcpu_count,
            mem_size_mib: spec.mem_size_mib,
            read_only: spec.rootfs_read_only,
            command: config.command.iter().cloned().chain(words).collect(),
            network: network(spec, config)?,
        })
    }
}

fn network(spec: &VmSpec, config: &CliConfig) -> Result<Option<String>> {
    let refuse = |reason| Err(VmRuntimeError::InvalidSpec { field: "network_interfaces", reason });
    match spec.network_interfaces.as_slice() {
        [] => Ok(None),
        [interface] if interface.guest_mac.is_some() => {
            refuse("the tool chooses a machine's MAC address".to_owned())
        }
        [interface] if config.networks.contains(&interface.host_dev_name) => {
            Ok(Some(interface.host_dev_name.clone()))
        }
        [interface] => refuse(format!(
            "host_dev_name {:?} is none of the networks configured: {}",
            interface.host_dev_name,
            config.networks.join(", ")
        )),
        _ => refuse("a machine has one at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_refused(spec: &VmSpec) -> &'static str {
        match Blueprint::from_spec(spec, &CliConfig::new("tool", "state"), false) {
            Err(VmRuntimeError::InvalidSpec { field, .. }) => field,
            other => panic!("it answered {other:?}"),
        }
    }

    #[test]
    fn what_such_machines_do_not_have_is_refused_by_name() {
        let spec = || VmSpec { image: Some("base".to_owned()), ..VmSpec::default() };
        assert_eq!(field_refused(&VmSpec::default()), "image");
        for image in ["-", "--privileged", "two words", ""] {
            assert_eq!(field_refused(&VmSpec { image: Some(image.to_owned()), ..spec() }), "image");
        }
        assert_eq!(field_refused(&VmSpec { vsock_cid: Some(3), ..spec() }), "vsock_cid");
        assert_eq!(field_refused(&VmSpec { rootfs_read_only: true, ..spec() }), "rootfs_read_only");
        let interface = crate::model::NetworkInterface::default();
        let spec = VmSpec { network_interfaces: vec![interface], ..spec() };
        assert_eq!(field_refused(&spec), "network_interfaces");
    }

    #[test]
    fn boot_args_follow_the_configured_command() {
        let config = CliConfig { command: vec!["sh".to_owned()], ..CliConfig::new("tool", "s") };
        let image = Some("base".to_owned());
        let spec = VmSpec { image, boot_args: " -c  true ".to_owned(), ..VmSpec::default() };
        let blueprint = Blueprint::from_spec(&spec, &config, false).unwrap();
        assert_eq!(blueprint.command, ["sh", "-c", "true"]);
    }
}
