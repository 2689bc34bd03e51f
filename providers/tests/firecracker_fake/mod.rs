//! A Firecracker of our own for tests: a real process that keeps state and answers as 1.16.1 does.
//!
//! A test binary calls [`run_if_asked`] first thing in `main` and [`install`]s the fake into a
//! directory: two scripts, `firecracker` and `jailer`, that start the test binary again in the
//! fake's role. So a provider spawns, adopts and kills it as it would the real one.
//!
//! What the fake decides it decides as the real one was seen to: the state machine, strict
//! bodies, one request at a time for the whole VMM, the quirks of the wire, and which error
//! leaves the process alive. The table of `firecracker_table` is run on both.
//!
//! What only the real one has: guests that execute, TAPs, seccomp. The fake's guest is a counter
//! and an agent; memory that a page fault handler fills it reads once, at the load. A state file
//! with another snapshot's memory ends the fake at once, as it ends a real guest with live virtio
//! queues; real tiny guests survive it.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

mod actions;
mod agent;
mod answer;
mod arguments;
mod bodies;
mod bodies_of_devices;
mod cgroup;
mod checksum;
mod console;
mod disk;
mod errors;
mod firecracker;
mod guest;
mod headers;
mod installation;
mod jail;
mod jailer;
mod load;
mod memory_file;
mod mmds;
mod preboot;
mod route;
mod runtime;
mod server;
mod settings;
mod state_file;
pub(crate) mod uffd;
mod vmm;
mod vsock;
mod wire;

#[allow(unused_imports, reason = "each test binary uses the part that it needs")]
pub(crate) use installation::{Installed, install, write_program};
#[allow(unused_imports, reason = "each test binary uses the part that it needs")]
pub(crate) use settings::{BeforeSocket, Fault, Settings, What};

use installation::Installation;

/// The first argument of a process that is to be the fake Firecracker.
const AS_FIRECRACKER: &str = "--fake-firecracker";
/// The first argument of a process that is to be the fake jailer.
const AS_JAILER: &str = "--fake-jailer";
/// The first argument of the process that a jailer left behind; its settings are already open.
const AS_JAILED: &str = "--fake-jailed";

/// Becomes the fake, and does not return, when this process was started for that.
pub(crate) fn run_if_asked() {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    if ![AS_FIRECRACKER, AS_JAILER, AS_JAILED].contains(&role.as_str()) {
        return;
    }
    // A panic in any thread is the end of the process, as in the real one.
    std::panic::set_hook(Box::new(|what| {
        eprintln!("the fake panicked: {what}");
        std::process::abort();
    }));
    let settings = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let installation = Installation::open(settings.as_ref());
    let code = match role.as_str() {
        AS_FIRECRACKER => firecracker::run(installation, &arguments),
        _ => jailer::run(installation, &arguments, role == AS_JAILED),
    };
    exit(code);
}

/// Ends the fake with `code`.
#[expect(clippy::disallowed_methods, reason = "threads of the fake never end by themselves")]
fn exit(code: i32) -> ! {
    std::process::exit(code);
}
