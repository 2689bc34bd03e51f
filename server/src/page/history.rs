//! How the acquires of each pool went over the last hour: one entry for each minute in which there were
//! some, taken from what the metrics count anyway. Recording costs nothing; a pool that is quiet, or gone,
//! has no entries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::manager::Manager;
use hearth_pool::metrics::HISTOGRAM_BOUNDS_SECONDS as BOUNDS;
use hearth_pool::metrics::recorder::Recorder;
use hearth_pool::tasks::TaskGroup;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// How often pools are looked at.
const PERIOD: Duration = Duration::from_secs(60);
/// Entries that count: as many minutes.
const MINUTES: u64 = 60;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    since: Instant,
    pools: Mutex<BTreeMap<String, Track>>,
}

/// Acquires, by how they ended, and the times of those that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    warm: u64,
    cold: u64,
    failed: u64,
    buckets: [u64; BOUNDS.len() + 1],
}

#[derive(Debug, Default)]
struct Track {
    last: Counts,
    /// With the number of the minute, the oldest first.
    minutes: VecDeque<(u64, Counts)>,
}

/// The last hour of a pool.
#[derive(Debug, Serialize)]
pub(super) struct Hour {
    warm: u64,
    cold: u64,
    failed: u64,
    /// Share of acquires that got a warm VM; unset when there were none.
    hit_ratio: Option<f64>,
    /// Half of the acquires that succeeded took no longer, as far as the buckets tell.
    p50_seconds: Option<f64>,
    /// 99 of 100 took no longer.
    p99_seconds: Option<f64>,
}

impl History {
    /// One that looks at the pools of `manager`, as a task of `tasks`.
    pub(super) fn follow(manager: &Arc<Manager>, tasks: &TaskGroup) -> Arc<Self> {
        let history = Arc::new(Self { since: Instant::now(), pools: Mutex::default() });
        let (kept, manager, stopping) =
            (Arc::clone(&history), Arc::clone(manager), tasks.stopping().clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    () = stopping.cancelled() => return,
                }
                let pools = manager.pools();
                let counted =
                    pools.iter().map(|pool| (pool.id.as_str(), counted(pool.id.as_str())));
                kept.note(counted.collect());
            }
        });
        history
    }

    fn minute(&self) -> u64 {
        self.since.elapsed().as_secs() / PERIOD.as_secs()
    }

    /// Notes what every pool there is has counted so far.
    fn note(&self, counted: BTreeMap<&str, Counts>) {
        let minute = self.minute();
        let mut pools = self.pools.lock();
        pools.retain(|pool, _| counted.contains_key(pool.as_str()));
        for (pool, counts) in counted {
            pools.entry(pool.to_owned()).or_default().note(minute, counts);
        }
    }

    /// The last hour of `pool`, up to now.
    pub(super) fn hour(&self, pool: &str) -> Hour {
        let counted = counted(pool);
        let minute = self.minute();
        let pools = self.pools.lock();
        let none = Track::default();
        pools.get(pool).unwrap_or(&none).hour(minute, counted)
    }
}

/// What the metrics have counted of `pool`.
fn counted(pool: &str) -> Counts {
    let of = |source: &str, result: &str| {
        let labels = [("pool", pool), ("source", source), ("result", result)];
        let recorder = Recorder::of_the_process();
        let buckets =
            recorder.and_then(|it| it.buckets("hearth_acquire_duration_seconds", &labels));
        buckets.unwrap_or_default()
    };
    let (warm, cold, failed) = (of("warm", "ok"), of("cold", "ok"), of("", "error"));
    Counts {
        warm: warm.iter().sum(),
        cold: cold.iter().sum(),
        failed: failed.iter().sum(),
        buckets: std::array::from_fn(|it| warm[it] + cold[it]),
    }
}

impl Counts {
    /// What came after `before`. A pool that was made anew counts from 0.
    fn since(self, before: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&before.buckets);
        let is_anew =
            self.failed < before.failed || pairs.into_iter().any(|(now, then)| now < then);
        let before = if is_anew { Self::default() } else { *before };
        Self {
            warm: self.warm.saturating_sub(before.warm),
            cold: self.cold.saturating_sub(before.cold),
            failed: self.failed - before.failed,
            buckets: std::array::from_fn(|it| self.buckets[it] - before.buckets[it]),
        }
    }

    fn add(&mut self, more: &Self) {
        self.warm += more.warm;
        self.cold += more.cold;
        self.failed += more.failed;
        self.buckets.iter_mut().zip(&more.buckets).for_each(|(sum, it)| *sum += it);
    }

    /// The time that a share of `share` of them took at most: in its bucket as if they lay evenly there. The
    /// last bound for what is beyond it.
    fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.buckets.iter().sum();
        let rank = share * all as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (count, bound) in self.buckets.iter().zip(BOUNDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(from + (bound - from) * ((rank - below) / count));
            }
            (below, from) = (below + count, bound);
        }
        (all > 0).then_some(from)
    }
}

impl Track {
    fn note(&mut self, minute: u64, counted: Counts) {
        let new = counted.since(&self.last);
        self.last = counted;
        if new != Counts::default() {
            self.minutes.push_back((minute, new));
        }
        while self.minutes.front().is_some_and(|(at, _)| at + MINUTES < minute) {
            self.minutes.pop_front();
        }
    }

    fn hour(&self, minute: u64, counted: Counts) -> Hour {
        let mut sum = counted.since(&self.last);
        let recent = self.minutes.iter().filter(|(at, _)| at + MINUTES >= minute);
        recent.for_each(|(_, counts)| sum.add(counts));
        let all = sum.warm + sum.cold + sum.failed;
        Hour {
            warm: sum.warm,
            cold: sum.cold,
            failed: sum.failed,
            hit_ratio: (all > 0).then(|| sum.warm as f64 / all as f64),
            p50_seconds: sum.quantile(0.5),
            p99_seconds: sum.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(warm: u64, failed: u64) -> Counts {
        let mut counts = Counts { warm, failed, ..Counts::default() };
        counts.buckets[4] = warm;
        counts
    }

    #[test]
    fn an_hour_is_what_came_in_it() {
        let mut track = Track::default();
        track.note(1, counts(100, 0));
        track.note(2, counts(100, 0));
        assert_eq!(track.minutes.len(), 1, "a quiet minute has no entry");
        track.note(3, counts(130, 10));
        let hour = track.hour(3, counts(140, 10));
        assert_eq!((hour.warm, hour.cold, hour.failed), (140, 0, 10));
        assert_eq!(hour.hit_ratio, Some(140.0 / 150.0));
        // The first minute is no longer of the last hour.
        assert_eq!(track.hour(62, counts(140, 10)).warm, 40);
        track.note(200, counts(140, 10));
        assert_eq!(track.minutes.len(), 1, "{track:?}");
        assert_eq!(track.hour(300, counts(140, 10)).hit_ratio, None);
    }

    #[test]
    fn a_pool_that_was_made_anew_counts_from_nothing() {
        let mut track = Track::default();
        track.note(1, counts(100, 5));
        assert_eq!(track.hour(1, counts(3, 0)).warm, 103);
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let mut counts = Counts::default();
        assert_eq!(counts.quantile(0.5), None);
        counts.buckets[1] = 98;
        counts.buckets[20] = 2;
        let median = counts.quantile(0.5).unwrap();
        assert!((BOUNDS[0]..=BOUNDS[1]).contains(&median), "{median}");
        assert_eq!(counts.quantile(0.99), Some(10.0), "the last bound, of what is beyond it");
    }
}
