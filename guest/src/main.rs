//! Init and agent of Hearth's small guest: the first process of a virtual machine that
//! exists to be snapshotted, restored, renamed and asked whether it is still the same.
//!
//! It brings the machine up ([`boot`]), prints `READY` on the console, and then answers one
//! line with one line on the guest channel for as long as the machine lives.
//!
//! Invariants:
//! - It never exits: the kernel panics when its first process does. Whatever fails is said
//!   on the console and tried again or done without.
//! - What it answers in `ping` is memory: a clone of a snapshot goes on where the snapshot
//!   stood, a machine that booted afresh starts from nothing.
//! - Run as anything but the first process it does nothing, because it mounts file systems
//!   and powers machines off.
//!
//! It is linked statically (`scripts/guest` passes the flags), since the guest has no libraries.

// What follows is Linux's: mounts, modules, epoll. Elsewhere only the pure parts compile.
#[cfg(target_os = "linux")]
mod agent;
#[cfg(target_os = "linux")]
mod boot;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod console;
#[cfg(target_os = "linux")]
mod device;
mod line;
mod request;
mod store;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        eprintln!("hearth-guest-agent is the init of a guest: it runs as process 1 only");
        return ExitCode::from(2);
    }
    let data_dir = boot::bring_up();
    let mut agent = agent::Agent::start(data_dir);
    let mut channel = channel::Channel::find();
    console::line("READY");
    channel.serve(&mut agent)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("hearth-guest-agent is the init of a Linux guest");
    ExitCode::from(2)
}
