//! What one pool has measured, and the depth that follows from it.

use std::time::Duration;

use super::peak::Peak;
use super::rate::Rate;
use super::restores::Restores;
use super::{Bound, Depth, Promise, depth_for, miss_ratio};

/// No depth beyond this is computed, so that one call has a bound.
const MOST: usize = 1 << 20;
/// The load has changed enough when it moved by this part of its square root, which is the unit
/// that a depth's reserve is measured in.
const ENOUGH: f64 = 0.02;
/// A wish for fewer VMs is heard when it was never higher for between one and two such parts of a
/// restore's time: what is retired now is missing for as long as its successor takes.
const HELD_OF_RESTORE: f64 = 0.5;
/// A pool that nobody asked for so long needs nothing.
const IDLE: Duration = Duration::from_secs(300);
/// Falling depths are looked at no more often.
const PATIENCE: Duration = Duration::from_millis(250);

/// What one pool has measured: its claims, its restores, its bursts. A few hundred bytes.
#[derive(Clone, Debug)]
pub struct Demand {
    rate: Rate,
    restores: Restores,
    peak: Peak,
    held: Held,
    last_claim: Option<Duration>,
    last: Option<Answer>,
}

/// The last answer, and what it was for.
#[derive(Clone, Copy, Debug)]
struct Answer {
    depth: Depth,
    promise: Promise,
    at: Duration,
}

/// The highest depth of this part of time, and that of the part before.
#[derive(Clone, Copy, Debug)]
struct Held {
    begun: Duration,
    before: usize,
    now: usize,
}

impl Demand {
    /// Nothing was seen until `now`, not even a restore: one is taken to last a second.
    pub fn new(now: Duration) -> Self {
        Self {
            rate: Rate::new(now),
            restores: Restores::new(None),
            peak: Peak::new(now),
            held: Held { begun: now, before: 0, now: 0 },
            last_claim: None,
            last: None,
        }
    }

    /// The same with what a restore may take, from the template's build. It weighs as much as one
    /// measured restore.
    pub fn with_restore_time(now: Duration, restore_time: Duration) -> Self {
        Self { restores: Restores::new(Some(restore_time)), ..Self::new(now) }
    }

    /// One acquire asked for a VM, and found one or not. O(1).
    pub fn claimed(&mut self, now: Duration) {
        self.rate.claimed(now);
        self.last_claim = self.last_claim.max(Some(now));
        let (load, promised) = self.last.map_or((0.0, 0.0), |it| {
            // The load of before this claim: a burst must not explain itself.
            (it.depth.offered_load, it.promise.miss_ratio.clamp(0.0, 1.0))
        });
        let promised = if promised.is_nan() { 0.0 } else { promised };
        self.peak.claimed(now, self.restores.mean_seconds(), load, promised);
    }

    /// A restore ended `took` after the wish for it, of which it `queued` for a slot. O(1).
    ///
    /// Queueing counts for at most as long as the restore itself.
    pub fn restored(&mut self, took: Duration, queued: Duration) {
        self.restores.restored(took, queued);
    }

    /// What a restore takes on average, queueing included; nothing without one and without a hint.
    pub fn restore_time(&self) -> Option<Duration> {
        self.restores.mean()
    }

    /// The claims a second that are to be expected when a restore that begins now is ready. O(1).
    pub fn claims_per_second(&mut self, now: Duration) -> f64 {
        self.rate.advance(now);
        self.rate.estimate(self.restores.mean_seconds())
    }

    /// How many VMs should be warm, and why.
    ///
    /// Cheap enough for each event: the depth is only computed when the load has moved enough to
    /// matter, and that takes steps in the order of the square root of the depth, of which a
    /// million is the highest: some ten thousand steps at the very worst.
    pub fn depth(&mut self, now: Duration, promise: &Promise) -> Depth {
        let claims_per_second = self.claims_per_second(now);
        let offered_load = claims_per_second * self.restores.mean_seconds();
        let peak_depth = self.peak.floor(now).ceil() as usize;
        let turned = self.held.turn(now, self.hold());
        let is_idle = self.last_claim.is_none_or(|it| now.saturating_sub(it) >= IDLE);
        if let Some(last) = self.last.as_mut()
            && !turned
            && !is_idle
            && last.promise == *promise
            && last.depth.peak_depth == peak_depth
            && (offered_load - last.depth.offered_load).abs()
                < ENOUGH * last.depth.offered_load.sqrt()
        {
            last.at = now;
            return last.depth;
        }
        let fresh = if is_idle { 0 } else { depth_for(offered_load, promise.miss_ratio, MOST) };
        let promise_depth = self.held.raise(fresh);
        let needed = promise_depth.max(peak_depth);
        let wanted = needed.max(promise.min);
        let target = wanted.min(promise.max);
        let bound = match () {
            () if wanted > promise.max => Bound::Max,
            () if needed <= promise.min => Bound::Min,
            () if peak_depth > promise_depth => Bound::Peak,
            () => Bound::Promise,
        };
        let predicted_miss_ratio = miss_ratio(target, offered_load);
        let depth = Depth {
            target,
            wanted,
            promise_depth,
            peak_depth,
            bound,
            claims_per_second,
            offered_load,
            predicted_miss_ratio,
        };
        self.last = Some(Answer { depth, promise: *promise, at: now });
        depth
    }

    /// When the depth may fall though nothing happens: a driver asks again then. Nothing if it was
    /// never asked, or has nowhere to fall.
    pub fn decays_at(&self) -> Option<Duration> {
        let Answer { depth, promise, at } = self.last.as_ref()?;
        if depth.target.min(promise.max) <= promise.min.min(promise.max) {
            return None;
        }
        let turns_at = self.held.begun.saturating_add(self.hold());
        let falls_at = match depth.peak_depth {
            peak if peak >= depth.promise_depth => self.peak.fades_at().max(turns_at),
            _ => turns_at,
        };
        Some(falls_at.max(at.saturating_add(PATIENCE)))
    }

    fn hold(&self) -> Duration {
        let seconds = self.restores.mean_seconds() * HELD_OF_RESTORE;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Held {
    /// Begins another part if `part` has passed; whether that can change the answer.
    fn turn(&mut self, now: Duration, part: Duration) -> bool {
        let since = now.saturating_sub(self.begun);
        if since < part {
            return false;
        }
        let before = if since < part.saturating_mul(2) { self.now } else { 0 };
        let changed = self.before != before || self.now != 0;
        *self = Self { begun: now, before, now: 0 };
        changed
    }

    /// The highest of late, `depth` included.
    fn raise(&mut self, depth: usize) -> usize {
        self.now = self.now.max(depth);
        self.now.max(self.before)
    }
}
