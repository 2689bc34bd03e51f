//! hearth killed at every system call of what it does: counted with strace, then SIGKILL injected at
//! one after the other, hearth started again, and looked at.
//!
//! This binary is the hearth, too: the server of the library on a runtime with one thread for calls and
//! one for what blocks, so that what is done is one thread's system calls, in one order. VMs are of the
//! memory provider made durable: they outlive the kill. With `HEARTH_KILLS=qemu` they are real ones.
//!
//! Without strace the cases are ignored with the reason; `HEARTH_REQUIRE=strace` makes that a failure.

mod driver;
mod freeze;
mod handoff;
mod host;
mod recovery;
mod rollback;
mod strace;

use std::process::ExitCode;

use driver::Scene;
use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Answer<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    host::run_if_asked();
    let missing = strace::missing();
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|host| host.trim() == "strace");
    let trials: Vec<(&str, Run)> = vec![
        trial::<handoff::Handoff>(),
        trial::<handoff::Restore>(),
        trial::<handoff::Release>(),
        trial::<freeze::Freeze>(),
        trial::<rollback::Rollback>(),
        ("recovery", || wait(recovery::run())),
    ];
    let trials = trials.into_iter().map(|(name, run)| {
        let name = format!("{name}_killed_at_any_system_call");
        let run = move || run().map_err(|error| Failed::from(format!("{error}")));
        match &missing {
            Some(why) if is_required => {
                let why = format!("HEARTH_REQUIRE=strace, but {why}");
                Trial::test(name, move || Err(Failed::from(why)))
            }
            Some(why) => {
                println!("ignored {name}: {why}");
                Trial::test(name, run).with_ignored_flag(true)
            }
            None => Trial::test(name, run),
        }
    });
    // Each has as many hearths as there are cores.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    driver::print_sums();
    conclusion.exit_code()
}

type Run = fn() -> Outcome;

fn trial<S: Scene + 'static>() -> (&'static str, Run) {
    (S::NAME, || wait(driver::run::<S>()))
}

fn wait(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what().into()) }
}
