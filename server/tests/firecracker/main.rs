//! The binary itself with VMs of Firecracker, killed and started again, on the fake Firecracker
//! of the provider's own tests: no host is needed but Linux. This binary is the fake, too.

mod cases;
#[path = "../../../providers/tests/firecracker_fake/mod.rs"]
mod firecracker_fake;
mod frozen;
#[path = "../processes/hearth.rs"]
#[allow(dead_code, reason = "each test binary uses the part that it needs")]
mod hearth;
mod rig;
#[path = "../processes/running.rs"]
mod running;

use std::process::ExitCode;

fn main() -> ExitCode {
    firecracker_fake::run_if_asked();
    let is_root = rustix::process::geteuid().is_root();
    let missing = (!is_root).then(|| "the jailer needs root".to_owned());
    running::run_all(running::trials(cases::all(), "root", missing))
}
