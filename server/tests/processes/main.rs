//! The binary itself, over its own gRPC, killed and started again: with real virtual machines
//! where there is QEMU, and with the memory provider everywhere.
//!
//! Without its host a case is ignored with the reason; `HEARTH_REQUIRE=qemu` makes that a failure.

mod budget;
mod cases;
mod hearth;
mod orphans;
mod restarts;
mod scheduler;
mod unprivileged;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    budget::stand_in_if_asked();
    let missing = hearth::missing_qemu_host();
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|host| host.trim() == "qemu");
    let long = budget::all().into_iter().filter(|_| budget::is_asked_for());
    let ours =
        [cases::all(), orphans::all(), restarts::all(), scheduler::all(), unprivileged::all()];
    let trials = ours.into_iter().flatten().chain(long).map(|case| {
        let run = move || run(case.run).map_err(|error| Failed::from(format!("{error:?}")));
        match &missing {
            Some(why) if case.needs_qemu && required => {
                let why = format!("HEARTH_REQUIRE=qemu, but {why}");
                Trial::test(case.name, move || Err(Failed::from(why)))
            }
            Some(why) if case.needs_qemu => {
                println!("ignored {}: {why}", case.name);
                Trial::test(case.name, run).with_ignored_flag(true)
            }
            _ => Trial::test(case.name, run),
        }
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
