//! What the benches share: ratios of blocks that alternate in one run.
//!
//! A machine's speed drifts, and shared ones are noisy: absolute times say little. Each figure is
//! therefore the median of ratios of blocks measured side by side, with the interval that holds
//! the true median with 95 %.

pub mod budget;
pub mod load;
pub mod micro;
pub mod policies;

use std::time::Duration;

use crate::budget::Measured;

/// The median of ratios, and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Ratio {
    /// Of `pairs` of (ours, theirs), at least 20 of them: the interval is between the order
    /// statistics n/2 -+ 0.98 sqrt(n) (the normal approximation of the sign test).
    ///
    /// # Panics
    /// With fewer than 20 pairs: that is no measurement.
    pub fn of(pairs: &[(Duration, Duration)]) -> Self {
        assert!(pairs.len() >= 20, "a ratio takes at least 20 pairs");
        let mut ratios: Vec<_> =
            pairs.iter().map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len() as f64;
        let reach = 0.98 * count.sqrt();
        let at = |rank: f64| ratios[(rank.max(0.0) as usize).min(ratios.len() - 1)];
        Self {
            median: at(count / 2.0),
            low: at((count / 2.0 - reach).floor()),
            high: at((count / 2.0 + reach).ceil()),
        }
    }
}

/// What blocks that took turns have shown.
#[derive(Clone, Debug)]
pub struct Alternation {
    /// Of each block, what ours took and what theirs took.
    pairs: Vec<(Duration, Duration)>,
}

/// Measures `ours` and `theirs` in turns, `blocks` times; they get the number of the block, and
/// answer what is typical of it. A first block of each warms the caches and is not counted, and
/// who ends one pair begins the next: what favours the first favours both. Blocks.
///
/// # Errors
/// The first one of either.
pub fn alternate<E>(
    blocks: usize,
    mut ours: impl FnMut(usize) -> Result<Duration, E>,
    mut theirs: impl FnMut(usize) -> Result<Duration, E>,
) -> Result<Alternation, E> {
    let mut pairs = vec![(Duration::ZERO, Duration::ZERO); blocks + 1];
    take_turns(blocks, 2, |block, side| {
        match side {
            0 => pairs[block].0 = ours(block)?,
            _ => pairs[block].1 = theirs(block)?,
        }
        Ok(())
    })?;
    pairs.remove(0);
    Ok(Alternation { pairs })
}

/// Has so many sides take turns, once in the block 0, which warms up, and in each of `blocks` after it:
/// `measure` gets the numbers of the block and of the side. The order is turned round from block to block.
///
/// # Errors
/// The first one of `measure`.
pub fn take_turns<E>(
    blocks: usize,
    sides: usize,
    mut measure: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    for block in 0..=blocks {
        for turn in 0..sides {
            measure(block, if block % 2 == 0 { turn } else { sides - 1 - turn })?;
        }
    }
    Ok(())
}

impl Alternation {
    /// The medians of both, and that of their ratios.
    ///
    /// # Panics
    /// With fewer than 20 blocks: that is no measurement.
    pub fn measured(&self) -> Measured {
        let (ours, theirs): (Vec<_>, Vec<_>) = self.pairs.iter().copied().unzip();
        let say = |times| format!("{:.1?}", median(times));
        Measured::new(say(ours), say(theirs), Ratio::of(&self.pairs))
    }
}

/// The median of some times.
///
/// # Panics
/// Without any.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_changes_with_each_block() {
        let calls = std::cell::RefCell::new(Vec::new());
        let note = |name| {
            let calls = &calls;
            move |block| {
                calls.borrow_mut().push((block, name));
                Ok::<_, ()>(Duration::from_millis(1))
            }
        };
        let measured = alternate(2, note('a'), note('b')).unwrap();
        assert_eq!(measured.pairs.len(), 2, "the first block is not counted");
        let expected = [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')];
        assert_eq!(*calls.borrow(), expected);
    }

    #[test]
    fn a_ratio_is_the_median_of_its_pairs() {
        let ms = Duration::from_millis;
        let pairs: Vec<_> = (1..=21).map(|it| (ms(it * 10), ms(100))).collect();
        let ratio = Ratio::of(&pairs);
        assert!((ratio.median - 1.1).abs() < 1e-9);
        assert!(ratio.low < ratio.median && ratio.median < ratio.high);
    }
}
