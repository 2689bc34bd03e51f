//! Erlang's formula: every cell of the table of depths, and four points against a simulation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sizing::{depth_for, miss_ratio};

const RATES: [f64; 6] = [1.0, 10.0, 50.0, 100.0, 500.0, 1000.0];
const RATIOS: [f64; 3] = [0.01, 0.001, 0.0001];
/// By restore time in seconds: for each of `RATES` the depths for `RATIOS`.
#[rustfmt::skip]
const DEPTHS: [(f64, [[usize; 3]; 6]); 3] = [
    (0.03, [[2, 2, 3], [3, 4, 5], [6, 7, 9], [8, 10, 12], [24, 28, 32], [42, 47, 52]]),
    (0.3, [[3, 4, 5], [8, 10, 12], [24, 28, 32], [42, 47, 52], [170, 183, 194], [324, 344, 359]]),
    (2.0, [[7, 8, 10], [30, 35, 39], [117, 128, 137], [221, 238, 249], [1029, 1072, 1100], [2028, 2095, 2136]]),
];

#[test]
fn depths_are_those_of_the_table() {
    for (restore_seconds, by_rate) in DEPTHS {
        for (rate, depths) in RATES.into_iter().zip(by_rate) {
            for (ratio, depth) in RATIOS.into_iter().zip(depths) {
                let found = depth_for(rate * restore_seconds, ratio, 10_000);
                assert_eq!(found, depth, "{rate}/s, {restore_seconds} s, {ratio}");
            }
        }
    }
}

/// What 400,000 simulated claims have shown once, for a constant, an exponential and a log-normal
/// restore time: (claims a second, seconds, depth, formula).
const POINTS: [(f64, f64, usize, f64); 4] = [
    (10.0, 0.03, 2, 0.0335),
    (50.0, 0.03, 5, 0.0142),
    (100.0, 0.03, 8, 0.0081),
    (20.0, 0.5, 18, 0.0071),
];

#[test]
fn the_formula_is_what_a_simulation_of_lost_sales_shows() {
    for (rate, seconds, depth, expected) in POINTS {
        let formula = miss_ratio(depth, rate * seconds);
        assert!((formula - expected).abs() < 0.00006, "{formula} at {rate}/s, {seconds} s");
        for kind in 0..3 {
            let seen = simulated(rate, seconds, depth, kind);
            assert!((seen - formula).abs() < formula * 0.12, "{seen} for {formula}, {kind}");
        }
    }
}

/// Misses of 150,000 claims that come independently, where each hit orders a restore.
fn simulated(rate: f64, mean: f64, depth: usize, kind: u8) -> f64 {
    let mut random = Random(7);
    let (mut now, mut warm, mut misses) = (0.0, depth, 0);
    let mut restoring = BinaryHeap::new();
    for _ in 0..150_000 {
        now += -random.unit().ln() / rate;
        while restoring.peek().is_some_and(|Reverse(ready)| *ready <= nanos(now)) {
            restoring.pop();
            warm += 1;
        }
        if warm == 0 {
            misses += 1;
            continue;
        }
        warm -= 1;
        let took = match kind {
            0 => mean,
            1 => -random.unit().ln() * mean,
            // Log-normal, with a standard deviation of half the mean.
            _ => {
                let (radius, turn) = ((-2.0 * random.unit().ln()).sqrt(), random.unit());
                let normal = radius * (std::f64::consts::TAU * turn).cos();
                let variance = 1.25_f64.ln();
                mean * (variance.sqrt() * normal - variance / 2.0).exp()
            }
        };
        restoring.push(Reverse(nanos(now + took)));
    }
    f64::from(misses) / 150_000.0
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// A small generator: the tests' figures are the same everywhere.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        ((bits >> 12) + 1) as f64 / (1_u64 << 52) as f64
    }
}

#[test]
fn nothing_to_find_misses_all_and_nobody_who_asks_misses_nothing() {
    assert_eq!(miss_ratio(0, 0.0), 1.0);
    assert_eq!(miss_ratio(0, 5.0), 1.0);
    assert_eq!(miss_ratio(3, 0.0), 0.0);
    assert_eq!(miss_ratio(3, f64::NAN), 0.0);
    assert_eq!(miss_ratio(3, f64::INFINITY), 1.0);
    assert_eq!(depth_for(0.0, 0.001, 10), 0);
    assert_eq!(depth_for(f64::NAN, 0.001, 10), 0);
    assert_eq!(depth_for(f64::INFINITY, 0.001, 10), 10);
    assert_eq!(depth_for(5.0, 0.0, 10), 10);
    assert_eq!(depth_for(5.0, f64::NAN, 10), 10);
    assert_eq!(depth_for(5.0, 1.0, 10), 0);
    assert_eq!(depth_for(5.0, 0.001, 0), 0);
}

#[test]
fn a_promise_beyond_all_floats_still_has_a_depth() {
    for load in [0.1, 20.0, 3_000.0] {
        let depth = depth_for(load, 1e-200, 1 << 20);
        assert!(depth > depth_for(load, 1e-20, 1 << 20) && depth < 1 << 20, "{load}: {depth}");
    }
}
