//! Searches the highest rate that is sustained.
//!
//! Doubles until a rate is not, then halves the distance. Each probe is a run of its own, so what
//! is found is found for runs as long: a queue that takes minutes to overflow is not seen.

use std::fmt;
use std::ops::AsyncFnMut;

use serde::{Deserialize, Serialize};

use super::steps::{Step, head};

/// Most probes once there is a rate that is sustained and one that is not.
const BISECTIONS: usize = 8;
/// Most probes before that: a factor of 65,536 either way.
const DOUBLINGS: usize = 16;
/// Where both are as close as that there is no more to be found.
const CLOSE: f64 = 1.02;

/// What a search has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    /// The highest rate that was sustained, in calls a second; `None` when none was.
    pub rate_per_s: Option<f64>,
    /// The lowest above it that was not; `None` when the search ended before there was one.
    pub unsustained_per_s: Option<f64>,
    /// Whether it was the generator that could not do more: the server's rate is then higher, or
    /// not known.
    pub is_the_generators: bool,
    /// All probes, in order.
    pub steps: Vec<Step>,
}

/// Searches from `rate` on, which is above 0, with `probe`, which measures a rate.
///
/// # Errors
/// The first one of `probe`.
pub async fn search<E>(
    rate: f64,
    mut probe: impl AsyncFnMut(f64) -> Result<Step, E>,
) -> Result<Saturation, E> {
    let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
    let mut steps: Vec<Step> = Vec::new();
    let (mut doublings, mut bisections) = (0, 0);
    let mut is_the_generators = false;
    loop {
        let next = match (low, high) {
            (None, None) => rate,
            (Some(low), Some(high)) => {
                if high / low <= CLOSE || bisections == BISECTIONS {
                    break;
                }
                bisections += 1;
                f64::midpoint(low, high)
            }
            _ if doublings == DOUBLINGS => break,
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
        };
        doublings += usize::from(low.is_none() || high.is_none());
        let step = probe(next).await?;
        if step.is_sustained() {
            low = Some(next);
        } else {
            high = Some(next);
            is_the_generators = step.generator_is_behind;
        }
        steps.push(step);
    }
    let (rate_per_s, unsustained_per_s) = (low, high);
    Ok(Saturation { rate_per_s, unsustained_per_s, is_the_generators, steps })
}

impl fmt::Display for Saturation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", head())?;
        self.steps.iter().try_for_each(|it| writeln!(out, "{it}"))?;
        let who =
            if self.is_the_generators { ", where the GENERATOR is the bottleneck" } else { "" };
        match (self.rate_per_s, self.unsustained_per_s) {
            (Some(low), Some(high)) => {
                writeln!(out, "sustained {low:.0}/s; not sustained {high:.0}/s{who}")
            }
            (Some(low), None) => writeln!(out, "sustained {low:.0}/s, and no limit was found"),
            (None, _) => writeln!(out, "no rate was sustained{who}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tally::Tally;
    use super::*;

    /// A server that does at most so many a second, and a generator likewise.
    async fn search_for(from: f64, server: f64, generator: f64) -> Saturation {
        let probe = async |rate: f64| {
            let mut step = Step::of(rate, Duration::from_secs(1), &Tally::default());
            step.offered_per_s = rate;
            step.achieved_per_s = rate.min(server).min(generator);
            step.generator_is_behind = rate > generator;
            Ok::<_, ()>(step)
        };
        search(from, probe).await.unwrap()
    }

    #[tokio::test]
    async fn the_rate_is_found_from_below_and_from_above() {
        for from in [10.0, 500.0, 40_000.0] {
            let found = search_for(from, 3000.0, f64::INFINITY).await;
            let rate = found.rate_per_s.unwrap();
            // A server that does 3000 sustains 98 % of 3061.
            assert!((2940.0..=3062.0).contains(&rate), "{rate} from {from}");
            let above = found.unsustained_per_s.unwrap();
            assert!(above > 3061.0 && above / rate < 1.05, "{above}");
            assert!(!found.is_the_generators);
            assert!(found.steps.len() <= DOUBLINGS + BISECTIONS);
        }
    }

    #[tokio::test]
    async fn a_generator_that_can_do_no_more_is_named() {
        let found = search_for(100.0, 1e9, 5000.0).await;
        assert!(found.is_the_generators && found.rate_per_s.unwrap() <= 5000.0);
        assert!(found.to_string().contains("GENERATOR"), "{found}");
    }

    #[tokio::test]
    async fn a_search_ends_without_a_limit_and_without_a_rate() {
        let endless = search_for(1.0, f64::INFINITY, f64::INFINITY).await;
        assert_eq!((endless.unsustained_per_s, endless.steps.len()), (None, DOUBLINGS));
        let dead = search_for(1000.0, 0.0, f64::INFINITY).await;
        assert_eq!((dead.rate_per_s, dead.steps.len()), (None, DOUBLINGS));
        assert!(dead.to_string().contains("no rate was sustained"), "{dead}");
    }

    #[tokio::test]
    async fn what_a_probe_fails_with_ends_the_search() {
        let failed = search(1.0, async |_| Err::<Step, _>("gone")).await;
        assert_eq!(failed, Err("gone"));
    }
}
