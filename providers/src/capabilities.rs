//! What a provider can and cannot do, as data: the pool, the conformance cases and the table
//! in the documentation read the same values.

use serde::Serialize;

/// What a stopped VM keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKeeps {
    /// Memory too: stop is a pause, and start goes on where it stood.
    Memory,
    /// Disks only: stop is a power-off, and start boots.
    Disk,
}

/// What a snapshot asks of a running VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunningSnapshot {
    /// Nothing: it is paused for a moment and goes on.
    Pauses,
    /// It must have been stopped by the caller.
    StopRequired,
}

/// What a provider can and cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// A VM can change its name. Without it only pools of depth 0 are possible.
    pub rename: bool,
    /// A VM can start from a snapshot.
    pub restore: bool,
    /// What `stop` keeps.
    pub stop_keeps: StopKeeps,
    /// A connection to the guest's channel lives through pause and resume.
    pub pause_keeps_channels: bool,
    /// Memory is in snapshots: a restore goes on where the VM stood.
    pub memory_in_snapshots: bool,
    /// Memory is in frozen artifacts.
    pub memory_in_artifacts: bool,
    /// A VM that was never started can be captured.
    pub snapshot_created: bool,
    /// What a snapshot asks of a running VM.
    pub snapshot_running: RunningSnapshot,
    /// The data of a snapshot can be read as a stream, to take it elsewhere.
    pub export: bool,
    /// A restore can replace network interfaces of the snapshot.
    pub network_overrides: bool,
    /// The memory of a restored VM can be read in before its guest touches it.
    pub prefault: bool,
    /// There is a byte channel to an agent in the guest.
    pub guest_channel: bool,
    /// Whoever has a VM can be connected to it: to that channel, or to its program's input and output.
    pub connect: bool,
    /// The guest's console can be read.
    pub console: bool,
    /// VMs have writable disks, of which a snapshot holds a copy.
    pub disks: bool,
    /// The death of a VM is reported to the observer as it happens, not only when looked at.
    pub reports_exits: bool,
    /// VMs live on when hearth ends, and are adopted at the next start.
    pub outlives_hearth: bool,
}

impl Capabilities {
    /// Those of a provider that has the seven verbs and three queries and nothing else.
    pub const fn minimal() -> Self {
        Self {
            rename: false,
            restore: false,
            stop_keeps: StopKeeps::Disk,
            pause_keeps_channels: false,
            memory_in_snapshots: false,
            memory_in_artifacts: false,
            snapshot_created: false,
            snapshot_running: RunningSnapshot::StopRequired,
            export: false,
            network_overrides: false,
            prefault: false,
            guest_channel: false,
            connect: false,
            console: false,
            disks: false,
            reports_exits: false,
            outlives_hearth: false,
        }
    }

    /// Those of a provider that can do everything.
    pub const fn full() -> Self {
        Self {
            rename: true,
            restore: true,
            stop_keeps: StopKeeps::Memory,
            pause_keeps_channels: true,
            memory_in_snapshots: true,
            memory_in_artifacts: true,
            snapshot_created: true,
            snapshot_running: RunningSnapshot::Pauses,
            export: true,
            network_overrides: true,
            prefault: true,
            guest_channel: true,
            connect: true,
            console: true,
            disks: true,
            reports_exits: true,
            outlives_hearth: true,
        }
    }
}
