//! The kinds of providers that this server has, and what sets each apart in a configuration.

use serde::{Deserialize, Serialize};

/// A kind of provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// VMs in name only; needs nothing.
    Memory,
    /// Real VMs, by QEMU.
    #[cfg(feature = "qemu")]
    Qemu,
    /// Real VMs, by Firecracker; needs KVM.
    #[cfg(feature = "firecracker")]
    Firecracker,
    /// Containers, by the Docker Engine or podman.
    #[cfg(feature = "docker")]
    Docker,
    /// Containers in VMs, by Apple's container tool; needs macOS.
    #[cfg(feature = "apple-container")]
    #[serde(alias = "macos-container")]
    #[value(alias = "macos-container")]
    AppleContainer,
    /// Real VMs, by smolvm; needs hardware virtualisation.
    #[cfg(feature = "smolvm")]
    #[serde(alias = "smolmachines")]
    #[value(alias = "smolmachines")]
    Smolvm,
}

/// What the default template boots on a kind of provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultGuest {
    /// Nothing: VMs are in name only.
    NotNeeded,
    /// The guest that `scripts/guest` builds.
    #[cfg(feature = "qemu")]
    Shipped,
    /// A kernel that the configuration names: the shipped one is compressed.
    #[cfg(feature = "firecracker")]
    OwnKernel,
    /// A container image that the configuration names.
    #[cfg(any(feature = "docker", feature = "apple-container", feature = "smolvm"))]
    OwnImage,
}

/// What is said of one kind.
struct Facts {
    name: &'static str,
    default_guest: DefaultGuest,
    /// Its guests' agents are reached by a vsock, which both provider and template must have.
    has_agent_by_vsock: bool,
    /// The keys that it has beside `kind`.
    keys: &'static [&'static [&'static str]],
}

/// What every kind has that runs VMs as processes.
#[cfg(any(feature = "qemu", feature = "firecracker"))]
const OF_PROCESSES: &[&str] = &[
    "binary",
    "start_timeout",
    "restore_timeout",
    "command_timeout",
    "kill_timeout",
    "console_max_bytes",
];

/// What every kind has that makes VMs of container images.
#[cfg(any(feature = "docker", feature = "apple-container", feature = "smolvm"))]
const OF_IMAGES: &[&str] = &[
    "command",
    "networks",
    "start_timeout",
    "command_timeout",
    "snapshot_timeout",
    "remove_timeout",
];

/// What every kind has that is driven by a command line tool.
#[cfg(any(feature = "apple-container", feature = "smolvm"))]
const OF_TOOLS: &[&str] = &["binary", "watch_period"];

const MEMORY: Facts = Facts {
    name: "memory",
    default_guest: DefaultGuest::NotNeeded,
    has_agent_by_vsock: false,
    keys: &[&["durable"]],
};

#[cfg(feature = "qemu")]
const QEMU: Facts = Facts {
    name: "qemu",
    default_guest: DefaultGuest::Shipped,
    has_agent_by_vsock: false,
    keys: &[OF_PROCESSES, &["accel", "machine", "snapshot_timeout", "user"]],
};

#[cfg(feature = "firecracker")]
const FIRECRACKER: Facts = Facts {
    name: "firecracker",
    default_guest: DefaultGuest::OwnKernel,
    has_agent_by_vsock: true,
    keys: &[
        OF_PROCESSES,
        &[
            "jailer",
            "memory_backend",
            "uffd_handler",
            "agent_port",
            "entropy",
            "mmds",
            "clock_realtime",
            "metrics",
            "snapshot_timeout_per_gib",
        ],
    ],
};

#[cfg(feature = "docker")]
const DOCKER: Facts = Facts {
    name: "docker",
    default_guest: DefaultGuest::OwnImage,
    has_agent_by_vsock: false,
    keys: &[OF_IMAGES, &["socket", "runtime", "pids_limit", "console_max_bytes"]],
};

#[cfg(feature = "apple-container")]
const APPLE_CONTAINER: Facts = Facts {
    name: "apple-container",
    default_guest: DefaultGuest::OwnImage,
    has_agent_by_vsock: false,
    keys: &[OF_IMAGES, OF_TOOLS],
};

#[cfg(feature = "smolvm")]
const SMOLVM: Facts = Facts {
    name: "smolvm",
    default_guest: DefaultGuest::OwnImage,
    has_agent_by_vsock: false,
    keys: &[OF_IMAGES, OF_TOOLS],
};

impl ProviderKind {
    /// What there is when nothing is said: real VMs where this server can make any.
    pub const DEFAULT: Self = {
        #[cfg(feature = "qemu")]
        {
            Self::Qemu
        }
        #[cfg(not(feature = "qemu"))]
        {
            Self::Memory
        }
    };

    const fn facts(self) -> &'static Facts {
        match self {
            Self::Memory => &MEMORY,
            #[cfg(feature = "qemu")]
            Self::Qemu => &QEMU,
            #[cfg(feature = "firecracker")]
            Self::Firecracker => &FIRECRACKER,
            #[cfg(feature = "docker")]
            Self::Docker => &DOCKER,
            #[cfg(feature = "apple-container")]
            Self::AppleContainer => &APPLE_CONTAINER,
            #[cfg(feature = "smolvm")]
            Self::Smolvm => &SMOLVM,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// What it can boot of what there is without anybody's doing.
    pub(crate) const fn default_guest(self) -> DefaultGuest {
        self.facts().default_guest
    }

    pub(super) const fn has_agent_by_vsock(self) -> bool {
        self.facts().has_agent_by_vsock
    }

    pub(super) const fn keys(self) -> &'static [&'static [&'static str]] {
        self.facts().keys
    }
}
