//! What became of the calls, counted as they are answered.
//!
//! Every call that was due is in exactly one place: not sent, under way, given or refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latencies::{Latencies, micros};

/// Reasons that are told apart; a server that makes up more has them counted together.
const MAX_REASONS: usize = 64;
/// Those.
const OTHERS: &str = "OTHERS";

/// Where what was asked for came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A VM that was warm when the call arrived.
    Warm,
    /// A VM that was restored for the call.
    Cold,
    /// The empty method, which has nothing to give.
    Floor,
}

impl Source {
    /// As tables and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "WARM",
            Self::Cold => "COLD",
            Self::Floor => "FLOOR",
        }
    }
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What it asked for.
    Given(Source),
    /// Why not.
    Refused(String),
}

/// The times of one call, since the begin of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was due.
    pub due: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When its answer was there.
    pub answered: Duration,
}

/// Latencies of calls with the same verdict.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// From when a call was due: what its caller waited.
    pub from_due: Latencies,
    /// From when it was sent, which leaves out what the generator was late by.
    pub from_sent: Latencies,
}

impl Series {
    fn record(&mut self, times: Times) {
        self.from_due.record(times.answered.saturating_sub(times.due));
        self.from_sent.record(times.answered.saturating_sub(times.sent));
    }
}

/// One second of a run, as it was counted at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its number, from 1.
    pub second: u64,
    /// Calls that became due in it.
    pub due: u64,
    /// Of these, those that were not sent.
    pub not_sent: u64,
    /// Calls that were given a warm VM in it.
    pub warm: u64,
    /// Calls that were given anything in it.
    pub given: u64,
    /// Calls that were refused in it.
    pub refused: u64,
    /// Calls under way at its end.
    pub in_flight: usize,
    /// Median latency of what was given, in microseconds, from when it was due.
    pub p50_us: Option<f64>,
    /// The same, its 99th percentile.
    pub p99_us: Option<f64>,
    /// The same, its maximum.
    pub max_us: Option<f64>,
}

/// What became of the calls of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Calls that were due.
    pub due: u64,
    /// Of these, those that were not sent, since too many were under way.
    pub not_sent: u64,
    /// Given, by source.
    pub given: BTreeMap<Source, Series>,
    /// Refused, by reason.
    pub refused: BTreeMap<String, Series>,
    /// By what calls were sent late.
    pub lag: Latencies,
    /// How long it took to give back.
    pub returned: Latencies,
    /// What could not be given back, by reason.
    pub not_returned: BTreeMap<String, u64>,
    /// How long guests took to answer, from when their calls were due.
    pub asked: Latencies,
    /// What gave no answer, by reason.
    pub not_answered: BTreeMap<String, u64>,
    /// How long it took to renew.
    pub renewed: Latencies,
    /// What could not be renewed, by reason.
    pub not_renewed: BTreeMap<String, u64>,
    /// Answers to another call with the same id: there must be none, since ids are fresh.
    pub replayed: u64,
    /// When the last call was due, since the begin.
    pub last_due: Duration,
    /// When the last answer was there, since the begin.
    pub last_answer: Duration,
    /// Each second.
    pub seconds: Vec<Second>,
    current: Current,
}

/// The second that is not over.
#[derive(Clone, Debug, Default)]
struct Current {
    due: u64,
    not_sent: u64,
    warm: u64,
    given: u64,
    refused: u64,
    latencies: Latencies,
}

impl Tally {
    /// A call is due `at` that time since the begin, and is sent if `is_sent`.
    pub fn due(&mut self, at: Duration, is_sent: bool) {
        self.last_due = self.last_due.max(at);
        self.due += 1;
        self.current.due += 1;
        self.not_sent += u64::from(!is_sent);
        self.current.not_sent += u64::from(!is_sent);
    }

    /// A call that was sent is answered.
    pub fn answered(&mut self, verdict: Verdict, times: Times) {
        self.lag.record(times.sent.saturating_sub(times.due));
        self.last_answer = self.last_answer.max(times.answered);
        match verdict {
            Verdict::Given(source) => {
                self.current.given += 1;
                self.current.warm += u64::from(source == Source::Warm);
                self.current.latencies.record(times.answered.saturating_sub(times.due));
                self.given.entry(source).or_default().record(times);
            }
            Verdict::Refused(reason) => {
                self.current.refused += 1;
                entry(&mut self.refused, reason).record(times);
            }
        }
    }

    /// What was given is given back, or not.
    pub fn returned(&mut self, result: Result<(), String>, took: Duration) {
        match result {
            Ok(()) => self.returned.record(took),
            Err(reason) => *entry(&mut self.not_returned, reason) += 1,
        }
    }

    /// What was given has answered so long after its call was due, or not.
    pub fn asked(&mut self, result: Result<(), String>, took: Duration) {
        match result {
            Ok(()) => self.asked.record(took),
            Err(reason) => *entry(&mut self.not_answered, reason) += 1,
        }
    }

    /// What is held is renewed, or not.
    pub fn renewed(&mut self, result: Result<(), String>, took: Duration) {
        match result {
            Ok(()) => self.renewed.record(took),
            Err(reason) => *entry(&mut self.not_renewed, reason) += 1,
        }
    }

    /// A second is over.
    pub fn second_over(&mut self, in_flight: usize) -> &Second {
        let Current { due, not_sent, warm, given, refused, latencies } = &mut self.current;
        self.seconds.push(Second {
            second: self.seconds.len() as u64 + 1,
            due: std::mem::take(due),
            not_sent: std::mem::take(not_sent),
            warm: std::mem::take(warm),
            given: std::mem::take(given),
            refused: std::mem::take(refused),
            in_flight,
            p50_us: latencies.at(0.5).map(micros),
            p99_us: latencies.at(0.99).map(micros),
            max_us: latencies.max().map(micros),
        });
        latencies.reset();
        &self.seconds[self.seconds.len() - 1]
    }

    /// Calls that were given what they asked for.
    pub fn given_count(&self) -> u64 {
        self.given.values().map(|it| it.from_due.count()).sum()
    }

    /// Calls that were refused, for whatever reason.
    pub fn refused_count(&self) -> u64 {
        self.refused.values().map(|it| it.from_due.count()).sum()
    }

    /// What was given each second, until the last answer; `None` without any.
    pub fn given_per_s(&self) -> Option<f64> {
        let given = self.given_count();
        let took = self.last_answer.as_secs_f64();
        (given > 0 && took > 0.0).then(|| given as f64 / took)
    }

    /// The part of all answered calls that was given a warm VM; `None` without answers. Whatever
    /// else a call was answered, it was no hit.
    pub fn hit_ratio(&self) -> Option<f64> {
        let answered = self.given_count() + self.refused_count();
        let warm = self.given.get(&Source::Warm).map_or(0, |it| it.from_due.count());
        (answered > 0).then(|| warm as f64 / answered as f64)
    }
}

/// What is counted for `reason`; there is a bound to how many are told apart.
fn entry<V: Default>(by_reason: &mut BTreeMap<String, V>, reason: String) -> &mut V {
    let is_told_apart = by_reason.len() < MAX_REASONS || by_reason.contains_key(&reason);
    let reason = if is_told_apart { reason } else { OTHERS.to_owned() };
    by_reason.entry(reason).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(due: u64, sent: u64, answered: u64) -> Times {
        let ms = Duration::from_millis;
        Times { due: ms(due), sent: ms(sent), answered: ms(answered) }
    }

    #[test]
    fn a_latency_counts_from_when_the_call_was_due() {
        let mut tally = Tally::default();
        tally.due(Duration::ZERO, true);
        tally.answered(Verdict::Given(Source::Warm), times(10, 25, 30));
        let series = &tally.given[&Source::Warm];
        let ms = |latencies: &Latencies| latencies.max().unwrap().as_secs_f64() * 1e3;
        assert!((ms(&series.from_due) - 20.0).abs() < 0.1);
        assert!((ms(&series.from_sent) - 5.0).abs() < 0.1);
        assert!((ms(&tally.lag) - 15.0).abs() < 0.1);
    }

    #[test]
    fn every_call_is_in_one_place_and_misses_are_no_hits() {
        let mut tally = Tally::default();
        (0..10).for_each(|it: u32| tally.due(Duration::ZERO, it != 3));
        (0..6).for_each(|_| tally.answered(Verdict::Given(Source::Warm), times(0, 0, 1)));
        tally.answered(Verdict::Given(Source::Cold), times(0, 0, 30));
        let empty = || Verdict::Refused("POOL_EMPTY".to_owned());
        (0..2).for_each(|_| tally.answered(empty(), times(0, 0, 1)));
        assert_eq!((tally.due, tally.not_sent), (10, 1));
        assert_eq!((tally.given_count(), tally.refused_count()), (7, 2));
        assert_eq!(tally.hit_ratio(), Some(6.0 / 9.0));
        assert_eq!(tally.refused["POOL_EMPTY"].from_due.count(), 2);
        assert_eq!(Tally::default().hit_ratio(), None);
    }

    #[test]
    fn a_second_has_its_own_counts() {
        let mut tally = Tally::default();
        tally.due(Duration::ZERO, true);
        tally.due(Duration::ZERO, false);
        tally.answered(Verdict::Given(Source::Cold), times(0, 0, 3));
        let first = tally.second_over(0).clone();
        assert_eq!((first.second, first.due, first.not_sent, first.given), (1, 2, 1, 1));
        let second = tally.second_over(4);
        assert_eq!((second.second, second.due, second.given, second.in_flight), (2, 0, 0, 4));
        assert_eq!(second.max_us, None);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::default();
        for reason in 0..1000 {
            tally.answered(Verdict::Refused(reason.to_string()), times(0, 0, 1));
            tally.returned(Err(reason.to_string()), Duration::ZERO);
        }
        assert!(tally.refused.len() <= MAX_REASONS + 1 && tally.refused_count() == 1000);
        assert!(tally.not_returned.len() <= MAX_REASONS + 1);
    }
}
