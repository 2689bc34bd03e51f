//! How many should be warm: the formula alone, and what a claim costs the books.

use std::hint::black_box;
use std::time::Duration;

use hearth_pool::sizing::{self, Demand, Promise};

use super::{Fixture, repeat};

/// What is promised.
const MISS_RATIO: f64 = 0.001;
/// How long a restore takes.
const RESTORE_TIME: Duration = Duration::from_millis(50);
/// The depth that no load here reaches.
const MOST: usize = 100_000;

/// The depth for one load, from nothing.
pub(super) fn depth_for(offered_load: f64) -> Box<dyn Fixture> {
    repeat(move || {
        black_box(sizing::depth_for(black_box(offered_load), MISS_RATIO, MOST));
    })
}

/// A claim comes, its restore ends, and the depth is asked for: once as often as in a restore's time
/// `offered_load` claims come.
pub(super) fn claim_and_depth(offered_load: u32) -> Box<dyn Fixture> {
    let promise = Promise { miss_ratio: MISS_RATIO, min: 0, max: MOST };
    let mut demand = Demand::with_restore_time(Duration::ZERO, RESTORE_TIME);
    let (mut now, gap) = (Duration::ZERO, RESTORE_TIME / offered_load);
    repeat(move || {
        now += gap;
        demand.claimed(now);
        demand.restored(RESTORE_TIME, Duration::ZERO);
        black_box(demand.depth(now, &promise));
    })
}
