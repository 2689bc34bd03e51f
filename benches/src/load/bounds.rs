//! Within which bounds a figure is known, and whether two of them differ beyond that.

/// A figure, and the interval that holds the true one with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The figure.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// How one figure compares to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Higher, by more than noise.
    Higher,
    /// Lower, by more than noise.
    Lower,
    /// Not to be told apart.
    Same,
}

/// Fewer samples bound nothing: with five, the interval of a median is all of their range, and
/// holds it with less than 95 %.
pub const LEAST_SAMPLES: usize = 6;

impl Bounded {
    /// The median of samples, between the order statistics n/2 -+ 0.98 sqrt(n) (the normal
    /// approximation of the sign test); `None` with fewer than [`LEAST_SAMPLES`].
    pub fn median(mut samples: Vec<f64>) -> Option<Self> {
        if samples.len() < LEAST_SAMPLES {
            return None;
        }
        samples.sort_by(f64::total_cmp);
        let count = samples.len() as f64;
        let reach = 0.98 * count.sqrt();
        let at = |rank: f64| samples[(rank.max(0.0) as usize).min(samples.len() - 1)];
        let (low, high) = ((count / 2.0 - reach).floor(), (count / 2.0 + reach).ceil());
        Some(Self { value: at(count / 2.0), low: at(low), high: at(high) })
    }

    /// The mean of samples, with the normal interval. For what a median hides: a ratio that is 1
    /// but for a few seconds. `None` with fewer than [`LEAST_SAMPLES`].
    pub fn mean(samples: &[f64]) -> Option<Self> {
        if samples.len() < LEAST_SAMPLES {
            return None;
        }
        let count = samples.len() as f64;
        let value = samples.iter().sum::<f64>() / count;
        let spread: f64 = samples.iter().map(|it| (it - value) * (it - value)).sum();
        let reach = 1.96 * (spread / (count - 1.0) / count).sqrt();
        Some(Self { value, low: value - reach, high: value + reach })
    }

    /// The share `value` of `count` independent trials (Wilson's interval).
    pub fn share(value: f64, count: u64) -> Option<Self> {
        if count == 0 {
            return None;
        }
        let (count, z) = (count as f64, 1.96);
        let center = value + z * z / (2.0 * count);
        let reach = z * (value * (1.0 - value) / count + z * z / (4.0 * count * count)).sqrt();
        let by = 1.0 + z * z / count;
        let (low, high) = ((center - reach) / by, (center + reach) / by);
        Some(Self { value, low: low.min(value), high: high.max(value) })
    }

    /// How `self` compares to `before`: different only when the intervals do not overlap.
    pub fn change(&self, before: &Self) -> Change {
        if self.low > before.high {
            Change::Higher
        } else if self.high < before.low {
            Change::Lower
        } else {
            Change::Same
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_the_order_statistics_around_it() {
        let median = Bounded::median((1..=100).map(f64::from).rev().collect()).unwrap();
        assert_eq!(median, Bounded { value: 51.0, low: 41.0, high: 61.0 });
        let few = Bounded::median((1..=6).map(f64::from).collect()).unwrap();
        assert_eq!((few.low, few.high), (1.0, 6.0));
        assert_eq!(Bounded::median(vec![1.0; 5]), None);
    }

    #[test]
    fn a_mean_sees_the_few_that_a_median_hides() {
        let mut samples = vec![1.0; 18];
        samples.extend([0.5, 0.5]);
        let mean = Bounded::mean(&samples).unwrap();
        assert!((mean.value - 0.95).abs() < 1e-9 && mean.low < 0.9 && mean.high > 1.0);
        assert_eq!(Bounded::mean(&[1.0; 5]), None);
    }

    #[test]
    fn a_share_is_never_known_for_sure() {
        let all = Bounded::share(1.0, 1000).unwrap();
        assert!((all.high - 1.0).abs() < 1e-9 && (0.995..0.999).contains(&all.low), "{all:?}");
        assert!(Bounded::share(0.9, 1_000_000).unwrap().high < 0.902);
        assert_eq!(Bounded::share(1.0, 0), None);
    }

    #[test]
    fn figures_differ_when_their_intervals_do_not_overlap() {
        let bounded = |low, high| Bounded { value: f64::midpoint(low, high), low, high };
        let before = bounded(10.0, 12.0);
        assert_eq!(bounded(12.5, 14.0).change(&before), Change::Higher);
        assert_eq!(bounded(11.9, 14.0).change(&before), Change::Same);
        assert_eq!(bounded(8.0, 9.0).change(&before), Change::Lower);
        assert_eq!(before.change(&before), Change::Same);
    }
}
