//! What an operator can say about Firecracker.

use std::path::PathBuf;
use std::time::Duration;

use crate::local::network::HOST_DEVICES;

/// How Firecracker is run. The default suits a host that has it in its `PATH`; without a jailer
/// its processes have hearth's own rights, which is warned of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirecrackerConfig {
    /// The program: a path, or a name to be looked up in `PATH`.
    pub binary: PathBuf,
    /// How VMs are locked in; `None`: they are not.
    pub jailer: Option<JailerConfig>,
    /// How a clone's memory is filled.
    pub memory: MemoryBackend,
    /// The vsock port on which an agent listens in guests that have a vsock. `None`: guests are
    /// not talked to.
    pub agent_port: Option<u32>,
    /// Every VM gets a source of entropy.
    pub entropy: bool,
    /// VMs with network interfaces can ask the metadata service on the first of them.
    pub mmds: Option<Mmds>,
    /// Set the guest's clock to the host's at a restore, where the version can.
    pub clock_realtime: bool,
    /// Every VM writes Firecracker's metrics into its directory.
    pub metrics: bool,
    /// How long a Firecracker may take from its start until it answers.
    pub start_timeout: Duration,
    /// How long it may take to load a snapshot; its memory's size makes no difference.
    pub restore_timeout: Duration,
    /// How long it may take to write a snapshot of 1 GiB; of more, proportionally longer.
    pub snapshot_timeout_per_gib: Duration,
    /// How long it may take to answer any other call.
    pub command_timeout: Duration,
    /// How long it may take to be gone once it is killed.
    pub kill_timeout: Duration,
    /// How much of a guest's console is kept, at least; at most twice as much and what it writes
    /// in a second.
    pub console_max_bytes: u64,
    /// Where the kernel lists the host's network devices. TAP devices are looked for here before
    /// anything is started: Firecracker would silently make those that are not there. VMs in a
    /// network namespace of their own are not checked.
    pub network_devices: PathBuf,
}

/// How a clone's memory is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MemoryBackend {
    /// The kernel maps the snapshot's file.
    #[default]
    File,
    /// A program answers the guest's page faults. It is run for each clone as
    /// `PROGRAM SOCKET MEMORY_FILE`, listens on the socket and gets the userfaultfd there.
    Uffd {
        /// The program's path.
        handler: PathBuf,
    },
}

/// Firecracker's jailer: a root directory, a user and limits of its own for each VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailerConfig {
    /// The program: a path, or a name to be looked up in `PATH`.
    pub binary: PathBuf,
    /// The first user and group id of the range that VMs get theirs from.
    pub first_uid: u32,
    /// How many there are: no more VMs than these.
    pub uid_count: u32,
    /// Which cgroup hierarchy `cgroups` are of.
    pub cgroup_version: CgroupVersion,
    /// Limits, as `file=value`: `memory.max=268435456`, say.
    pub cgroups: Vec<String>,
    /// The network namespace of all VMs, as a path.
    pub netns: Option<PathBuf>,
    /// Limits of the process, as `fsize=BYTES` or `no-file=COUNT`.
    pub resource_limits: Vec<String>,
    /// A PID namespace for each VM.
    pub new_pid_ns: bool,
    /// The jailer leaves its session and its output; the console is then written by Firecracker.
    pub daemonize: bool,
}

/// The cgroup hierarchies that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One for each controller.
    V1,
    /// One for all.
    #[default]
    V2,
}

/// Firecracker's metadata service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mmds {
    /// Guests may ask without a token, as in version 1 of the service.
    pub without_token: bool,
    /// Its address in the guest; Firecracker's default when unset.
    pub ipv4_address: Option<std::net::Ipv4Addr>,
}

impl Default for FirecrackerConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from("firecracker"),
            jailer: None,
            memory: MemoryBackend::File,
            agent_port: None,
            entropy: true,
            mmds: None,
            clock_realtime: false,
            metrics: false,
            start_timeout: Duration::from_secs(10),
            restore_timeout: Duration::from_secs(30),
            snapshot_timeout_per_gib: Duration::from_secs(60),
            command_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(10),
            console_max_bytes: 1 << 20,
            network_devices: PathBuf::from(HOST_DEVICES),
        }
    }
}

impl JailerConfig {
    /// The jailer in `PATH`, with 65,536 users from 100,000 on and no limits.
    pub fn new() -> Self {
        Self {
            binary: PathBuf::from("jailer"),
            first_uid: 100_000,
            uid_count: 65_536,
            cgroup_version: CgroupVersion::V2,
            cgroups: Vec::new(),
            netns: None,
            resource_limits: Vec::new(),
            new_pid_ns: false,
            daemonize: false,
        }
    }
}

impl Default for JailerConfig {
    fn default() -> Self {
        Self::new()
    }
}
