//! How long a restore takes: the mean, which is all that Erlang's formula asks for.
//!
//! It is counted from the wish, queueing for a slot included, since that is how long the pool lacks
//! the VM. But the queue counts for no more than the restore itself: a host whose slots are short is
//! saturated, and a deeper pool would only make its queue longer, which would make the pool deeper.

use std::time::Duration;

/// The last so many restores make the mean.
const MEMORY: f64 = 256.0;
/// From so many restores on, one that took much longer is cut to `OUTLIER` times the mean: one that
/// hung says little of the others, and twenty say it loudly enough.
const SETTLED: f64 = 8.0;
const OUTLIER: f64 = 16.0;
/// What is taken for the mean as long as nobody knows better.
const UNKNOWN_SECONDS: f64 = 1.0;
/// A restore that takes no time at all would make a pool of nothing enough.
const LEAST_SECONDS: f64 = 1e-6;

/// The mean of the last restores.
#[derive(Clone, Debug)]
pub(super) struct Restores {
    mean_seconds: f64,
    count: f64,
}

impl Restores {
    /// None was seen yet. A `hint` weighs as much as one that was.
    pub(super) fn new(hint: Option<Duration>) -> Self {
        match hint {
            Some(hint) => Self { mean_seconds: hint.as_secs_f64(), count: 1.0 },
            None => Self { mean_seconds: UNKNOWN_SECONDS, count: 0.0 },
        }
    }

    /// One ended, `took` after the wish for it, of which it `queued` for a slot.
    pub(super) fn restored(&mut self, took: Duration, queued: Duration) {
        let served = took.saturating_sub(queued);
        let mut seconds = (served + queued.min(served)).as_secs_f64();
        if self.count >= SETTLED {
            seconds = seconds.min(self.mean_seconds().max(LEAST_SECONDS) * OUTLIER);
        }
        self.count = (self.count + 1.0).min(MEMORY);
        self.mean_seconds += (seconds - self.mean_seconds) / self.count;
    }

    /// The mean; nothing without a restore and without a hint.
    pub(super) fn mean(&self) -> Option<Duration> {
        let mean = Duration::try_from_secs_f64(self.mean_seconds).unwrap_or(Duration::MAX);
        (self.count > 0.0).then_some(mean)
    }

    /// The mean, or what stands for it; above zero.
    pub(super) fn mean_seconds(&self) -> f64 {
        self.mean_seconds.max(LEAST_SECONDS)
    }
}
