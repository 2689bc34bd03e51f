//! Shows that the contract's cases can fail: memory providers with one deviation each.
//!
//! Every deviant goes through the suite until a case fails, and the run names that case; one
//! that passes every case fails the run. A wrapper without a deviation has to pass them all.
//! With words as arguments, only the deviants whose names contain one of them are run.

#[path = "deviants/deaths.rs"]
mod deaths;
#[path = "deviants/deviant.rs"]
mod deviant;
#[path = "deviants/guests.rs"]
mod guests;
#[path = "deviants/locks.rs"]
mod locks;
#[path = "deviants/names.rs"]
mod names;
#[path = "deviants/races.rs"]
mod races;
#[path = "deviants/refusals.rs"]
mod refusals;
#[path = "deviants/restores.rs"]
mod restores;
#[path = "deviants/snapshots.rs"]
mod snapshots;
#[path = "deviants/table.rs"]
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_providers::conformance::{Fixture, Verdict, cases};
use parking_lot::Mutex;

use deviant::{Deviant, Deviation};

/// How long a case may take with a deviation, where some of them never end.
const PATIENCE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen: Vec<Deviation> = [
        table::ALL,
        refusals::ALL,
        names::ALL,
        restores::ALL,
        snapshots::ALL,
        guests::ALL,
        deaths::ALL,
        locks::ALL,
        races::ALL,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word)))
    .collect();
    if let Some((case, how)) = first_failure(|_| (), Duration::from_secs(60)) {
        println!("deviants: a provider without a deviation fails {case}: {how}");
        return ExitCode::FAILURE;
    }
    let next = AtomicUsize::new(0);
    let escaped = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // Most of the time they wait for what never comes.
        for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((name, deviate)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match first_failure(deviate, PATIENCE) {
                        Some((case, _)) => println!("deviant {name}: caught by {case}"),
                        None => escaped.lock().push(*name),
                    }
                }
            });
        }
    });
    let escaped = escaped.into_inner();
    println!("deviants caught: {} of {}", chosen.len() - escaped.len(), chosen.len());
    escaped.iter().for_each(|name| println!("deviant {name}: NOT CAUGHT"));
    if escaped.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first case that a provider with this deviation fails, and how.
fn first_failure(
    deviate: impl FnOnce(&mut Deviant),
    patience: Duration,
) -> Option<(&'static str, String)> {
    let fixture = Fixture::of_memory("deviant", None, |inner| {
        let mut deviant = Deviant::honest(inner);
        deviate(&mut deviant);
        Arc::new(deviant)
    });
    let mut fixture = fixture.expect("a memory provider needs nothing");
    fixture.patience = patience;
    let fixture = Arc::new(fixture);
    cases().find_map(|case| match case.run(&fixture) {
        Verdict::Failed(how) => Some((case.name, how)),
        Verdict::Passed | Verdict::Unsupported => None,
    })
}
