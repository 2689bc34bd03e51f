//! When calls are due: arrival processes, each a function of its seed.
//!
//! A process yields times since the run's begin, in order and without end (a recorded one ends).
//! Its mean rate is what was asked for, however the calls are bunched.

use std::sync::Arc;
use std::time::Duration;

use crate::policies::random::Random;

/// Shortest and longest burst, in seconds, and the Pareto shape in between. The longest bounds the
/// variance, so that a rate comes out within a run of minutes.
const BURST: (f64, f64, f64) = (0.02, 2.0, 1.4);

/// How calls arrive. Rates are calls a second.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// At equal distances.
    Constant {
        /// Calls a second.
        rate: f64,
    },
    /// Independently of each other.
    Poisson {
        /// Calls a second, on average.
        rate: f64,
    },
    /// In bursts and pauses of Pareto lengths; independently within a burst.
    Bursts {
        /// Calls a second, on average over bursts and pauses.
        rate: f64,
        /// How many times that within a burst; above 1.
        factor: f64,
    },
    /// So many at the same instant; the batches come independently.
    Batches {
        /// Calls a second, on average.
        rate: f64,
        /// Calls in a batch.
        size: u32,
    },
    /// As recorded: seconds since the begin, in order.
    Recorded(Arc<[f64]>),
}

impl Arrivals {
    /// The times of this process that `seed` begins. Of one seed they are always the same.
    ///
    /// # Errors
    /// What is wrong with a rate, a factor or a size.
    pub fn times(&self, seed: u64) -> Result<Times, String> {
        let (rate, fits, what) = match self {
            Self::Constant { rate } | Self::Poisson { rate } => (*rate, true, ""),
            Self::Bursts { rate, factor } => {
                (*rate, factor.is_finite() && *factor > 1.0, "a burst's factor is above 1")
            }
            Self::Batches { rate, size } => (*rate, *size > 0, "a batch has at least one call"),
            Self::Recorded(times) => (1.0, !times.is_empty(), "a trace has at least one call"),
        };
        if !(rate.is_finite() && rate > 0.0) {
            return Err("a rate is above 0".to_owned());
        }
        if !fits {
            return Err(what.to_owned());
        }
        let mut random = Random::new(seed);
        let until = burst(&mut random);
        Ok(Times { arrivals: self.clone(), random, count: 0, at: 0.0, until })
    }

    /// When the last call is due, of a process that ends.
    pub fn end(&self) -> Option<Duration> {
        match self {
            Self::Recorded(times) => times.last().map(|it| duration(*it)),
            _ => None,
        }
    }
}

/// The times at which calls are due, since the run's begin, in order.
#[derive(Clone, Debug)]
pub struct Times {
    arrivals: Arrivals,
    random: Random,
    /// Calls so far.
    count: u64,
    /// Seconds of the last call.
    at: f64,
    /// Seconds at which the burst ends.
    until: f64,
}

impl Iterator for Times {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match &self.arrivals {
            // Not a sum: its error would grow.
            Arrivals::Constant { rate } => self.at = self.count as f64 / rate,
            Arrivals::Poisson { rate } => self.at += self.random.exponential(1.0 / rate),
            Arrivals::Bursts { rate, factor } => {
                let distance = 1.0 / (rate * factor);
                self.at += self.random.exponential(distance);
                // Who would come after the burst's end does not: independent calls have no memory.
                while self.at >= self.until {
                    let pause = burst(&mut self.random) * (factor - 1.0);
                    let from = self.until + pause;
                    self.until = from + burst(&mut self.random);
                    self.at = from + self.random.exponential(distance);
                }
            }
            Arrivals::Batches { rate, size } => {
                if self.count.is_multiple_of(u64::from(*size)) {
                    self.at += self.random.exponential(f64::from(*size) / rate);
                }
            }
            Arrivals::Recorded(times) => self.at = *times.get(usize::try_from(self.count).ok()?)?,
        }
        self.count += 1;
        Some(duration(self.at))
    }
}

/// Later than a duration can be is as late as one can be: at rates near 0.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Length of a burst in seconds: Pareto, cut off. Pauses are of the same kind, and longer by the
/// factor that makes the mean rate come out.
fn burst(random: &mut Random) -> f64 {
    let (least, most, shape) = BURST;
    let cut = 1.0 - (least / most).powf(shape);
    least * (1.0 - random.unit() * cut).powf(-1.0 / shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> [Arrivals; 4] {
        [
            Arrivals::Constant { rate: 200.0 },
            Arrivals::Poisson { rate: 200.0 },
            Arrivals::Bursts { rate: 200.0, factor: 10.0 },
            Arrivals::Batches { rate: 200.0, size: 16 },
        ]
    }

    fn seconds(arrivals: &Arrivals, seed: u64, count: usize) -> Vec<f64> {
        arrivals.times(seed).unwrap().take(count).map(|it| it.as_secs_f64()).collect()
    }

    #[test]
    fn every_process_has_the_mean_rate_that_was_asked_for() {
        for (arrivals, error) in generated().iter().zip([0.001, 0.01, 0.1, 0.02]) {
            let times = seconds(arrivals, 7, 1_000_000);
            assert!(times.is_sorted(), "{arrivals:?}");
            let rate = 1e6 / times.last().unwrap();
            assert!((rate / 200.0 - 1.0).abs() < error, "{arrivals:?}: {rate}/s");
        }
    }

    #[test]
    fn a_seed_repeats_its_times_and_another_has_others() {
        for arrivals in generated() {
            let first = seconds(&arrivals, 1, 1000);
            assert_eq!(first, seconds(&arrivals, 1, 1000), "{arrivals:?}");
            let is_random = !matches!(arrivals, Arrivals::Constant { .. });
            assert_eq!(first != seconds(&arrivals, 2, 1000), is_random, "{arrivals:?}");
        }
    }

    /// Variance over mean of the counts in windows of 0.1 s: 1 for independent calls.
    fn dispersion(times: &[f64]) -> f64 {
        let mut counts = vec![0.0; (times.last().unwrap() * 10.0) as usize + 1];
        times.iter().for_each(|it| counts[(it * 10.0) as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let spread: f64 = counts.iter().map(|it| (it - mean) * (it - mean)).sum();
        spread / counts.len() as f64 / mean
    }

    #[test]
    fn processes_differ_in_how_calls_are_bunched() {
        let [constant, poisson, bursts, batches] =
            generated().map(|it| dispersion(&seconds(&it, 3, 100_000)));
        assert!(constant < 0.1, "{constant}");
        assert!((poisson - 1.0).abs() < 0.1, "{poisson}");
        assert!((batches / 16.0 - 1.0).abs() < 0.2, "{batches}");
        assert!(bursts > 20.0, "{bursts}");
    }

    #[test]
    fn a_batch_is_due_at_one_instant() {
        let times = seconds(&Arrivals::Batches { rate: 10.0, size: 4 }, 5, 12);
        for batch in times.chunks(4) {
            assert!(batch.iter().all(|it| it == &batch[0]));
        }
        assert!(times[3] < times[4] && times[7] < times[8]);
    }

    #[test]
    fn a_recorded_process_is_as_recorded_and_ends() {
        let arrivals = Arrivals::Recorded([0.0, 0.5, 0.5].into());
        assert_eq!(seconds(&arrivals, 1, 10), [0.0, 0.5, 0.5]);
        assert_eq!(arrivals.end(), Some(Duration::from_millis(500)));
        assert_eq!(Arrivals::Poisson { rate: 1.0 }.end(), None);
    }

    #[test]
    fn a_call_that_never_comes_is_no_accident() {
        for arrivals in [Arrivals::Constant { rate: 1e-300 }, Arrivals::Poisson { rate: 1e-300 }] {
            assert_eq!(arrivals.times(1).unwrap().nth(1), Some(Duration::MAX));
        }
    }

    #[test]
    fn what_is_no_process_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Arrivals::Poisson { rate }.times(1).is_err());
        }
        assert!(Arrivals::Bursts { rate: 1.0, factor: 1.0 }.times(1).is_err());
        assert!(Arrivals::Batches { rate: 1.0, size: 0 }.times(1).is_err());
        assert!(Arrivals::Recorded([].into()).times(1).is_err());
    }
}
