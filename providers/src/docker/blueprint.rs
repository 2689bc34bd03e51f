//! What a container is made from, as it is kept for the containers that are made from its commit.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use serde::{Deserialize, Serialize};

use super::config::DockerConfig;
use super::labels;
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::model::{RateLimits, VmSpec};

/// What is in memory and goes with the container: so a commit, which has what lies on the root disk,
/// leaves it out. It counts against the container's memory. Some engines forbid programs there
/// unless they are told otherwise.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
const TEMPORARY_OPTIONS: &str = "rw,exec,nosuid,nodev,mode=1777";

/// A container without its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blueprint {
    pub(super) image: String,
    vcpu_count: u32,
    mem_size_mib: u64,
    read_only: bool,
    /// The image's own when empty.
    command: Vec<String>,
    network: Option<String>,
}

impl Blueprint {
    /// Refuses what containers do not have, rather than to leave it out.
    pub(super) fn from_spec(spec: &VmSpec, config: &DockerConfig) -> Result<Self> {
        let refuse = |field, reason: &str| {
            Err(VmRuntimeError::InvalidSpec { field, reason: reason.to_owned() })
        };
        let without = "containers have none: name an image";
        if spec.kernel.is_some() {
            return refuse("kernel", without);
        }
        if spec.initrd.is_some() {
            return refuse("initrd", without);
        }
        if spec.rootfs.is_some() {
            return refuse("rootfs", without);
        }
        if !spec.extra_drives.is_empty() {
            return refuse("extra_drives", "containers have none");
        }
        if spec.rate_limits != RateLimits::default() {
            return refuse("rate_limits", "not for containers");
        }
        if spec.vsock_cid.is_some() {
            return refuse("vsock_cid", "containers have no vsock");
        }
        if spec.track_dirty_pages {
            return refuse("track_dirty_pages", "memory is not in snapshots of containers");
        }
        let Some(image) = spec.image.clone().filter(|image| !image.is_empty()) else {
            return refuse("image", "containers are made from one");
        };
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

    /// As this one, from another image.
    pub(super) fn with_image(&self, image: String) -> Self {
        Self { image, ..self.clone() }
    }

    /// The request that makes the container of `uid`: no rights and no network but what was
    /// asked for, and bounds on all that it can use up.
    pub(super) fn request(&self, uid: Uid, config: &DockerConfig) -> ContainerCreateBody {
        let mem_size_bytes = i64::try_from(self.mem_size_mib << 20).unwrap_or(i64::MAX);
        let console =
            [("max-size", config.console_max_bytes.to_string()), ("max-file", "2".into())];
        let console: HashMap<_, _> =
            console.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let temporary = TEMPORARY.map(|path| (path.to_owned(), TEMPORARY_OPTIONS.to_owned()));
        let host = HostConfig {
            nano_cpus: Some(i64::from(self.vcpu_count) * 1_000_000_000),
            memory: Some(mem_size_bytes),
            // Together with swap: there is none beyond it.
            memory_swap: Some(mem_size_bytes),
            pids_limit: Some(config.pids_limit),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            readonly_rootfs: Some(self.read_only),
            tmpfs: Some(temporary.into()),
            network_mode: Some(self.network.clone().unwrap_or_else(|| "none".to_owned())),
            runtime: config.runtime.clone(),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(console),
            }),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: (!self.command.is_empty()).then(|| self.command.clone()),
            // For whoever is connected to it; its program finds an input that says nothing.
            open_stdin: Some(true),
            labels: Some(labels::of_container(&config.state, uid)),
            // Some engines ask politely first when they are told to remove it by force.
            stop_timeout: Some(0),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

fn network(spec: &VmSpec, config: &DockerConfig) -> Result<Option<String>> {
    let refuse = |reason| Err(VmRuntimeError::InvalidSpec { field: "network_interfaces", reason });
    match spec.network_interfaces.as_slice() {
        [] => Ok(None),
        [interface] if interface.guest_mac.is_some() => {
            refuse("the engine chooses a container's MAC address".to_owned())
        }
        [interface] if config.networks.contains(&interface.host_dev_name) => {
            Ok(Some(interface.host_dev_name.clone()))
        }
        [interface] => refuse(format!(
            "host_dev_name {:?} is none of the networks configured: {}",
            interface.host_dev_name,
            config.networks.join(", ")
        )),
        _ => refuse("a container has one at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NetworkInterface;

    fn config() -> DockerConfig {
        DockerConfig {
            command: vec!["sh".to_owned()],
            networks: vec!["tenants".to_owned()],
            ..DockerConfig::new("state")
        }
    }

    fn spec() -> VmSpec {
        VmSpec { image: Some("base".to_owned()), ..VmSpec::default() }
    }

    fn field_refused(spec: &VmSpec) -> &'static str {
        match Blueprint::from_spec(spec, &config()) {
            Err(VmRuntimeError::InvalidSpec { field, .. }) => field,
            other => panic!("it answered {other:?}"),
        }
    }

    #[test]
    fn what_containers_do_not_have_is_refused_by_name() {
        assert_eq!(field_refused(&VmSpec::default()), "image");
        assert_eq!(field_refused(&VmSpec { kernel: Some("/k".into()), ..spec() }), "kernel");
        assert_eq!(field_refused(&VmSpec { rootfs: Some("/r".into()), ..spec() }), "rootfs");
        assert_eq!(field_refused(&VmSpec { vsock_cid: Some(3), ..spec() }), "vsock_cid");
        let rate_limits = RateLimits { disk_bytes_per_second: 1, ..RateLimits::default() };
        assert_eq!(field_refused(&VmSpec { rate_limits, ..spec() }), "rate_limits");
    }

    #[test]
    fn only_configured_networks_can_be_named() {
        let on = |name: &str| {
            let host_dev_name = name.to_owned();
            let interface = NetworkInterface { host_dev_name, ..NetworkInterface::default() };
            VmSpec { network_interfaces: vec![interface], ..spec() }
        };
        assert_eq!(field_refused(&on("host")), "network_interfaces");
        let made = |spec: &VmSpec| {
            let uid = Uid::from_random([1; 16]);
            let request = Blueprint::from_spec(spec, &config()).unwrap().request(uid, &config());
            request.host_config.unwrap().network_mode.unwrap()
        };
        assert_eq!(made(&on("tenants")), "tenants");
        assert_eq!(made(&spec()), "none");
    }

    #[test]
    fn boot_args_follow_the_configured_command() {
        let spec = VmSpec { boot_args: " -c  true ".to_owned(), ..spec() };
        let blueprint = Blueprint::from_spec(&spec, &config()).unwrap();
        assert_eq!(blueprint.command, ["sh", "-c", "true"]);
        let request = blueprint.request(Uid::from_random([1; 16]), &config());
        assert_eq!(request.cmd.unwrap(), ["sh", "-c", "true"]);
        let plain = Blueprint::from_spec(&self::spec(), &DockerConfig::new("state")).unwrap();
        assert_eq!(plain.request(Uid::from_random([1; 16]), &config()).cmd, None, "the image's");
    }
}
