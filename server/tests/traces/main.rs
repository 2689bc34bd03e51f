//! The spans that the binary exports: a collector of the real protocol takes them from a hearth of its own,
//! with the memory provider, with QEMU and a Docker Engine where these are, and with the fakes of the other providers'
//! own tests: this binary is these, too.
//!
//! What was taken is printed as a tree: `make trace` shows it. Without QEMU or docker its cases are ignored with the
//! reason; `HEARTH_REQUIRE=qemu,docker` makes that a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

mod bad_days;
mod cases;
#[path = "../../../providers/tests/cli_fake/mod.rs"]
mod cli_fake;
mod collector;
#[path = "../../../providers/tests/docker_engine/mod.rs"]
mod docker_engine;
#[path = "../../../providers/tests/firecracker_fake/mod.rs"]
mod firecracker_fake;
#[path = "../processes/hearth.rs"]
#[allow(dead_code, reason = "each test binary uses the part that it needs")]
mod hearth;
#[path = "../processes/running.rs"]
mod running;
mod steps;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    firecracker_fake::run_if_asked();
    if let Some(code) = cli_fake::run_if_asked() {
        return code;
    }
    let mut trials =
        running::trials(steps::of_docker(), "docker", docker_engine::missing("docker"));
    let all = cases::all().into_iter().chain(bad_days::all()).chain(steps::of_fakes());
    trials.extend(running::trials(all, "qemu", hearth::missing_qemu_host()));
    running::run_all(trials)
}
