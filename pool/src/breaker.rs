//! Stops restoring what keeps failing: exponential backoff with jitter, and one try at a time
//! until one succeeds. Pure.

use std::time::Duration;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// From this many failures in a row on the breaker is open: waiters are told instead of kept.
const OPENS_AT: u32 = 3;

/// What failed in a row, and when to try again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    retry_at: Duration,
    reason: String,
}

impl Breaker {
    /// How many restores may be tried at `now`, of `wanted`.
    pub fn allows(&self, wanted: usize, under_way: usize, now: Duration) -> usize {
        match self.failures {
            0 => wanted,
            _ if now < self.retry_at || under_way > 0 => 0,
            _ => wanted.min(1),
        }
    }

    /// A restore succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A restore failed at `now`; `jitter` is in `0.0..1.0`.
    pub fn failed(&mut self, reason: String, now: Duration, jitter: f64) {
        // Those that were under way together fail together: that is one failure.
        if now < self.retry_at {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + pause.mul_f64(0.5 + 0.5 * jitter);
        self.reason = reason;
    }

    /// Enough has failed that callers should hear of it.
    pub const fn is_open(&self) -> bool {
        self.failures >= OPENS_AT
    }

    /// Failures in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the last one failed; empty when none did.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// How long until the next try; zero when it may be made.
    pub const fn retry_after(&self, now: Duration) -> Duration {
        self.retry_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_failure_is_tried_ever_more_rarely() {
        let mut breaker = Breaker::default();
        let mut now = Duration::from_secs(1);
        let mut tries = 0;
        while now < Duration::from_secs(601) {
            assert_eq!(breaker.allows(9, 0, now), if tries == 0 { 9 } else { 1 });
            breaker.failed("broken".to_owned(), now, 0.5);
            tries += 1;
            now += breaker.retry_after(now);
        }
        assert!(tries < 40, "{tries} tries in ten minutes");
        assert!(breaker.is_open());
        breaker.succeeded();
        assert_eq!(breaker.allows(9, 0, now), 9);
    }

    #[test]
    fn a_trial_is_alone() {
        let mut breaker = Breaker::default();
        breaker.failed("broken".to_owned(), Duration::from_secs(1), 0.0);
        let later = Duration::from_secs(9);
        assert_eq!(breaker.allows(4, 0, later), 1);
        assert_eq!(breaker.allows(4, 1, later), 0);
    }
}
