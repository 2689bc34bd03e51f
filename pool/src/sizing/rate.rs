//! How many claims a second come, now and when a restore that is ordered now will be ready.
//!
//! A short window follows a change at once and is noisy; a long one is exact and late. So claims are
//! counted in windows that double in length, each forgetting exponentially, and the estimate comes
//! from the *longest window that no shorter one contradicts* (the intersection of confidence
//! intervals). Steady demand is thereby measured over a minute, a jump within a fraction of a
//! second, and nobody says in advance which of them it will be.
//!
//! A window of length `t` that forgets exponentially shows, on a ramp, the rate of `t` ago; the next
//! one, twice as long, that of `2 t` ago. The line through both is followed to the present, and to
//! the time when a restore that begins now is ready. Poisson counts say how exact that is.
//!
//! Invariants: one number for each window, whatever the rate; no estimate is negative or not a
//! number; between claims the counts only fall.

use std::time::Duration;

/// How many windows there are.
const WINDOWS: usize = 9;
/// The longest, in seconds; each other one has half the length of the next. The shortest is 0.25 s.
const LONGEST_SECONDS: f64 = 64.0;
/// A window says that the rate is at least what it shows less so many standard deviations.
const BELOW: f64 = 1.2;
/// And at most what it shows and so many more.
const ABOVE: f64 = 0.8;
/// Windows shorter than this part of a restore are not asked: nothing that is ordered now could
/// follow what they see.
const OF_RESTORE: f64 = 0.5;
/// A window of which fewer claims than this are left is taken to have as many: the rate of what
/// was never seen is not known exactly.
const FEWEST_CLAIMS: f64 = 0.5;

/// The claims of the last minutes, in windows.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    at: Duration,
    /// Claims by window, shortest first, each weighted by `exp(-age / length)`.
    counts: [f64; WINDOWS],
}

impl Rate {
    /// Nothing was seen until `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { at: now, counts: [0.0; WINDOWS] }
    }

    /// One claim came.
    pub(super) fn claimed(&mut self, now: Duration) {
        self.advance(now);
        for count in &mut self.counts {
            *count += 1.0;
        }
    }

    /// Forgets what time made it forget.
    pub(super) fn advance(&mut self, now: Duration) {
        let since = now.saturating_sub(self.at);
        if since.is_zero() {
            return;
        }
        self.at = now;
        // What half as long a window keeps is the square of it: one exponential for all.
        let mut kept = (-since.as_secs_f64() / LONGEST_SECONDS).exp();
        for count in self.counts.iter_mut().rev() {
            *count *= kept;
            kept *= kept;
        }
    }

    /// Claims a second, `ahead_seconds` after the last that was told.
    pub(super) fn estimate(&self, ahead_seconds: f64) -> f64 {
        let mut length = LONGEST_SECONDS / (1_u64 << (WINDOWS - 1)) as f64;
        let (mut least, mut most) = (0.0_f64, f64::INFINITY);
        let mut estimate = 0.0;
        for (index, pair) in self.counts.windows(2).enumerate() {
            let &[near, far] = pair else { break };
            let is_last = index + 2 == WINDOWS;
            if length >= ahead_seconds * OF_RESTORE || is_last {
                let (level, deviation) = line(near, far, length, ahead_seconds);
                least = least.max(level - BELOW * deviation);
                most = most.min(level + ABOVE * deviation);
                if least > most {
                    break;
                }
                estimate = level.clamp(least, most);
            }
            length *= 2.0;
        }
        estimate
    }
}

/// The rate that the line through two windows, of `length` seconds and of twice that, shows
/// `ahead_seconds` from now, and the standard deviation of that if claims come independently.
fn line(near: f64, far: f64, length: f64, ahead_seconds: f64) -> (f64, f64) {
    // No line is followed further than it was seen.
    let reach = (ahead_seconds / length).min(1.0);
    let (of_near, of_far) = (2.0 + reach, 1.0 + reach);
    let slack = FEWEST_CLAIMS / length;
    let (near, far) = (near / length, far / (2.0 * length));
    // A fall is believed down to half: the next window will know better.
    let level = (of_near * near - of_far * far).max(near * 0.5);
    // The variances of two such windows, and their covariance, in units of rate / length.
    let variance = of_near * of_near / 2.0 + of_far * of_far / 4.0 - of_near * of_far * 2.0 / 3.0;
    (level, (variance * near.max(far).max(slack) / length).sqrt())
}
