//! What metrics cost: those who record, and whoever scrapes a node with many pools.

use std::error::Error;
use std::time::Duration;

use hearth_benches::Ratio;
use hearth_benches::budget::{Bound, Measured, Row};
use hearth_benches::micro::{Stopwatch, cases, run};

use crate::Shown;

/// A budget of time, in place of another side.
const BOUND: Bound = Bound::AtMost(1.0);
const BLOCKS: usize = 25;

/// Measures both against their budgets. Blocks.
///
/// # Errors
/// When a case is gone from the list.
pub(crate) fn measure() -> Result<Shown, Box<dyn Error>> {
    let rows = [
        row(
            "metrics/acquired/pools_1000",
            4_096,
            Duration::from_micros(1),
            "all that an acquire records",
        )?,
        row("metrics/scrape/pools_1000", 1, Duration::from_millis(20), "a scrape of 1,000 pools")?,
    ];
    Ok(Shown { rows: rows.into(), figures: Vec::new() })
}

fn row(case: &str, in_a_block: usize, budget: Duration, what: &str) -> Result<Row, Box<dyn Error>> {
    let case = cases::all().into_iter().find(|it| it.name == case).ok_or("a case is gone")?;
    let mut fixture = (case.set_up)()?;
    let mut blocks = Vec::new();
    // The first is a warm-up.
    for _ in 0..=BLOCKS {
        let mut stopwatch = Stopwatch::default();
        run(fixture.as_mut(), in_a_block, &mut stopwatch)?;
        blocks.push((stopwatch.total, budget * in_a_block as u32));
    }
    blocks.remove(0);
    let took = hearth_benches::median(blocks.iter().map(|it| it.0).collect());
    let ours = format!("{:.1?}", took.div_f64(in_a_block as f64));
    Ok(Row::measured(what, BOUND, Measured::new(ours, format!("{budget:?}"), Ratio::of(&blocks))))
}
