//! The service under a simulated world: seeds decide what is asked, what fails, and when it is
//! killed; a checker that reads only the history looks for what must never happen.
//!
//! - As a test it runs some seeds. `make sim` runs many, and fails, too, when too little happened.
//! - `HEARTH_SEED=n` runs one seed and prints the SHA-256 of its history, which is the same every
//!   time; with `HEARTH_HISTORY=1` the history, too.
//! - `HEARTH_SIM_SEEDS=n` runs so many seeds.
//!
//! A seed is one host ([`world`]) with some lives of the service. Each life has a runtime of its
//! own, of one thread and paused time, and ends with it: at a random time, or before or after a
//! random provider call ([`recorder`]). A kill may tear the journal's tail ([`tears`]), and the host
//! may be booted anew ([`host`]). What the provider does to the service is in [`weather`]; what
//! tenants and the operator do in [`tenant`] and [`operator`], through the generated clients, the
//! server's layers and its routes ([`wire`]); what must hold in [`checker`], with [`truth`],
//! [`claims`], [`kept`], [`frozen`] and [`line`](mod@line).

mod checker;
mod claims;
mod counts;
mod env;
mod forged;
mod frozen;
mod history;
mod host;
mod kept;
mod lease;
mod line;
mod mutants;
mod operator;
mod panics;
mod recorder;
mod tears;
mod tenant;
mod truth;
mod weather;
mod wire;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;

use counts::Counts;
use history::Event;

/// How many seeds a plain test runs.
const SEEDS: u64 = 50;
/// How many events before a violation are shown.
const SHOWN: usize = 40;

fn main() -> ExitCode {
    panics::listen();
    if let Some(hunted) = mutants::asked_for() {
        return done(hunted);
    }
    if std::env::var_os("HEARTH_MUTANTS").is_some() {
        return done(mutants::all());
    }
    if let Some(seed) = number("HEARTH_SEED") {
        return done(one(seed));
    }
    if let Some(seeds) = number("HEARTH_SIM_SEEDS") {
        return done(many(seeds).and_then(|counts| enough(seeds, &counts)));
    }
    let trials = vec![
        Trial::test("seeds_keep_the_invariants", || Ok(many(SEEDS).map(drop)?)),
        Trial::test("a_seed_repeats_its_history", repeats),
        Trial::test("the_checker_finds_what_is_forged", || Ok(forged::all_are_found()?)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn done(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed, and says what came of it.
fn one(seed: u64) -> Result<(), String> {
    let (events, hash) = world::run(seed);
    if std::env::var_os("HEARTH_HISTORY").is_some() {
        events.iter().for_each(|event| println!("{event}"));
    }
    println!("seed {seed}: {} events, SHA-256 {hash}", events.len());
    show(&judge(seed, &events)?);
    Ok(())
}

/// Runs the seeds from 0 on; the first violation of each is told.
fn many(seeds: u64) -> Result<Counts, String> {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Counts::default()));
    let failures = Mutex::new(std::collections::BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match judge(seed, &world::run(seed).0) {
                        Ok(counts) => total.lock().add(&counts),
                        Err(why) => drop(failures.lock().insert(seed, why)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    match failures.first_key_value() {
        None => Ok(total.into_inner()),
        Some((_, first)) => {
            let seeds: Vec<_> = failures.keys().map(u64::to_string).collect();
            Err(format!("{first}\nseeds that failed: {}", seeds.join(" ")))
        }
    }
}

/// Everything that a simulation is for has happened often enough.
fn enough(seeds: u64, counts: &Counts) -> Result<(), String> {
    let each = counts.all().map(|(what, count, _)| format!("{count} {what}"));
    println!("sim: {seeds} seeds, {}: 0 violations", each.join(", "));
    let mut all = counts.all().into_iter();
    let rare = all.find(|(_, count, percent)| count * 100 < seeds * percent);
    rare.map_or(Ok(()), |(what, count, _)| Err(format!("only {count} {what} in {seeds} seeds")))
}

fn show(counts: &Counts) {
    counts.all().into_iter().for_each(|(what, count, _)| println!("{count:>8} {what}"));
}

fn judge(seed: u64, events: &[Event]) -> Result<Counts, String> {
    checker::check(events).map_err(|violation| {
        let from = violation.event.saturating_sub(SHOWN);
        let to = (violation.event + 1).min(events.len());
        let shown = events[from..to].iter().map(|event| format!("{event}\n"));
        let (end, why) = (shown.collect::<String>(), violation.why);
        format!("{end}seed {seed}, event {}: {why}\nHEARTH_SEED={seed} repeats it", violation.event)
    })
}

fn repeats() -> Result<(), Failed> {
    for seed in [3, 17, 40, 1_000_003] {
        let (first, second) = (world::run(seed), world::run(seed));
        if first.1 != second.1 {
            let mut pairs = first.0.iter().zip(&second.0);
            let differs = pairs.find(|(a, b)| a.to_string() != b.to_string());
            return Err(format!("seed {seed} was not repeated: {differs:?}").into());
        }
    }
    Ok(())
}
