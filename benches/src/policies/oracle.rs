//! The policy that nobody can have: it knows the rate that the claims are drawn from.

use std::collections::VecDeque;
use std::time::Duration;

use hearth_pool::sizing::{Promise, depth_for};

use super::policy::Policy;

/// Erlang's depth for the true rate of one restore ahead, and the true mean restore time.
///
/// That rate is the right one for what it orders, which is ready then, and too low a one for what
/// it retires while the rate falls, which is missing until then. The patient oracle therefore
/// retires only what is not needed until then either.
pub struct Oracle<'a> {
    /// (since, claims a second), in nanoseconds.
    rates: &'a [(u64, f64)],
    next: usize,
    ahead: Duration,
    promise: Promise,
    is_patient: bool,
    /// Depths from now on, each with the time that it begins at: they fall, the first one rules.
    ahead_of_us: VecDeque<(u64, usize)>,
    target: usize,
}

impl<'a> Oracle<'a> {
    /// Of a trace's `rates`; `restore` is the mean restore time.
    pub fn new(rates: &'a [(u64, f64)], restore: Duration, promise: Promise) -> Self {
        let ahead_of_us = VecDeque::new();
        Self { rates, next: 0, ahead: restore, promise, is_patient: false, ahead_of_us, target: 0 }
    }

    /// The same, patient.
    pub fn patient(rates: &'a [(u64, f64)], restore: Duration, promise: Promise) -> Self {
        Self { is_patient: true, ..Self::new(rates, restore, promise) }
    }
}

impl Policy for Oracle<'_> {
    fn target(&mut self, now: Duration, _stock: usize) -> usize {
        let then = (now + self.ahead).as_nanos() as u64;
        let now = now.as_nanos() as u64;
        while let Some((from, rate)) = self.rates.get(self.next).filter(|it| it.0 <= then) {
            let load = rate * self.ahead.as_secs_f64();
            self.target = depth_for(load, self.promise.miss_ratio, self.promise.max);
            self.next += 1;
            // The highest of a sliding window: what is lower and earlier never rules again.
            while self.is_patient && self.ahead_of_us.back().is_some_and(|it| it.1 <= self.target) {
                self.ahead_of_us.pop_back();
            }
            self.ahead_of_us.push_back((*from, self.target));
        }
        if !self.is_patient {
            self.ahead_of_us.clear();
            return self.target;
        }
        // One rules until its successor's time has come.
        while self.ahead_of_us.get(1).is_some_and(|it| it.0 <= now) {
            self.ahead_of_us.pop_front();
        }
        self.ahead_of_us.front().map_or(self.target, |it| it.1)
    }

    fn wakes_at(&self, now: Duration) -> Option<Duration> {
        let ordered = self
            .rates
            .get(self.next)
            .map(|it| Duration::from_nanos(it.0).saturating_sub(self.ahead));
        let retired = self.ahead_of_us.get(1).map(|it| Duration::from_nanos(it.0));
        ordered.into_iter().chain(retired).min().map(|it| it.max(now))
    }
}
