//! A token bucket: so many a second, and so many at once after a pause. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How often a second; positive.
    pub per_second: f64,
    /// How often at once after a pause; at least 1.
    pub burst: u32,
}

impl Rate {
    /// What is wrong with it, if anything is.
    pub fn check(&self) -> Option<&'static str> {
        match self {
            _ if !(self.per_second.is_finite() && self.per_second > 0.0) => {
                Some("per_second must be positive")
            }
            _ if self.burst == 0 => Some("burst must be at least 1"),
            _ => None,
        }
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// One that is full at `now`.
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = passed.mul_add(rate.per_second, self.tokens).min(f64::from(rate.burst));
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.tokens) / rate.per_second;
        // Rounded up: who comes back then finds one.
        Err(Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX) + Duration::from_nanos(1))
    }

    /// Nothing has been taken that has not come back.
    pub fn is_full(&self, rate: Rate, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        passed.mul_add(rate.per_second, self.tokens) >= f64::from(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10.0, burst: 3 };

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let mut now = Duration::from_secs(5);
        let mut bucket = TokenBucket::full(RATE, now);
        assert!((0..3).all(|_| bucket.take(RATE, now).is_ok()));
        let mut taken = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            taken += usize::from(bucket.take(RATE, now).is_ok());
        }
        assert!((99..=100).contains(&taken), "{taken} in ten seconds");
    }

    #[test]
    fn who_is_told_when_to_come_back_finds_one_then() {
        let now = Duration::from_secs(5);
        let mut bucket = TokenBucket::full(RATE, now);
        let wait = (0..9).find_map(|_| bucket.take(RATE, now).err()).unwrap();
        assert!(bucket.take(RATE, now + wait).is_ok());
        assert!(!bucket.is_full(RATE, now + wait));
        assert!(bucket.is_full(RATE, now + Duration::from_secs(1)));
    }
}
