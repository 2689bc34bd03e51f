//! Whether an acquire in process costs the same however much there is.

use std::error::Error;
use std::time::Duration;

use hearth_benches::budget::{Bound, Measured, Row};
use hearth_benches::micro::scale::{self, Compared};

use crate::Shown;

const BOUND: Bound = Bound::AtMost(1.5);

/// Measures an acquire beside 100,000 VMs and beside 1,000 pools. Blocks, mostly for the set-up.
///
/// # Errors
/// When a node cannot be started, or an acquire fails.
pub(crate) fn measure() -> Result<Shown, Box<dyn Error>> {
    let rows = scale::measure()?.into_iter().map(|Compared { what, much, little, ratio }| {
        let measured = Measured::new(of_ten(much), of_ten(little), ratio);
        Row::measured(format!("in process: warm acquire, {what}"), BOUND, measured)
    });
    Ok(Shown { rows: rows.collect(), figures: Vec::new() })
}

/// A block is ten acquires.
fn of_ten(block: Duration) -> String {
    format!("{:.1?}", block / 10)
}
