//! What makes VMs, as it is written in a configuration: `[providers.NAME]`.
//!
//! The keys of all kinds lie flat beside `kind`, so that each has one name in the file and in
//! the environment; which kind has which is said in [`super::kinds`], and the check goes by it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::firecracker::{Jailer, Memory, Mmds};
use super::kinds::ProviderKind;

/// One provider. What is unset is as its kind has it by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What it is.
    pub kind: ProviderKind,
    /// Memory: VMs are kept in the state directory and outlive hearth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
    /// The program: a path, or a name to be looked up in `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// How long a VM's process may take from its start until it answers.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
    /// How long it may take to load a snapshot.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub restore_timeout: Option<Duration>,
    /// How long it may take to answer any other command.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub command_timeout: Option<Duration>,
    /// How long it may take to be gone once it is killed.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub kill_timeout: Option<Duration>,
    /// How much of a guest's console is kept, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_max_bytes: Option<u64>,
    /// QEMU: how guest code is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<Accel>,
    /// QEMU: its machine type, with its options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// QEMU: the numbers of the user and the group that it becomes, `UID:GID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// All but Firecracker: how long it may take to write a snapshot.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub snapshot_timeout: Option<Duration>,
    /// Firecracker: how VMs are locked in; unset: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jailer: Option<Jailer>,
    /// Firecracker: how a clone's memory is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_backend: Option<Memory>,
    /// Firecracker: the program that answers page faults, for `memory_backend = "uffd"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uffd_handler: Option<PathBuf>,
    /// Firecracker: the vsock port on which an agent listens; unset: guests are not talked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_port: Option<u32>,
    /// Firecracker: every VM gets a source of entropy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<bool>,
    /// Firecracker: the metadata service; unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmds: Option<Mmds>,
    /// Firecracker: set the guest's clock at a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_realtime: Option<bool>,
    /// Firecracker: every VM writes metrics into its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,
    /// Firecracker: how long it may take to write a snapshot of 1 GiB.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub snapshot_timeout_per_gib: Option<Duration>,
    /// Docker: the engine's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Of images: what VMs run, in place of the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Of images: the engine's or the tool's networks that a spec may name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Docker: the engine's runtime, as `runsc` or `kata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Docker: how many processes and threads a VM may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Of images: how long it may take to remove a VM.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub remove_timeout: Option<Duration>,
    /// Of command line tools: how often it is asked which VMs still run.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub watch_period: Option<Duration>,
}

/// How guest code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// By the hardware where that works, else in software.
    Auto,
    /// By the hardware.
    Kvm,
    /// In software.
    Tcg,
}

impl ProviderConfig {
    /// One of `kind`, with its defaults.
    pub const fn of(kind: ProviderKind) -> Self {
        Self {
            kind,
            durable: None,
            binary: None,
            start_timeout: None,
            restore_timeout: None,
            command_timeout: None,
            kill_timeout: None,
            console_max_bytes: None,
            accel: None,
            machine: None,
            user: None,
            snapshot_timeout: None,
            jailer: None,
            memory_backend: None,
            uffd_handler: None,
            agent_port: None,
            entropy: None,
            mmds: None,
            clock_realtime: None,
            metrics: None,
            snapshot_timeout_per_gib: None,
            socket: None,
            command: None,
            networks: None,
            runtime: None,
            pids_limit: None,
            remove_timeout: None,
            watch_period: None,
        }
    }

    /// Whether this can be one provider.
    ///
    /// # Errors
    /// The first key that is wrong, below that of the provider, and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        if let Some(stray) = self.out_of_place().into_iter().next() {
            let why = format!("a provider of kind {} has no such key", self.kind.as_str());
            return Err((stray, why));
        }
        let timeouts = [
            ("start_timeout", self.start_timeout),
            ("restore_timeout", self.restore_timeout),
            ("command_timeout", self.command_timeout),
            ("kill_timeout", self.kill_timeout),
            ("snapshot_timeout", self.snapshot_timeout),
            ("snapshot_timeout_per_gib", self.snapshot_timeout_per_gib),
            ("remove_timeout", self.remove_timeout),
            ("watch_period", self.watch_period),
        ];
        let is_never = |it: &&(&str, Option<Duration>)| it.1.is_some_and(|it| it.is_zero());
        if let Some((key, _)) = timeouts.iter().find(is_never) {
            return Err(((*key).to_owned(), "it must be positive".to_owned()));
        }
        if self.pids_limit.is_some_and(|limit| limit < 1) {
            return Err(("pids_limit".to_owned(), "it must be positive".to_owned()));
        }
        #[cfg(feature = "qemu")]
        if let Some(Err(why)) =
            self.user.as_ref().map(|it| it.parse::<hearth_providers::qemu::User>())
        {
            return Err(("user".to_owned(), why.to_owned()));
        }
        self.check_firecracker()
    }

    /// What is set that this kind has not.
    fn out_of_place(&self) -> Vec<String> {
        let has =
            |key: &str| key == "kind" || self.kind.keys().iter().any(|keys| keys.contains(&key));
        let set = serde_json::to_value(self).unwrap_or_default();
        let keys = set.as_object().into_iter().flat_map(|set| set.keys());
        keys.filter(|key| !has(key)).cloned().collect()
    }

    /// As the provider has it; `state` names the state directory.
    #[cfg(feature = "docker")]
    pub(crate) fn to_docker(&self, state: String) -> hearth_providers::docker::DockerConfig {
        use hearth_providers::docker::DockerConfig;
        let default = DockerConfig::new(state);
        DockerConfig {
            socket: self.socket.clone().unwrap_or(default.socket),
            command: self.command.clone().unwrap_or(default.command),
            networks: self.networks.clone().unwrap_or(default.networks),
            runtime: self.runtime.clone().or(default.runtime),
            pids_limit: self.pids_limit.unwrap_or(default.pids_limit),
            command_timeout: self.command_timeout.unwrap_or(default.command_timeout),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            snapshot_timeout: self.snapshot_timeout.unwrap_or(default.snapshot_timeout),
            remove_timeout: self.remove_timeout.unwrap_or(default.remove_timeout),
            console_max_bytes: self.console_max_bytes.unwrap_or(default.console_max_bytes),
            state: default.state,
        }
    }

    /// As a command line tool's provider has it, by `default`.
    #[cfg(any(feature = "apple-container", feature = "smolvm"))]
    pub(crate) fn to_cli(
        &self,
        default: hearth_providers::cli::CliConfig,
    ) -> hearth_providers::cli::CliConfig {
        hearth_providers::cli::CliConfig {
            binary: self.binary.clone().unwrap_or(default.binary),
            command: self.command.clone().unwrap_or(default.command),
            networks: self.networks.clone().unwrap_or(default.networks),
            command_timeout: self.command_timeout.unwrap_or(default.command_timeout),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            snapshot_timeout: self.snapshot_timeout.unwrap_or(default.snapshot_timeout),
            remove_timeout: self.remove_timeout.unwrap_or(default.remove_timeout),
            watch_period: self.watch_period.unwrap_or(default.watch_period),
            state: default.state,
        }
    }

    /// As the provider has it.
    #[cfg(feature = "qemu")]
    pub(crate) fn to_qemu(&self) -> hearth_providers::qemu::QemuConfig {
        use hearth_providers::qemu::{Accel as QemuAccel, QemuConfig};
        let default = QemuConfig::default();
        QemuConfig {
            binary: self.binary.clone().unwrap_or(default.binary),
            accel: match self.accel {
                None | Some(Accel::Auto) => QemuAccel::Auto,
                Some(Accel::Kvm) => QemuAccel::Kvm,
                Some(Accel::Tcg) => QemuAccel::Tcg,
            },
            machine: self.machine.clone().unwrap_or(default.machine),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            restore_timeout: self.restore_timeout.unwrap_or(default.restore_timeout),
            snapshot_timeout: self.snapshot_timeout.unwrap_or(default.snapshot_timeout),
            command_timeout: self.command_timeout.unwrap_or(default.command_timeout),
            kill_timeout: self.kill_timeout.unwrap_or(default.kill_timeout),
            console_max_bytes: self.console_max_bytes.unwrap_or(default.console_max_bytes),
            // Looked at when the configuration was read.
            user: self.user.as_ref().and_then(|user| user.parse().ok()),
        }
    }
}
