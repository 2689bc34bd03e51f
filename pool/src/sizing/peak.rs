//! What bursts take out in the time of one restore: a floor that rises at once and falls slowly.
//!
//! Erlang's formula holds where claims come independently. Where they come together, a depth is
//! needed that no rate explains, and the only sign of it is that it was needed before. So the claims
//! of the last restore's time are counted; a count that independent claims would hardly ever show
//! is a burst, and lifts the floor to itself.
//!
//! Each claim beyond the floor lifts it by a step, each other claim lowers it by the promised miss
//! ratio of a step. With a promise of one in a thousand, a thousand claims that were served pay for
//! one that was not: the floor settles where the promise is just kept, whatever the bursts look
//! like. A burst of twice the floor lifts it to itself at once. Silence lowers it, too, after a
//! while: nobody pays for a pool that nobody asks.
//!
//! Invariants: a few counters whatever the rate; the floor is finite and never negative; the
//! passing of time only lowers it.

use std::time::Duration;

/// The time of a restore is counted in so many parts, and the one under way.
const PARTS: usize = 8;
/// No part is shorter.
const SHORTEST_PART: Duration = Duration::from_micros(10);
/// The counters begin anew when the restore time has changed by such a factor.
const DRIFT: f64 = 1.25;
/// A count is a burst if independent claims show it less often than once in e^11.5 (100,000).
const SURPRISE: f64 = 11.5;
/// And if it is so many times what the rate explains. Where the load is high, a rate that has just
/// changed would be surprising, too.
const TIMES_EXPLAINED: f64 = 2.0;
/// No rate is known so well that it explains fewer: a few claims after silence are no burst.
const LEAST_EXPLAINED: f64 = 0.05;
/// A burst of so many times the floor is news, and learnt at once.
const NEWS: f64 = 2.0;
/// What a claim beyond the floor lifts it by otherwise, in VMs. Half a VM overshoots less than a whole
/// one where bursts are of all sizes, and is as quick where they are of one.
const STEP: f64 = 0.5;
/// A pool that nobody asks keeps its floor so long,
const SILENCE: Duration = Duration::from_secs(120);
/// and then half of it after each such time.
const HALF_LIFE_SECONDS: f64 = 60.0;

/// Claims in the time of a restore, and what bursts of them made of the floor.
#[derive(Clone, Debug)]
pub(super) struct Peak {
    part: Duration,
    /// The number of the part under way, since boot.
    index: u64,
    counts: [u32; PARTS + 1],
    floor: f64,
    /// The floor before the burst that is under way.
    before: f64,
    claimed_at: Duration,
}

impl Peak {
    /// Nothing was seen until `now`.
    pub(super) fn new(now: Duration) -> Self {
        let counts = [0; PARTS + 1];
        Self { part: SHORTEST_PART, index: 0, counts, floor: 0.0, before: 0.0, claimed_at: now }
    }

    /// One claim came; a restore takes `restore_seconds`, in which the rate explains `explained`
    /// claims, and the pool promises `miss_ratio`.
    pub(super) fn claimed(
        &mut self,
        now: Duration,
        restore_seconds: f64,
        explained: f64,
        miss_ratio: f64,
    ) {
        let count = self.count(now, restore_seconds);
        let floor = self.floor(now);
        self.claimed_at = self.claimed_at.max(now);
        let is_beyond = count > floor && is_burst(count, explained);
        if !is_beyond {
            self.floor = (floor - STEP * miss_ratio).max(0.0);
            self.before = self.floor;
        } else if count >= NEWS * self.before {
            self.floor = count;
        } else {
            self.floor = (floor + STEP).min(count);
        }
    }

    /// The floor, in VMs.
    pub(super) fn floor(&self, now: Duration) -> f64 {
        let silent = now.saturating_sub(self.fades_at());
        if silent.is_zero() {
            return self.floor;
        }
        let kept = (-silent.as_secs_f64() / HALF_LIFE_SECONDS).exp2();
        // Less than half a VM is none, or one would be kept for as long as floats have digits.
        Some(self.floor * kept).filter(|it| *it > 0.5).unwrap_or(0.0)
    }

    /// When silence begins to lower the floor.
    pub(super) fn fades_at(&self) -> Duration {
        self.claimed_at.saturating_add(SILENCE)
    }

    /// The claims of about the last restore's time, this one included.
    fn count(&mut self, now: Duration, restore_seconds: f64) -> f64 {
        let part = Duration::try_from_secs_f64(restore_seconds / PARTS as f64);
        let part = part.unwrap_or(Duration::MAX).max(SHORTEST_PART);
        if part > self.part.mul_f64(DRIFT) || part.mul_f64(DRIFT) < self.part {
            self.part = part;
            self.index = number(now, part);
            self.counts = [0; PARTS + 1];
        }
        let index = number(now, self.part).max(self.index);
        let slots = self.counts.len() as u64;
        for passed in 1..=(index - self.index).min(slots) {
            self.counts[((self.index + passed) % slots) as usize] = 0;
        }
        self.index = index;
        let count = &mut self.counts[(index % slots) as usize];
        *count = count.saturating_add(1);
        self.counts.iter().copied().map(f64::from).sum()
    }
}

/// The number of the part of time that `now` lies in.
fn number(now: Duration, part: Duration) -> u64 {
    u64::try_from(now.as_nanos() / part.as_nanos().max(1)).unwrap_or(u64::MAX / 2)
}

/// Whether independent claims, `explained` of them on average, would hardly ever be so many
/// (Chernoff's bound of the Poisson distribution's tail).
fn is_burst(count: f64, explained: f64) -> bool {
    let explained = explained.max(LEAST_EXPLAINED);
    count > TIMES_EXPLAINED * explained
        && count * (count / explained).ln() - count + explained > SURPRISE
}
