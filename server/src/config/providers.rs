//! What makes VMs, as it is written in a configuration: `[providers.NAME]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kinds of providers that this server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// VMs in name only; needs nothing.
    Memory,
    /// Real VMs, by QEMU.
    #[cfg(feature = "qemu")]
    Qemu,
}

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

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            #[cfg(feature = "qemu")]
            Self::Qemu => "qemu",
        }
    }
}

/// One provider. All but `kind` are of QEMU, and unset: its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What it is.
    pub kind: ProviderKind,
    /// The program: a path, or a name to be looked up in `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// `auto`, `kvm` or `tcg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<Accel>,
    /// QEMU's machine type, with its options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// How long a QEMU may take from its start until it answers.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
    /// How long it may take to load a snapshot.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub restore_timeout: Option<Duration>,
    /// How long it may take to write one.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub snapshot_timeout: Option<Duration>,
    /// How long it may take to answer any other command.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub command_timeout: Option<Duration>,
    /// How long it may take to be gone once it is killed.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub kill_timeout: Option<Duration>,
    /// How much of a guest's console is kept, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_max_bytes: Option<u64>,
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
            binary: None,
            accel: None,
            machine: None,
            start_timeout: None,
            restore_timeout: None,
            snapshot_timeout: None,
            command_timeout: None,
            kill_timeout: None,
            console_max_bytes: None,
        }
    }

    /// What is set that this kind has not.
    pub(crate) fn out_of_place(&self) -> Vec<String> {
        match self.kind {
            ProviderKind::Memory => {
                let bare = serde_json::to_value(Self::of(self.kind)).unwrap_or_default();
                let set = serde_json::to_value(self).unwrap_or_default();
                let keys = set.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
                let is_known = |key: &String| bare.get(key).is_some();
                keys.unwrap_or_default().into_iter().filter(|key| !is_known(key)).collect()
            }
            #[cfg(feature = "qemu")]
            ProviderKind::Qemu => Vec::new(),
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
        }
    }
}
