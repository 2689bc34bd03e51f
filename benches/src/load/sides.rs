//! Two sides of a comparison, each a number of blocks that were measured in turns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latencies::{Latencies, QUANTILES};
use super::tally::{Series, Source, Tally};
use crate::Ratio;

/// What the blocks of one side have shown; the first one warmed up and is not among them.
#[derive(Clone, Debug)]
pub struct Side {
    source: Source,
    blocks: Vec<Tally>,
    /// Of all blocks, from when calls were due.
    pub from_due: Latencies,
    /// Of all blocks, from when calls were sent.
    pub from_sent: Latencies,
}

/// The ratio of a quantile of one side to that of the other, by blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioOf {
    /// Which quantile.
    pub quantile: String,
    /// What latencies are counted from: when calls were `due`, or `sent`.
    pub counted_from: String,
    /// The median of the blocks' ratios.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
}

/// The rates of both sides, and the ratio of one to the other by blocks: above 1, ours is higher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateRatio {
    /// Calls that ours gave each second, the median of its blocks.
    pub ours_per_s: f64,
    /// The same, of theirs.
    pub theirs_per_s: f64,
    /// The median of the blocks' ratios.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
}

impl Side {
    /// Of all `blocks` but the first, by what `source` gave in them.
    pub fn of(source: Source, mut blocks: Vec<Tally>) -> Self {
        if !blocks.is_empty() {
            blocks.remove(0);
        }
        let (mut from_due, mut from_sent) = (Latencies::default(), Latencies::default());
        for series in blocks.iter().filter_map(|it| it.given.get(&source)) {
            from_due.add(&series.from_due);
            from_sent.add(&series.from_sent);
        }
        Self { source, blocks, from_due, from_sent }
    }

    /// The part of all answered calls that the source gave; 0 without answers.
    pub fn given_ratio(&self) -> f64 {
        let answered = self.blocks.iter().map(|it| it.given_count() + it.refused_count());
        self.from_due.count() as f64 / answered.sum::<u64>().max(1) as f64
    }

    /// Calls that were answered and given nothing.
    pub fn refused(&self) -> u64 {
        self.blocks.iter().map(Tally::refused_count).sum()
    }

    /// Calls that were due and not sent.
    pub fn not_sent(&self) -> u64 {
        self.blocks.iter().map(|it| it.not_sent).sum()
    }

    /// How many calls were given each second in each block; `None` when a block gave none.
    fn rates(&self) -> Option<Vec<f64>> {
        self.blocks.iter().map(Tally::given_per_s).collect()
    }

    /// A quantile of each block; `None` when there is a block that cannot show it.
    fn quantile(&self, quantile: f64, of: Latency) -> Option<Vec<Duration>> {
        let blocks = self.blocks.iter().map(|it| it.given.get(&self.source));
        blocks.map(|series| of(series?).at(quantile)).collect()
    }
}

/// Which of the latencies of a series.
type Latency = fn(&Series) -> &Latencies;

/// The ratios of all quantiles that every block of both can show.
///
/// # Panics
/// With fewer than 20 blocks: that is no measurement.
pub fn ratios(ours: &Side, theirs: &Side) -> Vec<RatioOf> {
    let froms: [(_, Latency); 2] = [("due", |it| &it.from_due), ("sent", |it| &it.from_sent)];
    let mut rows = Vec::new();
    for (counted_from, of) in froms {
        for (name, quantile) in QUANTILES {
            let both = ours.quantile(quantile, of).zip(theirs.quantile(quantile, of));
            let Some((ours, theirs)) = both else { continue };
            let pairs: Vec<_> = ours.into_iter().zip(theirs).collect();
            let Ratio { median, low, high } = Ratio::of(&pairs);
            let (quantile, counted_from) = (name.to_owned(), counted_from.to_owned());
            rows.push(RatioOf { quantile, counted_from, ratio: median, low, high });
        }
    }
    rows
}

/// The ratio of the rates; `None` when a block of either gave nothing.
///
/// # Panics
/// With fewer than 20 blocks: that is no measurement.
pub fn rate_ratio(ours: &Side, theirs: &Side) -> Option<RateRatio> {
    let (ours, theirs) = ours.rates().zip(theirs.rates())?;
    // The ratio of rates is that of the times of as many calls, the other way round. A million
    // calls, so that nanoseconds are fine enough.
    let time = |rate: &f64| Duration::from_secs_f64(1e6 / rate);
    let pairs: Vec<_> = theirs.iter().map(time).zip(ours.iter().map(time)).collect();
    let Ratio { median, low, high } = Ratio::of(&pairs);
    let (ours_per_s, theirs_per_s) = (middle(ours), middle(theirs));
    Some(RateRatio { ours_per_s, theirs_per_s, ratio: median, low, high })
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Times, Verdict};
    use super::*;

    /// Blocks of 100 calls that took as long; the one that warmed up took ten times that.
    fn side(source: Source, took: Duration) -> Side {
        let block = |number: u32| {
            let mut tally = Tally::default();
            let answered = if number == 0 { took * 10 } else { took };
            let times = Times { due: Duration::ZERO, sent: took / 2, answered };
            (0..100).for_each(|_| tally.answered(Verdict::Given(source), times));
            tally.answered(Verdict::Refused("POOL_EMPTY".to_owned()), times);
            tally
        };
        Side::of(source, (0..=20).map(block).collect())
    }

    #[test]
    fn a_ratio_is_of_blocks_and_the_first_one_does_not_count() {
        let ours = side(Source::Warm, Duration::from_millis(3));
        let theirs = side(Source::Floor, Duration::from_millis(2));
        let rows = ratios(&ours, &theirs);
        let shown = rows.iter().map(|it| (it.quantile.as_str(), it.counted_from.as_str()));
        let shown: Vec<_> = shown.collect();
        assert_eq!(shown, [("p50", "due"), ("p90", "due"), ("p50", "sent"), ("p90", "sent")]);
        for RatioOf { ratio, low, high, .. } in rows {
            assert!([ratio, low, high].iter().all(|it| (it - 1.5).abs() < 0.01), "{ratio}");
        }
        assert_eq!(ours.from_due.count(), 2_000);
        assert!(ours.from_due.max().unwrap() < Duration::from_millis(4));
    }

    #[test]
    fn a_ratio_of_rates_is_above_one_for_the_one_that_gives_more() {
        let ours = side(Source::Warm, Duration::from_millis(4));
        let theirs = side(Source::Floor, Duration::from_millis(2));
        let RateRatio { ours_per_s, theirs_per_s, ratio, low, high } =
            rate_ratio(&ours, &theirs).unwrap();
        // 100 calls in 4 ms, and in 2 ms.
        assert!((ours_per_s - 25_000.0).abs() < 1.0, "{ours_per_s}");
        assert!((theirs_per_s - 50_000.0).abs() < 1.0, "{theirs_per_s}");
        assert!([ratio, low, high].iter().all(|it| (it - 0.5).abs() < 1e-3), "{ratio}");
        let mut none = theirs;
        none.blocks[3] = Tally::default();
        assert_eq!(rate_ratio(&ours, &none), None);
    }

    #[test]
    fn what_was_refused_was_not_given() {
        let ours = side(Source::Warm, Duration::from_millis(1));
        assert!((ours.given_ratio() - 100.0 / 101.0).abs() < 1e-9);
        assert!(Side::of(Source::Warm, Vec::new()).given_ratio().abs() < 1e-9);
    }

    #[test]
    fn a_block_that_was_given_nothing_shows_no_ratio() {
        let ours = side(Source::Warm, Duration::from_millis(1));
        let mut theirs = side(Source::Floor, Duration::from_millis(1));
        theirs.blocks[5] = Tally::default();
        assert_eq!(ratios(&ours, &theirs), []);
    }
}
