//! Every policy on the same claims, and the fixed depth that does as well as ours.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hearth_pool::sizing::Promise;

use super::oracle::Oracle;
use super::outcome::Outcome;
use super::policy::{Autoscaler, Fixed, LowWater, Ours, Policy};
use super::scenario::Scenario;
use super::simulate::simulate;
use super::trace::{Trace, generate};

/// What ours promises in every simulation: one miss in a thousand, no minimum, no maximum that
/// could bind.
pub const PROMISE: Promise = Promise { miss_ratio: 0.001, min: 0, max: 100_000 };

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Seeds: each one is a sequence of claims and of restore times.
    pub seeds: u64,
    /// Claims that count, of each seed.
    pub claims: usize,
    /// Claims before them, while which the policies fill and learn.
    pub warm_up: usize,
}

/// One scenario's outcomes.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The product's.
    pub ours: Outcome,
    /// The smallest fixed depth that misses no more than ours, and its outcome.
    pub smallest_fixed: (usize, Outcome),
    /// One VM fewer than that.
    pub one_fewer: Outcome,
    /// The others, by name.
    pub others: Vec<(String, Outcome)>,
    /// Erlang's depth for the true rate, and the same that retires nothing too early.
    pub oracle: Outcome,
    /// See there.
    pub patient_oracle: Outcome,
    /// Ours where every batch was announced; only on traces that announce.
    pub announced: Option<Outcome>,
}

/// The depth at which a search ends.
const DEEPEST: usize = 4096;
const LOW_WATER: (usize, usize, Duration) = (16, 64, Duration::from_secs(1));

/// Runs every policy on `scenario`, on all cores. Blocks.
pub fn compare(scenario: &Scenario, extent: Extent) -> Comparison {
    let traces = traces(scenario, extent);
    let mean = Duration::from_secs_f64(scenario.host.restore.mean);
    let race = Race { scenario, warm_up: extent.warm_up, traces: &traces };
    let ours = race.run(|_| Ours::new(PROMISE, mean), false);
    let announced = traces.iter().any(|it| !it.announcements.is_empty());
    let (low, high, interval) = LOW_WATER;
    let smallest = smallest_fixed(&race, ours.misses());
    Comparison {
        smallest_fixed: (smallest, race.fixed(smallest)),
        one_fewer: race.fixed(smallest.saturating_sub(1)),
        others: vec![
            ("fixed 16".into(), race.fixed(16)),
            ("fixed 64".into(), race.fixed(64)),
            ("autoscaler".into(), race.run(|_| Autoscaler::default(), false)),
            (format!("low water {low}/{high}"), {
                race.run(|_| LowWater::new(low, high, interval), false)
            }),
        ],
        oracle: race.run(|it| Oracle::new(&it.rates, mean, PROMISE), false),
        patient_oracle: race.run(|it| Oracle::patient(&it.rates, mean, PROMISE), false),
        announced: announced.then(|| race.run(|_| Ours::new(PROMISE, mean), true)),
        ours,
    }
}

/// What ours does on `scenario`, alone. Blocks.
pub fn ours(scenario: &Scenario, extent: Extent) -> Outcome {
    let traces = traces(scenario, extent);
    let mean = Duration::from_secs_f64(scenario.host.restore.mean);
    let race = Race { scenario, warm_up: extent.warm_up, traces: &traces };
    race.run(|_| Ours::new(PROMISE, mean), false)
}

fn traces(scenario: &Scenario, extent: Extent) -> Vec<Trace> {
    let count = extent.warm_up + extent.claims;
    on_all_cores(extent.seeds as usize, |seed| {
        generate(&scenario.shape, count, scenario.notice(), seed as u64 + 1)
    })
}

/// The smallest depth with at most so many misses, by bisection.
fn smallest_fixed(race: &Race<'_>, misses: u64) -> usize {
    let is_enough = |depth| race.fixed(depth).misses() <= misses;
    let mut enough = 8;
    while enough < DEEPEST && !is_enough(enough) {
        enough *= 2;
    }
    let mut too_few = if enough == 8 { 0 } else { enough / 2 };
    while too_few + 1 < enough {
        let depth = usize::midpoint(too_few, enough);
        if is_enough(depth) {
            enough = depth;
        } else {
            too_few = depth;
        }
    }
    enough
}

/// The same claims for everybody.
struct Race<'a> {
    scenario: &'a Scenario,
    warm_up: usize,
    traces: &'a [Trace],
}

impl<'a> Race<'a> {
    fn run<P: Policy>(&self, policy: impl Fn(&'a Trace) -> P + Sync, announced: bool) -> Outcome {
        Outcome::of(on_all_cores(self.traces.len(), |seed| {
            let trace = &self.traces[seed];
            let mut policy = policy(trace);
            let host = self.scenario.host;
            simulate(&mut policy, trace, host, announced, self.warm_up, seed as u64 + 1)
        }))
    }

    fn fixed(&self, depth: usize) -> Outcome {
        self.run(|_| Fixed(depth), false)
    }
}

/// `work` for each number below `count`, in order, on as many threads as there are cores.
fn on_all_cores<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut done: Vec<(usize, T)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min(count)).map(|_| scope.spawn(take_turns)).collect();
        let joined = threads.into_iter().map(|it| it.join());
        // A panic of the simulation is ours.
        joined.flat_map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|it| it.0);
    done.into_iter().map(|it| it.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few seeds and claims, so that a debug build takes seconds: the full ones are `make policies`.
    const QUICK: Extent = Extent { seeds: 4, claims: 50_000, warm_up: 2_000 };

    #[test]
    fn the_promise_is_kept_where_demand_is_steady_and_where_it_comes_and_goes() {
        for scenario in Scenario::all().iter().filter(|it| it.must_keep_promise) {
            let outcome = ours(scenario, QUICK);
            let (ratio, _) = outcome.miss_ratio();
            assert!(ratio <= 0.0015, "{}: {ratio}", scenario.name);
        }
    }

    #[test]
    fn what_was_announced_is_not_missed() {
        let scenario = Scenario::all().into_iter().find(|it| it.name == "batches").unwrap();
        let outcome = compare(&scenario, Extent { seeds: 1, claims: 5_000, warm_up: 0 });
        assert_eq!(outcome.announced.map(|it| it.misses()), Some(0));
        assert!(outcome.ours.misses() > 0, "nothing announced, nothing known");
    }

    #[test]
    fn the_same_seeds_say_the_same() {
        let scenario = &Scenario::all()[0];
        let extent = Extent { seeds: 2, claims: 2_000, warm_up: 100 };
        assert_eq!(ours(scenario, extent), ours(scenario, extent));
    }

    #[test]
    fn the_smallest_fixed_depth_is_just_enough() {
        let scenario = &Scenario::all()[0];
        let found = compare(scenario, Extent { seeds: 2, claims: 20_000, warm_up: 0 });
        assert!(found.smallest_fixed.1.misses() <= found.ours.misses());
        assert!(found.one_fewer.misses() > found.ours.misses());
    }
}
