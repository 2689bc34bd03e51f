//! The policies: what each of them wants to have warm.

use std::collections::VecDeque;
use std::time::Duration;

use hearth_pool::sizing::{Demand, Promise};

/// A rule for the depth of one pool. Times are since the trace's begin.
pub trait Policy {
    /// A claim came, found or not.
    fn claimed(&mut self, _now: Duration) {}

    /// A restore ended: `took` from the wish, of which it `queued` for a slot.
    fn restored(&mut self, _now: Duration, _took: Duration, _queued: Duration) {}

    /// How many to have, restores under way included; `stock` is how many there are.
    fn target(&mut self, now: Duration, stock: usize) -> usize;

    /// When to ask again though nothing happened.
    fn wakes_at(&self, _now: Duration) -> Option<Duration> {
        None
    }

    /// How many restores it runs at once, of the host's.
    fn parallel(&self, host: usize) -> usize {
        host
    }
}

/// The product's.
pub struct Ours {
    demand: Demand,
    promise: Promise,
}

impl Ours {
    /// With a promise, and what a restore took when the template was built.
    pub fn new(promise: Promise, restore_time: Duration) -> Self {
        Self { demand: Demand::with_restore_time(Duration::ZERO, restore_time), promise }
    }
}

impl Policy for Ours {
    fn claimed(&mut self, now: Duration) {
        self.demand.claimed(now);
    }

    fn restored(&mut self, _now: Duration, took: Duration, queued: Duration) {
        self.demand.restored(took, queued);
    }

    fn target(&mut self, now: Duration, _stock: usize) -> usize {
        self.demand.depth(now, &self.promise).target
    }

    fn wakes_at(&self, _now: Duration) -> Option<Duration> {
        self.demand.decays_at()
    }
}

/// Always the same depth.
pub struct Fixed(
    /// How many.
    pub usize,
);

impl Policy for Fixed {
    fn target(&mut self, _now: Duration, _stock: usize) -> usize {
        self.0
    }
}

/// A rate-driven autoscaler: every 15 s two VMs for each claim a second of the last minute, and
/// down only to the highest such number of the last five minutes.
#[derive(Default)]
pub struct Autoscaler {
    claims: u64,
    seen: VecDeque<u64>,
    wanted: VecDeque<usize>,
    target: usize,
    ticks: u64,
}

const SYNC: Duration = Duration::from_secs(15);
const PER_CLAIM_A_SECOND: f64 = 2.0;
const RATE_TICKS: usize = 4;
const STABLE_TICKS: usize = 20;

impl Policy for Autoscaler {
    fn claimed(&mut self, _now: Duration) {
        self.claims += 1;
    }

    fn target(&mut self, now: Duration, _stock: usize) -> usize {
        let ticks = now.as_nanos() as u64 / SYNC.as_nanos() as u64;
        if ticks > self.ticks || self.seen.is_empty() {
            self.ticks = ticks;
            self.seen.push_back(self.claims);
            if self.seen.len() > RATE_TICKS + 1 {
                self.seen.pop_front();
            }
            let ticks = (self.seen.len() - 1).max(1);
            let claims = self.claims - self.seen[0];
            let rate = claims as f64 / (SYNC.as_secs_f64() * ticks as f64);
            self.wanted.push_back(((rate * PER_CLAIM_A_SECOND).ceil() as usize).max(1));
            if self.wanted.len() > STABLE_TICKS {
                self.wanted.pop_front();
            }
            self.target = self.wanted.iter().copied().max().unwrap_or(1);
        }
        self.target
    }

    fn wakes_at(&self, _now: Duration) -> Option<Duration> {
        Some(SYNC * (self.ticks as u32 + 1))
    }
}

/// The nearest Rust peer's: when a look finds fewer than `low` it restores up to `high`, one after
/// the other, and looks again `interval` after the last was ready.
pub struct LowWater {
    low: usize,
    high: usize,
    interval: Duration,
    /// How many this look still has to restore; what claims take meanwhile is left to the next.
    missing: usize,
    looks_at: Duration,
}

impl LowWater {
    /// See the type.
    pub fn new(low: usize, high: usize, interval: Duration) -> Self {
        Self { low, high, interval, missing: 0, looks_at: Duration::ZERO }
    }
}

impl Policy for LowWater {
    fn restored(&mut self, now: Duration, _took: Duration, _queued: Duration) {
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0 {
            self.looks_at = now + self.interval;
        }
    }

    fn target(&mut self, now: Duration, stock: usize) -> usize {
        if self.missing == 0 && now >= self.looks_at {
            self.looks_at = now + self.interval;
            if stock < self.low {
                self.missing = self.high - stock;
                return self.high;
            }
        }
        stock
    }

    fn wakes_at(&self, _now: Duration) -> Option<Duration> {
        (self.missing == 0).then_some(self.looks_at)
    }

    fn parallel(&self, _host: usize) -> usize {
        1
    }
}
