//! Faults of the product on purpose, one after the other: the checker has to find each.
//!
//! Each runs in a process of its own, since a fault stays once it was selected: seed after seed,
//! until the checker says what is wrong. A seed in which the product panics instead does not count.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::Duration;

use hearth_pool::mutants::{self, Mutant};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::history::What;
use crate::{checker, world};

/// Names the fault that a process is to have.
const MUTANT: &str = "HEARTH_MUTANT";
/// How many seeds may miss a fault.
const SEEDS: u64 = 300;
/// A process that takes longer found nothing.
const LONGEST: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// Runs the fault that this process was started for, if it was.
pub(crate) fn asked_for() -> Option<Result<(), String>> {
    let name = std::env::var(MUTANT).ok()?;
    let Some(mutant) = Mutant::ALL.into_iter().find(|it| format!("{it:?}") == name) else {
        return Some(Err(format!("there is no mutant {name}")));
    };
    mutants::select(mutant);
    Some(hunt(&name))
}

/// Tries seeds until the checker finds something.
fn hunt(name: &str) -> Result<(), String> {
    let mut panics = 0;
    for seed in 0..SEEDS {
        let (events, _) = world::run(seed);
        let Err(violation) = checker::check(&events) else { continue };
        if matches!(events.get(violation.event).map(|it| &it.what), Some(What::Panicked(_))) {
            panics += 1;
            continue;
        }
        println!("seed {seed:>3}  {name}: {}", violation.why);
        return Ok(());
    }
    Err(format!("{name} is not caught by {SEEDS} seeds, of which {panics} panicked"))
}

/// Runs every fault.
///
/// # Errors
/// Those that were not caught.
pub(crate) fn all() -> Result<(), String> {
    let queue = Mutex::new(VecDeque::from(Mutant::ALL));
    let missed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().pop_front();
                    let Some(mutant) = next else { return };
                    if let Err(why) = one(mutant) {
                        eprintln!("{why}");
                        missed.lock().push(mutant);
                    }
                }
            });
        }
    });
    let (missed, all) = (missed.into_inner(), Mutant::ALL.len());
    println!("mutants: {all} faults of one line each: {} of {all} caught", all - missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {missed:?}")) }
}

fn one(mutant: Mutant) -> Result<(), String> {
    let started = std::env::current_exe().and_then(|program| {
        Command::new(program).env(MUTANT, format!("{mutant:?}")).stdin(Stdio::null()).spawn()
    });
    let mut child = started.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{mutant:?}: {status}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("{mutant:?} was not caught in {LONGEST:?}"))
}
