//! Blocks that take turns, as what a budget is held against.

use std::cell::RefCell;
use std::error::Error;
use std::time::Duration;

use hearth_benches::budget::Measured;
use hearth_benches::{Ratio, alternate, median};

/// Measures `ours` and `theirs` in turns, as [`alternate`] does. Blocks.
///
/// # Errors
/// The first one of either.
pub(crate) fn compare(
    blocks: usize,
    mut ours: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
    mut theirs: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let (of_ours, of_theirs) = (RefCell::default(), RefCell::default());
    let keep = |times: &RefCell<Vec<Duration>>, took| {
        times.borrow_mut().push(took);
        eprint!(".");
        took
    };
    alternate(
        blocks,
        |block| ours(block).map(|took| keep(&of_ours, took)),
        |block| theirs(block).map(|took| keep(&of_theirs, took)),
    )?;
    eprintln!();
    // The first of each has warmed the caches.
    let (ours, theirs) = (of_ours.into_inner().split_off(1), of_theirs.into_inner().split_off(1));
    let pairs: Vec<_> = ours.iter().copied().zip(theirs.iter().copied()).collect();
    let say = |times| format!("{:.1?}", median(times));
    Ok(Measured::new(say(ours), say(theirs), Ratio::of(&pairs)))
}
