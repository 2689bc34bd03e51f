//! Blocks that take turns, as what a budget is held against.

use std::error::Error;
use std::time::Duration;

use hearth_benches::alternate;
use hearth_benches::budget::Measured;

/// Measures `ours` and `theirs` in turns, as [`alternate`] does. Blocks.
///
/// # Errors
/// The first one of either.
pub(crate) fn compare(
    blocks: usize,
    mut ours: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
    theirs: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let shown = alternate(
        blocks,
        |block| {
            eprint!(".");
            ours(block)
        },
        theirs,
    )?;
    eprintln!();
    Ok(shown.measured())
}
