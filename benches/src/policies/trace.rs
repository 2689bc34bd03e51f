//! When claims come, how long restores take: generated from a seed, or read from a file.

use std::time::Duration;

use super::random::Random;

/// How the times of restores are spread around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All take the mean.
    Constant,
    /// Exponential.
    Exponential,
    /// Log-normal; its standard deviation is half the mean.
    LogNormal,
}

/// The times of restores.
#[derive(Clone, Copy, Debug)]
pub struct Restore {
    /// What one takes on average, in seconds.
    pub mean: f64,
    /// How the others are spread around that.
    pub spread: Spread,
}

impl Restore {
    /// What one restore takes, in seconds.
    pub fn sample(&self, random: &mut Random) -> f64 {
        match self.spread {
            Spread::Constant => self.mean,
            Spread::Exponential => random.exponential(self.mean),
            Spread::LogNormal => {
                let variance = 1.25_f64.ln();
                self.mean * (variance.sqrt() * random.normal() - variance / 2.0).exp()
            }
        }
    }
}

/// How claims come.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Independently, so many a second.
    Poisson(f64),
    /// Independently, at a rate that goes from the first to the second and back, like a sine, in
    /// `period` seconds.
    Cycle {
        /// Least claims a second.
        low: f64,
        /// Most claims a second.
        high: f64,
        /// Seconds.
        period: f64,
    },
    /// Bursts and pauses, the lengths of both Pareto: independent claims within a burst.
    Bursts {
        /// Claims a second in a burst.
        rate: f64,
        /// The shortest burst and the shortest pause, in seconds, each with its Pareto shape.
        burst: (f64, f64),
        /// See there.
        pause: (f64, f64),
    },
    /// So many at the same instant; the batches come independently.
    Batches {
        /// Claims in a batch.
        size: usize,
        /// Claims a second on average.
        rate: f64,
    },
    /// Phases in turn: (claims a second, seconds).
    Phases(Vec<(f64, f64)>),
    /// Read from a file: seconds.
    Recorded(Vec<f64>),
}

/// Claims that a caller has announced: `count` more from `from` until `until`.
#[derive(Clone, Copy, Debug)]
pub struct Announcement {
    /// When it was said.
    pub from: u64,
    /// When they came.
    pub until: u64,
    /// How many.
    pub count: usize,
}

/// One sequence of claims. Times are nanoseconds since its begin.
#[derive(Clone, Debug)]
pub struct Trace {
    /// When claims come.
    pub claims: Vec<u64>,
    /// The true rate from a time on, in claims a second: what the oracle knows.
    pub rates: Vec<(u64, f64)>,
    /// What was announced, if callers of this trace do.
    pub announcements: Vec<Announcement>,
}

const NANOS: f64 = 1e9;
/// A true rate that changes all the time is told to the oracle so often, in seconds.
const STEP: f64 = 0.1;

/// `count` claims of `shape`; batches are announced `notice` ahead.
pub fn generate(shape: &Shape, count: usize, notice: Duration, seed: u64) -> Trace {
    let mut random = Random::new(seed);
    let mut claims: Vec<f64> = Vec::with_capacity(count);
    let mut rates = Vec::new();
    let mut announcements = Vec::new();
    let mut at = 0.0;
    match shape {
        Shape::Poisson(rate) => {
            rates.push((0, *rate));
            while claims.len() < count {
                at += random.exponential(1.0 / rate);
                claims.push(at);
            }
        }
        Shape::Cycle { low, high, period } => {
            let rate = |at: f64| {
                let swing = (at / period * std::f64::consts::TAU).sin();
                (high + low) / 2.0 + (high - low) / 2.0 * swing
            };
            while claims.len() < count {
                // Thinning: candidates at the highest rate, of which the rate's part stays.
                at += random.exponential(1.0 / high);
                if random.unit() * high <= rate(at) {
                    claims.push(at);
                }
            }
            let steps = (at / STEP) as usize + 1;
            rates.extend((0..=steps).map(|it| {
                let at = it as f64 * STEP;
                (nanos(at), rate(at + STEP / 2.0))
            }));
        }
        Shape::Bursts { rate, burst, pause } => {
            while claims.len() < count {
                at += random.pareto(pause.0, pause.1);
                rates.push((nanos(at), *rate));
                let end = at + random.pareto(burst.0, burst.1);
                independent(&mut claims, &mut random, (at, end), *rate);
                at = end;
                rates.push((nanos(at), 0.0));
            }
        }
        Shape::Batches { size, rate } => {
            rates.push((0, *rate));
            at = notice.as_secs_f64();
            while claims.len() < count {
                at += random.exponential(*size as f64 / rate);
                claims.extend(std::iter::repeat_n(at, *size));
                let until = nanos(at);
                let from = until.saturating_sub(notice.as_nanos() as u64);
                announcements.push(Announcement { from, until, count: *size });
            }
        }
        Shape::Phases(phases) => {
            for (rate, seconds) in phases.iter().cycle() {
                if claims.len() >= count {
                    break;
                }
                rates.push((nanos(at), *rate));
                let end = at + seconds;
                independent(&mut claims, &mut random, (at, end), *rate);
                at = end;
            }
        }
        Shape::Recorded(times) => {
            claims.extend(times);
            let mean = times.len() as f64 / times.last().copied().unwrap_or(1.0).max(1e-9);
            rates.push((0, mean));
        }
    }
    claims.truncate(count);
    let last = claims.last().map_or(0, |it| nanos(*it));
    announcements.retain(|it: &Announcement| it.until <= last);
    Trace { claims: claims.into_iter().map(nanos).collect(), rates, announcements }
}

/// Adds independent claims between two times.
fn independent(claims: &mut Vec<f64>, random: &mut Random, (from, end): (f64, f64), rate: f64) {
    let mut at = from;
    loop {
        // Nothing comes at a rate of 0: the time to the first is infinite.
        at += random.exponential(1.0 / rate);
        if at.is_nan() || at >= end {
            return;
        }
        claims.push(at);
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * NANOS) as u64
}

/// The times of a recorded trace: one a line, in seconds, in order; empty lines and what follows a
/// `#` are left out. They are moved so that the first is 0.
///
/// # Errors
/// Which line is not a time, or is before the last one; or that there is none.
pub fn read(text: &str) -> Result<Vec<f64>, String> {
    let mut times: Vec<f64> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let time: f64 = text.parse().map_err(|_| format!("line {}: not a time", line + 1))?;
        if !time.is_finite() || times.last().is_some_and(|it| *it > time) {
            return Err(format!("line {}: not a time after the last one", line + 1));
        }
        times.push(time);
    }
    let first = *times.first().ok_or("no claims")?;
    times.iter_mut().for_each(|it| *it -= first);
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_traces_have_their_mean_rate_and_are_in_order() {
        let cycle = Shape::Cycle { low: 2.0, high: 60.0, period: 60.0 };
        let batches = Shape::Batches { size: 16, rate: 30.0 };
        for (shape, rate) in [(Shape::Poisson(30.0), 30.0), (cycle, 31.0), (batches, 30.0)] {
            let trace = generate(&shape, 100_000, Duration::ZERO, 3);
            assert!(trace.claims.is_sorted() && trace.claims.len() == 100_000);
            let seen = 100_000.0 / (trace.claims[99_999] as f64 / NANOS);
            assert!((seen / rate - 1.0).abs() < 0.05, "{shape:?}: {seen}/s");
        }
    }

    #[test]
    fn restores_have_their_mean() {
        for spread in [Spread::Constant, Spread::Exponential, Spread::LogNormal] {
            let restore = Restore { mean: 0.3, spread };
            let mut random = Random::new(5);
            let sum: f64 = (0..100_000).map(|_| restore.sample(&mut random)).sum();
            assert!((sum / 100_000.0 / 0.3 - 1.0).abs() < 0.02, "{spread:?}");
        }
    }

    #[test]
    fn a_file_is_read_from_its_first_claim() {
        assert_eq!(read("# seconds\n10.5\n\n10.5 # twice\n12\n"), Ok(vec![0.0, 0.0, 1.5]));
        assert_eq!(read("1\nx\n"), Err("line 2: not a time".into()));
        assert_eq!(read("2\n1\n"), Err("line 2: not a time after the last one".into()));
        assert_eq!(read("# nothing\n"), Err("no claims".into()));
    }
}
