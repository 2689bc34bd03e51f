//! What only Firecracker has in a configuration: its tables, what must hold of its keys, and
//! how they become the provider's own.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::providers::ProviderConfig;

/// How a clone's memory is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// The kernel maps the snapshot's file.
    File,
    /// A program answers the guest's page faults.
    Uffd,
}

/// `[providers.NAME.jailer]`: that the table is there, be it empty, locks VMs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jailer {
    /// The program: a path, or a name to be looked up in `PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// The first user and group id that VMs get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_uid: Option<u32>,
    /// How many ids there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_count: Option<u32>,
    /// The cgroup hierarchy that `cgroups` are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_version: Option<CgroupVersion>,
    /// Limits of a VM's cgroup, as `file=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// The network namespace of all VMs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Limits of a VM's process, as `fsize=BYTES` or `no-file=COUNT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_limits: Vec<String>,
    /// A PID namespace for each VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_pid_ns: Option<bool>,
    /// The jailer leaves its session and its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemonize: Option<bool>,
}

/// The cgroup hierarchies that there are, written as `"1"` or `1`: the environment has no quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Number")]
pub enum CgroupVersion {
    /// One for each controller.
    #[serde(rename = "1")]
    V1,
    /// One for all.
    #[serde(rename = "2")]
    V2,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u8),
    Text(String),
}

impl TryFrom<Number> for CgroupVersion {
    type Error = String;

    fn try_from(number: Number) -> Result<Self, String> {
        let text = match number {
            Number::Number(number) => number.to_string(),
            Number::Text(text) => text,
        };
        match text.as_str() {
            "1" => Ok(Self::V1),
            "2" => Ok(Self::V2),
            _ => Err(format!("there is no cgroup version {text}: it is \"1\" or \"2\"")),
        }
    }
}

/// `[providers.NAME.mmds]`: that the table is there, be it empty, turns the service on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mmds {
    /// Guests may ask without a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_token: Option<bool>,
    /// Its address in the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
}

type Wrong = (String, String);

fn wrong(key: &str, why: impl Into<String>) -> Result<(), Wrong> {
    Err((key.to_owned(), why.into()))
}

impl ProviderConfig {
    /// What must hold of Firecracker's keys; unset ones are well.
    pub(super) fn check_firecracker(&self) -> Result<(), Wrong> {
        match (self.memory_backend, &self.uffd_handler) {
            (Some(Memory::Uffd), None) => {
                return wrong("memory_backend", "\"uffd\" needs a program: uffd_handler = PATH");
            }
            (None | Some(Memory::File), Some(_)) => {
                return wrong("uffd_handler", "nobody asks it: memory_backend is not \"uffd\"");
            }
            (Some(Memory::Uffd), Some(handler)) if !handler.is_absolute() => {
                return wrong("uffd_handler", "it must be an absolute path");
            }
            _ => {}
        }
        // The last number stands for any port.
        if self.agent_port.is_some_and(|port| port == 0 || port == u32::MAX) {
            return wrong("agent_port", format!("it must be 1 to {}", u32::MAX - 1));
        }
        if let Some(address) = self.mmds.as_ref().and_then(|mmds| mmds.ipv4_address)
            && !(address.is_link_local() && (1..=254).contains(&address.octets()[2]))
        {
            let why = "it must be a link-local address: 169.254.1.0 to 169.254.254.255";
            return wrong("mmds.ipv4_address", why);
        }
        self.jailer.as_ref().map_or(Ok(()), Jailer::check)
    }

    /// As the provider has it.
    #[cfg(feature = "firecracker")]
    pub(crate) fn to_firecracker(&self) -> hearth_providers::firecracker::FirecrackerConfig {
        use hearth_providers::firecracker::{FirecrackerConfig, MemoryBackend};
        let default = FirecrackerConfig::default();
        FirecrackerConfig {
            binary: self.binary.clone().unwrap_or(default.binary),
            jailer: self.jailer.as_ref().map(Jailer::to_provider),
            memory: match (self.memory_backend, &self.uffd_handler) {
                (Some(Memory::Uffd), Some(handler)) => {
                    MemoryBackend::Uffd { handler: handler.clone() }
                }
                _ => MemoryBackend::File,
            },
            agent_port: self.agent_port.or(default.agent_port),
            entropy: self.entropy.unwrap_or(default.entropy),
            mmds: self.mmds.as_ref().map(|mmds| hearth_providers::firecracker::Mmds {
                without_token: mmds.without_token.unwrap_or_default(),
                ipv4_address: mmds.ipv4_address,
            }),
            clock_realtime: self.clock_realtime.unwrap_or(default.clock_realtime),
            metrics: self.metrics.unwrap_or(default.metrics),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            restore_timeout: self.restore_timeout.unwrap_or(default.restore_timeout),
            snapshot_timeout_per_gib: self
                .snapshot_timeout_per_gib
                .unwrap_or(default.snapshot_timeout_per_gib),
            command_timeout: self.command_timeout.unwrap_or(default.command_timeout),
            kill_timeout: self.kill_timeout.unwrap_or(default.kill_timeout),
            console_max_bytes: self.console_max_bytes.unwrap_or(default.console_max_bytes),
            network_devices: default.network_devices,
        }
    }
}

impl Jailer {
    fn check(&self) -> Result<(), Wrong> {
        if self.uid_count == Some(0) {
            return wrong("jailer.uid_count", "it must be positive");
        }
        if self.first_uid == Some(0) {
            return wrong("jailer.first_uid", "0 is root: it would lock nothing in");
        }
        // The highest number there is means "no user" to the kernel.
        let (first, count) = self.uids();
        if first.checked_add(count).is_none() {
            let why = format!("{count} users from {first} on go beyond {}", u32::MAX - 1);
            let key = if self.uid_count.is_some() { "uid_count" } else { "first_uid" };
            return wrong(&format!("jailer.{key}"), why);
        }
        if let Some(odd) = self.cgroups.iter().find(|it| !is_cgroup_limit(it)) {
            let why = format!("{odd:?} is not FILE=VALUE, as \"memory.max=268435456\" is");
            return wrong("jailer.cgroups", why);
        }
        if let Some(odd) = self.resource_limits.iter().find(|it| !is_resource_limit(it)) {
            let why = format!("{odd:?} is neither \"fsize=BYTES\" nor \"no-file=COUNT\"");
            return wrong("jailer.resource_limits", why);
        }
        match &self.netns {
            Some(path) if !path.is_absolute() => {
                wrong("jailer.netns", "it must be an absolute path, as /var/run/netns/NAME")
            }
            _ => Ok(()),
        }
    }

    /// The first user id and how many there are.
    fn uids(&self) -> (u32, u32) {
        (self.first_uid.unwrap_or(FIRST_UID), self.uid_count.unwrap_or(UID_COUNT))
    }

    #[cfg(feature = "firecracker")]
    fn to_provider(&self) -> hearth_providers::firecracker::JailerConfig {
        use hearth_providers::firecracker::{CgroupVersion as Version, JailerConfig};
        let default = JailerConfig::default();
        let (first_uid, uid_count) = self.uids();
        JailerConfig {
            binary: self.binary.clone().unwrap_or(default.binary),
            first_uid,
            uid_count,
            cgroup_version: match self.cgroup_version {
                None => default.cgroup_version,
                Some(CgroupVersion::V1) => Version::V1,
                Some(CgroupVersion::V2) => Version::V2,
            },
            cgroups: self.cgroups.clone(),
            netns: self.netns.clone(),
            resource_limits: self.resource_limits.clone(),
            new_pid_ns: self.new_pid_ns.unwrap_or(default.new_pid_ns),
            daemonize: self.daemonize.unwrap_or(default.daemonize),
        }
    }
}

/// The provider's own defaults; a test compares.
const FIRST_UID: u32 = 100_000;
const UID_COUNT: u32 = 65_536;

/// `FILE=VALUE`, of which the file lies in the VM's own cgroup.
fn is_cgroup_limit(text: &str) -> bool {
    text.split_once('=').is_some_and(|(file, value)| {
        file.contains('.')
            && !file.contains(['/', '\\'])
            && !file.contains("..")
            && !value.is_empty()
            && !value.contains('=')
    })
}

fn is_resource_limit(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, value)| {
        ["fsize", "no-file"].contains(&name) && value.parse::<u64>().is_ok()
    })
}
