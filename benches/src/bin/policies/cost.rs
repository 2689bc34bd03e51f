//! What the sizing costs: a claim and the depth after it, with a thousand pools, and the worst call.

use std::hint::black_box;
use std::time::Duration;

use hearth_benches::median;
use hearth_benches::policies::compare::PROMISE;
use hearth_benches::policies::random::Random;
use hearth_pool::sizing::Demand;
use tokio::time::Instant;

use super::demands::Demanded;

const POOLS: usize = 1_000;
const EVENTS: u32 = 200_000;
const BLOCKS: usize = 25;
/// On average over blocks, a claim and its depth may take so long.
const MOST: Duration = Duration::from_micros(2);

/// Measures both, prints the second, and judges the first. Blocks for about a second.
pub(crate) fn measure() -> Demanded {
    let mut random = Random::new(1);
    // Restores of 10 ms to 3 s; a tenth of the pools gets most of the claims.
    let mut pools: Vec<Demand> = (0..POOLS)
        .map(|_| {
            let seconds = 0.01 * 300_f64.powf(random.unit());
            Demand::with_restore_time(Duration::ZERO, Duration::from_secs_f64(seconds))
        })
        .collect();
    let mut now = Duration::ZERO;
    let mut block = |_| {
        // Drawn before, so that it is not measured.
        let events: Vec<(usize, Duration)> = (0..EVENTS)
            .map(|_| {
                now += Duration::from_secs_f64(random.exponential(1.0 / 50_000.0));
                ((random.unit().powi(4) * (POOLS - 1) as f64) as usize, now)
            })
            .collect();
        let begun = Instant::now();
        for (pool, now) in events {
            pools[pool].claimed(now);
            black_box(pools[pool].depth(now, &PROMISE));
        }
        begun.elapsed() / EVENTS
    };
    let each = median((0..BLOCKS).map(&mut block).collect());
    println!("sizing, the heaviest call, a depth of a million: {:?}\n", heaviest());
    Demanded {
        what: format!("sizing: a claim and its depth, {POOLS} pools, 50,000 claims/s"),
        shown: format!("{each:?}"),
        bound: format!("{MOST:?}"),
        is_met: each <= MOST || cfg!(debug_assertions),
    }
}

/// The depth for a load of nearly a million, computed anew at each call.
fn heaviest() -> Duration {
    let time = |turn: u32| {
        let mut demand = Demand::with_restore_time(Duration::ZERO, Duration::from_secs(3_600));
        (0..4_400).for_each(|_| demand.claimed(Duration::from_secs(u64::from(turn))));
        let begun = Instant::now();
        let depth = demand.depth(Duration::from_secs(u64::from(turn)), &PROMISE);
        let took = begun.elapsed();
        assert!((900_000..1 << 20).contains(&depth.promise_depth), "{depth:?}");
        took
    };
    median((0..25).map(time).collect())
}
