//! Latencies, counted in an HdrHistogram: three digits, up to an hour.
//!
//! Counted in nanoseconds, so that there are three digits from a microsecond on. A quantile that
//! the count cannot show is not given: of 1,000 values, the p99.99 would be their maximum by
//! another name.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told from longer ones, in nanoseconds: an hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// The quantiles that are shown, with their names.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Steps of a distribution for each halving of the distance to 100 %.
const STEPS: u32 = 5;

/// How long things took.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NANOS, 3);
        Self(histogram.expect("the bounds are constants, and in order"))
    }
}

impl Latencies {
    /// Counts one. Longer than an hour counts as an hour.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos.min(LONGEST_NANOS));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the part `quantile` of all does not exceed; `None` when there are fewer
    /// than two beyond it to show it by.
    pub fn at(&self, quantile: f64) -> Option<Duration> {
        // Not by the bare product: 0.1 % of 2,000 is a little less than two.
        let beyond = self.count() as f64 * (1.0 - quantile);
        let nanos = || self.0.value_at_quantile(quantile);
        (beyond + 1e-6 >= 2.0).then(|| Duration::from_nanos(nanos()))
    }

    /// The longest; `None` when there is none.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.0.max()))
    }

    /// Counts all of `other`, too.
    pub fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        added.expect("all have the same bounds");
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// All that is to be known, for a file.
    pub fn summary(&self) -> Summary {
        let distribution = self.0.iter_quantiles(STEPS).map(|it| Point {
            quantile: it.quantile(),
            latency_us: it.value_iterated_to() as f64 / 1e3,
        });
        let [p50, p90, p99, p99_9, p99_99] = QUANTILES.map(|(_, it)| self.at(it).map(micros));
        let some = self.count() > 0;
        Summary {
            count: self.count(),
            mean_us: some.then(|| self.0.mean() / 1e3),
            min_us: some.then(|| self.0.min() as f64 / 1e3),
            p50_us: p50,
            p90_us: p90,
            p99_us: p99,
            p99_9_us: p99_9,
            p99_99_us: p99_99,
            max_us: self.max().map(micros),
            distribution: if some { distribution.collect() } else { Vec::new() },
        }
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Latencies as a file has them. Absent is what the count cannot show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Summary {
    pub count: u64,
    pub mean_us: Option<f64>,
    pub min_us: Option<f64>,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p99_9_us: Option<f64>,
    pub p99_99_us: Option<f64>,
    pub max_us: Option<f64>,
    /// Latency by quantile, for a picture.
    pub distribution: Vec<Point>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// From 0 to 1.
    pub quantile: f64,
    /// What that part of all does not exceed, in microseconds.
    pub latency_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(count: u64) -> Latencies {
        let mut latencies = Latencies::default();
        (1..=count).for_each(|it| latencies.record(Duration::from_micros(it)));
        latencies
    }

    #[test]
    fn quantiles_have_three_digits() {
        let latencies = up_to(100_000);
        for (quantile, expected_us) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.9999, 99_990.0)] {
            let seen = micros(latencies.at(quantile).unwrap());
            assert!((seen / expected_us - 1.0).abs() < 0.001, "{quantile}: {seen} us");
        }
        let mut short = Latencies::default();
        (0..10).for_each(|_| short.record(Duration::from_nanos(26_430)));
        assert!((micros(short.at(0.5).unwrap()) / 26.43 - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_quantile_that_the_count_cannot_show_is_absent() {
        let latencies = up_to(2_000);
        assert!(latencies.at(0.999).is_some());
        assert_eq!(latencies.at(0.9999), None);
        assert_eq!(up_to(1_999).at(0.999), None);
        assert_eq!((Latencies::default().at(0.5), Latencies::default().max()), (None, None));
        assert_eq!(Latencies::default().summary().max_us, None);
    }

    #[test]
    fn added_ones_count_as_if_they_had_been_recorded_here() {
        let mut latencies = up_to(500);
        latencies.add(&up_to(1_000));
        assert_eq!((latencies.count(), latencies.max()), (1_500, up_to(1_000).max()));
        latencies.reset();
        assert_eq!(latencies.count(), 0);
    }

    #[test]
    fn longer_than_an_hour_counts_as_an_hour() {
        let mut latencies = up_to(1);
        latencies.record(Duration::from_secs(7200));
        let hours = latencies.max().unwrap().as_secs_f64() / 3600.0;
        assert!((hours - 1.0).abs() < 0.001, "{hours}");
    }
}
