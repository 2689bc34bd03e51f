//! One rate after another, a row of a table each.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::drive::Target;
use super::latencies::{Latencies, micros};
use super::plan::{Pace, Plan};
use super::tally::{Source, Tally};

/// What is given of what is offered where a rate is sustained; and what the generator has to send
/// in time for that to be the server's doing.
pub const SUSTAINED: f64 = 0.98;

/// What a rate has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The rate that was asked for, in calls a second.
    pub rate_per_s: f64,
    /// Calls that were due each second.
    pub offered_per_s: f64,
    /// Calls that were given each second, until the last answer.
    pub achieved_per_s: f64,
    /// Calls that were due and not sent.
    pub not_sent: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// The part of all answers that were warm VMs.
    pub hit_ratio: Option<f64>,
    /// Latency of what was given, from when it was due, in microseconds.
    pub p50_us: Option<f64>,
    /// The same, its 99th percentile.
    pub p99_us: Option<f64>,
    /// The same, its 99.9th percentile.
    pub p99_9_us: Option<f64>,
    /// What 99 % of the calls were not sent later than, in microseconds.
    pub lag_p99_us: Option<f64>,
    /// Whether calls were sent so late that fewer a second were sent than were due.
    pub generator_is_behind: bool,
}

impl Step {
    /// Of a run at `rate_per_s` that took `duration`.
    pub fn of(rate_per_s: f64, duration: Duration, tally: &Tally) -> Self {
        let mut given = Latencies::default();
        tally.given.values().for_each(|it| given.add(&it.from_due));
        let at = |quantile| given.at(quantile).map(micros);
        let until = duration.max(tally.last_answer).as_secs_f64();
        // Whoever sends the last calls of a second 20 ms late sends 98 % of them within it.
        let late = duration.mul_f64(1.0 - SUSTAINED);
        // Of fewer than 200 calls there is no p99.
        let lag = tally.lag.at(0.99).or_else(|| tally.lag.at(0.9));
        Self {
            rate_per_s,
            offered_per_s: tally.due as f64 / duration.as_secs_f64(),
            achieved_per_s: tally.given_count() as f64 / until,
            not_sent: tally.not_sent,
            refused: tally.refused_count(),
            // A floor has nothing that is warm.
            hit_ratio: tally.hit_ratio().filter(|_| !tally.given.contains_key(&Source::Floor)),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            lag_p99_us: tally.lag.at(0.99).map(micros),
            generator_is_behind: lag.is_some_and(|it| it >= late),
        }
    }

    /// Whether what was offered was achieved.
    pub fn is_sustained(&self) -> bool {
        let is_given = self.achieved_per_s >= SUSTAINED * self.offered_per_s;
        is_given && self.offered_per_s > 0.0 && !self.generator_is_behind
    }
}

/// Offers `plan` at another rate: its open loop's process, or Poisson where it has none with a
/// rate.
///
/// # Errors
/// As for [`Plan::run`].
pub async fn step<T: Target>(
    target: T,
    plan: &Plan,
    rate: f64,
    seed: u64,
    stop: CancellationToken,
) -> std::io::Result<Step> {
    let plan = Plan { pace: at_rate(&plan.pace, rate), ..plan.clone() };
    let tally = plan.run(target, seed, stop, |_| ()).await?;
    Ok(Step::of(rate, plan.duration, &tally))
}

fn at_rate(pace: &Pace, rate: f64) -> Pace {
    let Pace::Open { arrivals, max_in_flight } = pace else {
        return Pace::Open { arrivals: Arrivals::Poisson { rate }, max_in_flight: usize::MAX };
    };
    let arrivals = match arrivals {
        Arrivals::Constant { .. } => Arrivals::Constant { rate },
        Arrivals::Poisson { .. } | Arrivals::Recorded(_) => Arrivals::Poisson { rate },
        Arrivals::Bursts { factor, .. } => Arrivals::Bursts { rate, factor: *factor },
        Arrivals::Batches { size, .. } => Arrivals::Batches { rate, size: *size },
    };
    Pace::Open { arrivals, max_in_flight: *max_in_flight }
}

/// The head of the rows.
pub fn head() -> String {
    let names = ["offered/s", "achieved/s", "hit ratio", "p50", "p99", "p99.9", "late by"];
    names.map(|it| format!("{it:>10}")).join(" ")
}

/// The row of a table; its columns are those of [`head`].
impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |micros: Option<f64>| match micros {
            Some(micros) => format!("{:.1?}", Duration::from_secs_f64(micros / 1e6)),
            None => "-".to_owned(),
        };
        let ratio = self.hit_ratio.map_or("-".to_owned(), |it| format!("{:.2} %", it * 100.0));
        write!(out, "{:>10.1} {:>10.1} {ratio:>10}", self.offered_per_s, self.achieved_per_s)?;
        for micros in [self.p50_us, self.p99_us, self.p99_9_us, self.lag_p99_us] {
            write!(out, " {:>10}", time(micros))?;
        }
        if self.not_sent > 0 {
            write!(out, "  {} not sent", self.not_sent)?;
        }
        if self.refused > 0 {
            write!(out, "  {} refused", self.refused)?;
        }
        let behind = if self.generator_is_behind { "  the generator is behind" } else { "" };
        out.write_str(behind)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tally::{Times, Verdict};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// So many calls within a second, each sent `late` and answered a millisecond later.
    fn tally(count: u32, late: Duration) -> Tally {
        let mut tally = Tally::default();
        for call in 0..count {
            let due = SECOND * call / count;
            let (sent, answered) = (due + late, due + late + Duration::from_millis(1));
            tally.due(due, true);
            tally.answered(Verdict::Given(Source::Warm), Times { due, sent, answered });
        }
        tally
    }

    #[test]
    fn a_rate_is_sustained_when_what_was_offered_was_given_in_time() {
        let step = Step::of(1000.0, SECOND, &tally(1000, Duration::ZERO));
        assert!(step.is_sustained() && !step.generator_is_behind, "{step:?}");
        let mut short = tally(1000, Duration::ZERO);
        short.last_answer = SECOND * 2;
        assert!(!Step::of(1000.0, SECOND, &short).is_sustained());
        assert!(!Step::of(1000.0, SECOND, &Tally::default()).is_sustained());
    }

    #[test]
    fn a_generator_that_is_behind_sustains_nothing() {
        let step = Step::of(1000.0, SECOND, &tally(1000, Duration::from_millis(25)));
        assert!(step.generator_is_behind && !step.is_sustained());
        assert!(step.to_string().ends_with("the generator is behind"), "{step}");
    }

    #[test]
    fn a_row_has_a_value_below_each_name() {
        let step = Step::of(1000.0, SECOND, &tally(1000, Duration::ZERO));
        let (head, row) = (head(), step.to_string());
        assert_eq!(head.len(), row.len(), "{head}\n{row}");
        assert!(row.contains("1000.0") && row.contains("100.00 %"), "{row}");
    }

    #[test]
    fn the_process_stays_and_its_rate_changes() {
        let pace = |arrivals| Pace::Open { arrivals, max_in_flight: 7 };
        let batches = pace(Arrivals::Batches { rate: 1.0, size: 4 });
        assert_eq!(at_rate(&batches, 9.0), pace(Arrivals::Batches { rate: 9.0, size: 4 }));
        let recorded = pace(Arrivals::Recorded([0.0].into()));
        assert_eq!(at_rate(&recorded, 9.0), pace(Arrivals::Poisson { rate: 9.0 }));
    }
}
