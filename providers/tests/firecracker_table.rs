//! One table of (state, request) -> (answer, fate), run on the fake Firecracker and on the real.
//!
//! The fake is held against a recording of the real 1.16.1, so CI needs nothing. With
//! `HEARTH_FIRECRACKER` and `HEARTH_JAILER` (paths) the rows are run on the real programs, too,
//! and compared; `HEARTH_BLESS=1` then writes the recording anew.
//!
//! Left out: the state of one snapshot with the memory of another, which ends a real guest by
//! its virtio queues, and the tiny guest has none.

#[cfg(target_os = "linux")]
#[path = "firecracker_table/client.rs"]
mod client;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/driver.rs"]
mod driver;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/fake_alone.rs"]
mod fake_alone;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/fake_rig.rs"]
mod fake_rig;
#[cfg(target_os = "linux")]
#[path = "firecracker_fake/mod.rs"]
mod firecracker_fake;
#[cfg(target_os = "linux")]
#[path = "firecracker_guest/mod.rs"]
mod firecracker_guest;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/jailed.rs"]
mod jailed;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/outcome.rs"]
mod outcome;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/process.rs"]
mod process;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/recording.rs"]
mod recording;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/row.rs"]
mod row;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/rows_command.rs"]
mod rows_command;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/rows_snapshot.rs"]
mod rows_snapshot;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/rows_state.rs"]
mod rows_state;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/rows_wire.rs"]
mod rows_wire;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/states.rs"]
mod states;
#[cfg(target_os = "linux")]
#[path = "firecracker_table/table.rs"]
mod table;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    firecracker_fake::run_if_asked();
    table::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
