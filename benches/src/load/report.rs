//! What a run has shown: as a table for people, and all of it as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hearth::{Depth, Sizes};
use super::latencies::{Latencies, QUANTILES, Summary};
use super::stages::{self, Stage};
use super::stamp::Stamp;
use super::tally::{Second, Tally};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What was called: the address of a hearth and its pool, or of a floor.
    pub target: String,
    /// The arrival process and its rate.
    pub arrivals: String,
    /// For how long calls were due, in seconds.
    pub duration_s: f64,
    /// What the arrival times began with.
    pub seed: u64,
    /// Connections, used in turn.
    pub connections: usize,
    /// Most calls under way at once.
    pub max_in_flight: usize,
    /// How long what was given was held, in seconds.
    pub hold_s: f64,
    /// Length of a lease, in seconds.
    pub ttl_s: f64,
    /// Whether cold VMs were refused.
    pub warm_only: bool,
    /// How long a call may take, in seconds.
    pub deadline_s: f64,
    /// In a closed loop: calls under way at once.
    #[serde(default)]
    pub in_flight: Option<usize>,
    /// In a closed loop: most calls of a block.
    #[serde(default)]
    pub block_calls: Option<u64>,
    /// Whether a call is a cycle: an acquire and its release, or two empty calls.
    #[serde(default)]
    pub cycle: bool,
    /// Share of what is held that is renewed.
    #[serde(default)]
    pub renew_ratio: f64,
    /// Most calls under way at once on each connection.
    #[serde(default)]
    pub streams_per_connection: Option<u32>,
    /// What each guest was asked.
    #[serde(default)]
    pub ask: Option<String>,
}

/// What a run has shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// On what.
    pub stamp: Stamp,
    /// Of what.
    pub settings: Settings,
    /// Encoded messages, where they were measured or asked for.
    pub sizes: Option<Sizes>,
    /// The pool before the first call.
    pub pool_before: Option<Depth>,
    /// The pool after the last answer.
    pub pool_after: Option<Depth>,
    /// Calls that were due.
    pub due: u64,
    /// Of these, not sent, since too many were under way.
    pub not_sent: u64,
    /// Calls that were given what they asked for.
    pub given: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Calls due each second.
    pub offered_per_s: f64,
    /// Calls given each second, until the last answer.
    pub achieved_per_s: f64,
    /// The part of all answered calls that was given a warm VM.
    pub hit_ratio: Option<f64>,
    /// Answers to other calls' ids.
    pub replayed: u64,
    /// Latencies by source.
    pub by_source: BTreeMap<String, FromBoth>,
    /// Latencies of what was refused, by reason.
    pub by_reason: BTreeMap<String, FromBoth>,
    /// By what calls were sent late.
    pub lag: Summary,
    /// How long it took to give back.
    pub returned: Summary,
    /// What could not be given back, by reason.
    pub not_returned: BTreeMap<String, u64>,
    /// How long guests took to answer, from when their calls were due.
    #[serde(default)]
    pub asked: Option<Summary>,
    /// What gave no answer, by reason.
    #[serde(default)]
    pub not_answered: BTreeMap<String, u64>,
    /// How long it took to renew.
    #[serde(default)]
    pub renewed: Option<Summary>,
    /// What could not be renewed, by reason.
    #[serde(default)]
    pub not_renewed: BTreeMap<String, u64>,
    /// Each second.
    pub seconds: Vec<Second>,
    /// What the server says that its stages took, where it was asked.
    #[serde(default)]
    pub stages: Vec<Stage>,
    #[serde(skip)]
    rows: Vec<(String, Latencies)>,
}

/// Latencies from both instants that they can be counted from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromBoth {
    /// From when calls were due.
    pub from_due: Summary,
    /// From when they were sent.
    pub from_sent: Summary,
}

impl Report {
    /// Of a run that was to take `planned`, and was ended early if `is_cut`. A closed loop has what
    /// it took: what is due there is what is answered.
    pub fn new(
        stamp: Stamp,
        settings: Settings,
        tally: &Tally,
        planned: Duration,
        is_cut: bool,
    ) -> Self {
        let is_closed = settings.in_flight.is_some();
        let span = if is_closed {
            tally.last_answer
        } else if is_cut {
            tally.last_due.min(planned)
        } else {
            planned
        };
        let span = span.max(Duration::from_millis(1));
        let until = span.max(tally.last_answer);
        // Where calls are due when they are sent, one row says it.
        let is_late = tally.lag.max().is_some_and(|it| !it.is_zero());
        let mut rows = Vec::new();
        for (source, series) in &tally.given {
            rows.push((source.name().to_owned(), series.from_due.clone()));
            if is_late || !is_closed {
                let name = format!("{}, from sent", source.name());
                rows.push((name, series.from_sent.clone()));
            }
        }
        let refused = tally.refused.iter();
        rows.extend(refused.map(|(reason, it)| (reason.clone(), it.from_due.clone())));
        if is_late || !is_closed {
            rows.push(("sent late by".to_owned(), tally.lag.clone()));
        }
        let others = [
            ("guest's first answer", &tally.asked),
            ("release", &tally.returned),
            ("renew", &tally.renewed),
        ];
        for (name, latencies) in others {
            if latencies.count() > 0 {
                rows.push((name.to_owned(), latencies.clone()));
            }
        }
        let both = |it: &super::tally::Series| FromBoth {
            from_due: it.from_due.summary(),
            from_sent: it.from_sent.summary(),
        };
        Self {
            stamp,
            settings,
            sizes: None,
            pool_before: None,
            pool_after: None,
            due: tally.due,
            not_sent: tally.not_sent,
            given: tally.given_count(),
            refused: tally.refused_count(),
            offered_per_s: tally.due as f64 / span.as_secs_f64(),
            achieved_per_s: tally.given_count() as f64 / until.as_secs_f64(),
            hit_ratio: tally.hit_ratio(),
            replayed: tally.replayed,
            by_source: tally
                .given
                .iter()
                .map(|(it, series)| (it.name().to_owned(), both(series)))
                .collect(),
            by_reason: tally
                .refused
                .iter()
                .map(|(it, series)| (it.clone(), both(series)))
                .collect(),
            lag: tally.lag.summary(),
            returned: tally.returned.summary(),
            not_returned: tally.not_returned.clone(),
            asked: (tally.asked.count() > 0).then(|| tally.asked.summary()),
            not_answered: tally.not_answered.clone(),
            renewed: (tally.renewed.count() > 0).then(|| tally.renewed.summary()),
            not_renewed: tally.not_renewed.clone(),
            seconds: tally.seconds.clone(),
            stages: Vec::new(),
            rows,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { target, arrivals, duration_s, seed, connections, .. } = &self.settings;
        writeln!(
            out,
            "{target}: {arrivals}, {duration_s} s, seed {seed}, {connections} connections"
        )?;
        self.stamp.lines().iter().try_for_each(|it| writeln!(out, "{it}"))?;
        if let Some(Sizes { request_bytes, response_bytes }) = self.sizes {
            writeln!(out, "encoded request {request_bytes} bytes, answer {response_bytes} bytes")?;
        }
        for (when, depth) in [("before", self.pool_before), ("after", self.pool_after)] {
            if let Some(Depth { warm, target, leased, .. }) = depth {
                writeln!(out, "pool {when}: {warm} warm of {target}, {leased} leased")?;
            }
        }
        let Self { due, not_sent, given, refused, .. } = self;
        writeln!(out, "offered  {:>10.1}/s: {due} calls, {not_sent} not sent", self.offered_per_s)?;
        writeln!(
            out,
            "achieved {:>10.1}/s: {given} given, {refused} refused",
            self.achieved_per_s
        )?;
        if let (Some(ratio), Some(_)) = (self.hit_ratio, self.pool_before) {
            writeln!(out, "hit ratio {:>9.3} %", ratio * 100.0)?;
        }
        if self.replayed > 0 {
            writeln!(out, "REPLAYED: {} answers were to other calls", self.replayed)?;
        }
        for (reason, count) in &self.not_answered {
            writeln!(out, "no answer of the guest, {reason}: {count}")?;
        }
        for (reason, count) in &self.not_returned {
            writeln!(out, "not given back, {reason}: {count}")?;
        }
        for (reason, count) in &self.not_renewed {
            writeln!(out, "not renewed, {reason}: {count}")?;
        }
        write!(out, "\n{}", table(self.rows.iter().map(|(name, it)| (name.as_str(), it))))?;
        match self.stages.as_slice() {
            [] => Ok(()),
            stages => write!(out, "\n{}", stages::table(stages)),
        }
    }
}

/// One line of quantiles each. A quantile that the count cannot show is a dash.
pub fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a Latencies)>) -> String {
    let mut text = format!("{:<24} {:>9}", "latency", "count");
    // Writing to a string does not fail.
    for (name, _) in QUANTILES {
        let _ = write!(text, " {name:>10}");
    }
    let _ = writeln!(text, " {:>10}", "max");
    for (name, latencies) in rows {
        let _ = write!(text, "{name:<24} {:>9}", latencies.count());
        let quantiles = QUANTILES.iter().map(|(_, it)| latencies.at(*it));
        for latency in quantiles.chain([latencies.max()]) {
            let _ = match latency {
                Some(latency) => write!(text, " {:>10}", format!("{latency:.1?}")),
                None => write!(text, " {:>10}", "-"),
            };
        }
        text.push('\n');
    }
    text
}

/// One line on a second, for who waits.
pub fn progress(second: &Second) -> String {
    let time = |micros: Option<f64>| match micros {
        Some(micros) => format!("{:.1?}", Duration::from_secs_f64(micros / 1e6)),
        None => "-".to_owned(),
    };
    let (p50, p99, max) = (time(second.p50_us), time(second.p99_us), time(second.max_us));
    let Second { second, due, not_sent, warm, given, refused, in_flight, .. } = second;
    format!(
        "{second:>5} s: {due} due, {not_sent} not sent, {given} given ({warm} warm), \
         {refused} refused, {in_flight} in flight, p50 {p50}, p99 {p99}, max {max}"
    )
}

#[cfg(test)]
mod tests;
