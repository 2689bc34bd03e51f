//! The binary itself, over its own gRPC, killed and started again: with real virtual machines
//! where there is QEMU, and with the memory provider everywhere.
//!
//! Without its host a case is ignored with the reason; `HEARTH_REQUIRE=qemu` makes that a failure.

mod budget;
mod cases;
mod confined;
mod hearth;
mod orphans;
mod restarts;
mod running;
mod scheduler;
mod unprivileged;

use std::process::ExitCode;

fn main() -> ExitCode {
    budget::stand_in_if_asked();
    let long = budget::all().into_iter().filter(|_| budget::is_asked_for());
    let ours = [
        cases::all(),
        confined::all(),
        orphans::all(),
        restarts::all(),
        scheduler::all(),
        unprivileged::all(),
    ];
    let all = ours.into_iter().flatten().chain(long);
    running::run_all(running::trials(all, "qemu", hearth::missing_qemu_host()))
}
