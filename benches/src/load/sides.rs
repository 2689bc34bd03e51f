//! Two sides of a comparison, each a number of blocks that were measured in turns.

use std::time::Duration;

use serde::Serialize;

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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatioOf {
    /// Which quantile.
    pub quantile: &'static str,
    /// What latencies are counted from: when calls were `due`, or `sent`.
    pub counted_from: &'static str,
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

    /// Calls that were due and not sent.
    pub fn not_sent(&self) -> u64 {
        self.blocks.iter().map(|it| it.not_sent).sum()
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
            rows.push(RatioOf { quantile: name, counted_from, ratio: median, low, high });
        }
    }
    rows
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
        let shown: Vec<_> = rows.iter().map(|it| (it.quantile, it.counted_from)).collect();
        assert_eq!(shown, [("p50", "due"), ("p90", "due"), ("p50", "sent"), ("p90", "sent")]);
        for RatioOf { ratio, low, high, .. } in rows {
            assert!([ratio, low, high].iter().all(|it| (it - 1.5).abs() < 0.01), "{ratio}");
        }
        assert_eq!(ours.from_due.count(), 2_000);
        assert!(ours.from_due.max().unwrap() < Duration::from_millis(4));
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
