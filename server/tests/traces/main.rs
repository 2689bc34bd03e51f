//! The spans that the binary exports: a collector of the real protocol takes them from a hearth of its own,
//! with the memory provider everywhere and with QEMU where that is.
//!
//! What was taken is printed as a tree: `make trace` shows it. Without QEMU its case is ignored with the
//! reason; `HEARTH_REQUIRE=qemu` makes that a failure.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

mod bad_days;
mod cases;
mod collector;
#[path = "../processes/hearth.rs"]
#[allow(dead_code, reason = "each test binary uses the part that it needs")]
mod hearth;
mod tree;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let missing = hearth::missing_qemu_host();
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|host| host.trim() == "qemu");
    let all = cases::all().into_iter().chain(bad_days::all());
    let trials = all.map(|case| {
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
