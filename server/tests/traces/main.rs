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
#[path = "../processes/running.rs"]
mod running;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    let all = cases::all().into_iter().chain(bad_days::all());
    running::run_all(all, "qemu", hearth::missing_qemu_host())
}
