//! The binary itself with VMs of command line tools, on the fakes of the providers' own tests:
//! no tool is needed, and no virtualisation. This binary is the fakes, too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

mod apple;
mod artifacts;
#[path = "../../../providers/tests/cli_fake/mod.rs"]
mod cli_fake;
mod doctor;
mod kinds;
mod site;
mod smolvm;
mod terminal;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = cli_fake::run_if_asked() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Each waits for its tool most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(3));
    let cases = [smolvm::ALL, apple::ALL, artifacts::ALL, kinds::ALL, doctor::ALL];
    let trials = cases.into_iter().flatten().map(|(name, case)| {
        Trial::test(*name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
