//! What an operator can say about QEMU.

use std::path::PathBuf;
use std::time::Duration;

/// How guest code is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// By the hardware where a canary shows that it works, else in software.
    #[default]
    Auto,
    /// By the hardware; without it the backend cannot be made.
    Kvm,
    /// In software.
    Tcg,
}

/// How QEMU is run. The default suits every host that has it installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    /// The program: a path, or a name to be looked up in `PATH`.
    pub binary: PathBuf,
    /// How guest code is run.
    pub accel: Accel,
    /// QEMU's machine type, with its options: `q35`, or `virt` on ARM.
    pub machine: String,
    /// How long a QEMU may take from its start until it answers.
    pub start_timeout: Duration,
    /// How long it may take to load a snapshot.
    pub restore_timeout: Duration,
    /// How long it may take to write one.
    pub snapshot_timeout: Duration,
    /// How long it may take to answer any other command.
    pub command_timeout: Duration,
    /// How long it may take to be gone once it is killed.
    pub kill_timeout: Duration,
    /// How much of a guest's console is kept, at least; at most twice as much and what it writes
    /// in a second.
    pub console_max_bytes: u64,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from(format!("qemu-system-{}", std::env::consts::ARCH)),
            accel: Accel::Auto,
            machine: if cfg!(target_arch = "aarch64") { "virt" } else { "q35" }.to_owned(),
            start_timeout: Duration::from_secs(30),
            restore_timeout: Duration::from_secs(30),
            snapshot_timeout: Duration::from_secs(120),
            command_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(10),
            console_max_bytes: 1 << 20,
        }
    }
}
