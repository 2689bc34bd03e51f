//! What the benches share: ratios of blocks that alternate in one run.
//!
//! A machine's speed drifts, and shared ones are noisy: absolute times say little. Each figure is
//! therefore the median of ratios of blocks measured side by side, with the interval that holds
//! the true median with 95 %.

use std::time::Duration;

/// The median of ratios, and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Ratio {
    /// Of `pairs` of (ours, theirs), at least 20 of them: the interval is between the order
    /// statistics n/2 -+ 0.98 sqrt(n) (the normal approximation of the sign test).
    ///
    /// # Panics
    /// With fewer than 20 pairs: that is no measurement.
    pub fn of(pairs: &[(Duration, Duration)]) -> Self {
        assert!(pairs.len() >= 20, "a ratio takes at least 20 pairs");
        let mut ratios: Vec<_> =
            pairs.iter().map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len() as f64;
        let reach = 0.98 * count.sqrt();
        let at = |rank: f64| ratios[(rank.max(0.0) as usize).min(ratios.len() - 1)];
        Self {
            median: at(count / 2.0),
            low: at((count / 2.0 - reach).floor()),
            high: at((count / 2.0 + reach).ceil()),
        }
    }
}

/// The median of some times.
///
/// # Panics
/// Without any.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_its_pairs() {
        let ms = Duration::from_millis;
        let pairs: Vec<_> = (1..=21).map(|it| (ms(it * 10), ms(100))).collect();
        let ratio = Ratio::of(&pairs);
        assert!((ratio.median - 1.1).abs() < 1e-9);
        assert!(ratio.low < ratio.median && ratio.median < ratio.high);
    }
}
