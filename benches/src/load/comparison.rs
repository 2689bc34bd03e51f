//! What a comparison of a hearth with the floor has shown: as a table, and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hearth::{Depth, Sizes};
use super::latencies::{Latencies, Summary};
use super::report::{Settings, table};
use super::sides::{RateRatio, RatioOf, Side, rate_ratio, ratios};
use super::stamp::Stamp;
use super::versus::Versus;

/// Where fewer of the answers are warm VMs, or the floor's, it is something else that was measured.
const LEAST_RATIO: f64 = 0.999;

/// What a comparison has shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// On what.
    pub stamp: Stamp,
    /// Of what.
    pub settings: Settings,
    /// Encoded messages.
    pub sizes: Sizes,
    /// The pool before the first block.
    pub depth: Depth,
    /// Blocks of each that count.
    pub blocks: u16,
    /// The part of the hearth's answers that were warm VMs, of all blocks.
    pub hit_ratio: f64,
    /// The part of the floor's answers that were answers.
    pub floor_given_ratio: f64,
    /// Calls that were due and not sent, to either.
    pub not_sent: u64,
    /// Latencies of the hearth, from when calls were due.
    pub hearth: Summary,
    /// The same, of the floor.
    pub floor: Summary,
    /// The hearth's latencies over the floor's.
    pub ratios: Vec<RatioOf>,
    /// In a closed loop: the hearth's calls per second over the floor's.
    #[serde(default)]
    pub rate: Option<RateRatio>,
    #[serde(skip)]
    rows: Vec<(&'static str, Latencies)>,
}

impl Comparison {
    /// Of the hearth's side and the floor's.
    ///
    /// # Panics
    /// With fewer than 20 blocks: that is no measurement.
    pub fn new(
        stamp: Stamp,
        settings: Settings,
        versus: &Versus,
        blocks: u16,
        (ours, theirs): (&Side, &Side),
    ) -> Self {
        // An open loop has the rate that it is told, on both sides.
        let is_closed = settings.in_flight.is_some();
        let mut ratios = ratios(ours, theirs);
        let mut rows =
            vec![("hearth, warm", ours.from_due.clone()), ("floor", theirs.from_due.clone())];
        if is_closed {
            // Calls are due when they are sent.
            ratios.retain(|it| it.counted_from == "sent");
        } else {
            rows.push(("hearth, warm, from sent", ours.from_sent.clone()));
            rows.push(("floor, from sent", theirs.from_sent.clone()));
        }
        Self {
            sizes: versus.sizes,
            depth: versus.depth,
            blocks,
            hit_ratio: ours.given_ratio(),
            floor_given_ratio: theirs.given_ratio(),
            not_sent: ours.not_sent() + theirs.not_sent(),
            hearth: ours.from_due.summary(),
            floor: theirs.from_due.summary(),
            ratios,
            rate: is_closed.then(|| rate_ratio(ours, theirs)).flatten(),
            stamp,
            settings,
            rows,
        }
    }

    /// Whether it measured what it says: warm claims, and answers of the floor, all of them sent.
    pub fn measures_warm_claims(&self) -> bool {
        let are_given = self.hit_ratio.min(self.floor_given_ratio) >= LEAST_RATIO;
        are_given && self.not_sent == 0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { target, arrivals, duration_s, block_calls, cycle, .. } = &self.settings;
        let what = if *cycle { ", cycles: acquire and release, two empty calls" } else { "" };
        let most = block_calls.map(|it| format!(" or {it} calls")).unwrap_or_default();
        let blocks = self.blocks;
        writeln!(out, "{target}: {arrivals}{what}, {blocks} blocks of {duration_s} s{most} each")?;
        self.stamp.lines().iter().try_for_each(|it| writeln!(out, "{it}"))?;
        let Sizes { request_bytes, response_bytes } = self.sizes;
        writeln!(out, "encoded request {request_bytes} bytes, answer {response_bytes} bytes")?;
        let Depth { warm, target, .. } = self.depth;
        let hits = self.hit_ratio * 100.0;
        writeln!(out, "pool before: {warm} warm of {target}; hit ratio {hits:.3} %")?;
        writeln!(out, "\n{}", table(self.rows.iter().map(|(name, it)| (*name, it))))?;
        writeln!(out, "ratio, median of {blocks} blocks [95 % interval]")?;
        for RatioOf { quantile, counted_from, ratio, low, high } in &self.ratios {
            writeln!(out, "{quantile:<7} from {counted_from:<5} {ratio:.2} [{low:.2}, {high:.2}]")?;
        }
        if let Some(RateRatio { ours_per_s, theirs_per_s, ratio, low, high }) = &self.rate {
            let name = if *cycle { "cycles per second" } else { "calls per second" };
            write!(out, "{name:<18} {ratio:.2} [{low:.2}, {high:.2}]: ")?;
            writeln!(out, "hearth {ours_per_s:.0}, floor {theirs_per_s:.0}")?;
        }
        if !self.measures_warm_claims() {
            let percent = LEAST_RATIO * 100.0;
            writeln!(
                out,
                "NOT a measure of warm claims: less than {percent} % given, or some not sent"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that was measured well, with these ratios of p50 and of rates.
    pub(crate) fn comparison(p50: (f64, f64, f64), rate: (f64, f64, f64)) -> Comparison {
        let mut latencies = Latencies::default();
        (1..=2000).for_each(|it| latencies.record(std::time::Duration::from_micros(it)));
        let (quantile, counted_from) = ("p50".to_owned(), "sent".to_owned());
        Comparison {
            stamp: Stamp::take(None),
            settings: Settings { in_flight: Some(64), ..Settings::default() },
            sizes: Sizes { request_bytes: 60, response_bytes: 200 },
            depth: Depth { warm: 100, target: 100, ..Depth::default() },
            blocks: 20,
            hit_ratio: 1.0,
            floor_given_ratio: 1.0,
            not_sent: 0,
            hearth: latencies.summary(),
            floor: latencies.summary(),
            ratios: vec![RatioOf { quantile, counted_from, ratio: p50.0, low: p50.1, high: p50.2 }],
            rate: Some(RateRatio {
                ours_per_s: 700.0,
                theirs_per_s: 1000.0,
                ratio: rate.0,
                low: rate.1,
                high: rate.2,
            }),
            rows: vec![("floor", latencies)],
        }
    }

    #[test]
    fn a_table_has_the_ratios_and_says_when_they_are_of_something_else() {
        let mut comparison = comparison((1.25, 1.2, 1.3), (0.7, 0.65, 0.75));
        let text = comparison.to_string();
        for part in [
            "p50     from sent  1.25 [1.20, 1.30]",
            "calls per second   0.70 [0.65, 0.75]: hearth 700, floor 1000",
            "pool before: 100 warm of 100; hit ratio 100.000 %",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(comparison.measures_warm_claims() && !text.contains("NOT a measure"), "{text}");
        comparison.hit_ratio = 0.9;
        assert!(comparison.to_string().contains("NOT a measure"));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let comparison = comparison((1.0, 1.0, 1.0), (1.0, 1.0, 1.0));
        let json = serde_json::to_value(comparison).unwrap();
        let read: Comparison = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }
}
