//! hearth killed at every system call of what it does: counted with strace, then SIGKILL injected at
//! one after the other, hearth started again, and looked at.
//!
//! This binary is the hearth, too: the server of the library on a runtime with one thread for blocking
//! calls, so that what a call does on the disk is one thread's system calls, in one order. VMs are of
//! the memory provider made durable: they outlive the kill.
//!
//! Without strace the case is ignored with the reason; `HEARTH_REQUIRE=strace` makes that a failure.

mod freeze;
mod host;
mod strace;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Answer<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    host::run_if_asked();
    let name = "a_freeze_killed_at_any_system_call_leaves_a_whole_artifact_or_none";
    let run = || run().map_err(|error| Failed::from(format!("{error}")));
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|host| host.trim() == "strace");
    let trial = match (strace::missing(), is_required) {
        (Some(why), true) => {
            let why = format!("HEARTH_REQUIRE=strace, but {why}");
            Trial::test(name, move || Err(Failed::from(why)))
        }
        (Some(why), false) => {
            println!("ignored {name}: {why}");
            Trial::test(name, run).with_ignored_flag(true)
        }
        (None, _) => Trial::test(name, run),
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn run() -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(freeze::run())
}
