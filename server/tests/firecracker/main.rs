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

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    firecracker_fake::run_if_asked();
    let is_root = rustix::process::geteuid().is_root();
    let trials = cases::all().into_iter().map(|case| {
        let run = move || run(case.run).map_err(|error| Failed::from(format!("{error:?}")));
        let is_missing = case.needs_root && !is_root;
        if is_missing {
            println!("ignored {}: the jailer needs root", case.name);
        }
        Trial::test(case.name, run).with_ignored_flag(is_missing)
    });
    // Two cores run two nodes at most.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(2);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(case: cases::Run) -> hearth::Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(case())
}
