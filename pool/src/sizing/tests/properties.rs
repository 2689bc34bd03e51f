//! What holds for every load, promise and order of events.

use std::time::Duration;

use proptest::prelude::*;

use crate::sizing::{Bound, Demand, Depth, Promise, depth_for, miss_ratio};

/// The formula as textbooks have it.
fn by_recursion(depth: usize, load: f64) -> f64 {
    (1..=depth).fold(1.0, |ratio, k| load * ratio / (k as f64 + load * ratio))
}

fn loads() -> impl Strategy<Value = f64> {
    (-4.0..4.0_f64).prop_map(|it| 10.0_f64.powf(it))
}

fn ratios() -> impl Strategy<Value = f64> {
    (-9.0..-0.01_f64).prop_map(|it| 10.0_f64.powf(it))
}

proptest! {
    #[test]
    fn the_cut_sum_is_the_recursion(depth in 0..3_000_usize, load in loads()) {
        let (short, long) = (miss_ratio(depth, load), by_recursion(depth, load));
        prop_assert!((short - long).abs() <= 1e-9 * long + 1e-290, "{short} {long}");
    }

    #[test]
    fn the_depth_is_the_smallest_that_keeps_the_promise(load in loads(), ratio in ratios()) {
        let depth = depth_for(load, ratio, 1 << 20);
        prop_assert!(miss_ratio(depth, load) <= ratio * (1.0 + 1e-9));
        prop_assert!(depth == 0 || miss_ratio(depth - 1, load) > ratio * (1.0 - 1e-9));
    }

    #[test]
    fn more_load_and_a_better_promise_take_more(
        load in loads(),
        more in 1.0..3.0_f64,
        ratio in ratios(),
        part in 0.01..1.0_f64,
        most in 0..5_000_usize,
    ) {
        let depth = depth_for(load, ratio, most);
        prop_assert!(depth <= most);
        prop_assert!(depth_for(load * more, ratio, most) >= depth);
        prop_assert!(depth_for(load, ratio * part, most) >= depth);
        prop_assert!(depth == most || depth_for(load, ratio, most + 1) == depth);
    }
}

/// What may happen to a pool, with how long after the last; times that stand still, too.
#[derive(Clone, Debug)]
enum Event {
    Claimed,
    Restored(Duration, Duration),
    Asked(Promise),
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (0..2_000_000_u64).prop_map(Duration::from_nanos),
        (0..5_000_u64).prop_map(Duration::from_millis),
        (0..100_000_u64).prop_map(Duration::from_secs),
        Just(Duration::MAX),
    ]
}

fn promises() -> impl Strategy<Value = Promise> {
    let ratio = prop_oneof![ratios(), Just(0.0), Just(1.0), Just(f64::NAN), Just(-1.0)];
    (ratio, 0..40_usize, 0..100_000_usize).prop_map(|(miss_ratio, min, max)| Promise {
        miss_ratio,
        min,
        max,
    })
}

fn events() -> impl Strategy<Value = (Duration, Event)> {
    let event = prop_oneof![
        6 => Just(Event::Claimed),
        2 => (durations(), durations()).prop_map(|(took, queued)| Event::Restored(took, queued)),
        3 => promises().prop_map(Event::Asked),
    ];
    (durations(), event)
}

fn check(depth: &Depth, promise: &Promise) {
    let Depth { target, wanted, bound, .. } = *depth;
    assert!(target <= promise.max && target >= promise.min.min(promise.max), "{depth:?}");
    assert_eq!(target, wanted.min(promise.max), "{depth:?}");
    assert_eq!(bound == Bound::Max, wanted > promise.max, "{depth:?}");
    assert!(depth.claims_per_second.is_finite() && depth.claims_per_second >= 0.0, "{depth:?}");
    assert!(depth.offered_load.is_finite() && depth.offered_load >= 0.0, "{depth:?}");
    assert!((0.0..=1.0).contains(&depth.predicted_miss_ratio), "{depth:?}");
    match bound {
        Bound::Promise => assert_eq!(target, depth.promise_depth),
        Bound::Peak => assert_eq!(target, depth.peak_depth),
        Bound::Min => assert_eq!(target, promise.min),
        Bound::Max => assert_eq!(target, promise.max),
        other => panic!("{other:?} is not for a single pool to say"),
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_are_kept_and_every_figure_is_a_number(
        hint in proptest::option::of(durations()),
        events in proptest::collection::vec(events(), 0..200),
    ) {
        let mut now = Duration::from_secs(1);
        let mut demand = match hint {
            Some(hint) => Demand::with_restore_time(now, hint),
            None => Demand::new(now),
        };
        for (passed, event) in events {
            // Past the end of time it begins again: the clock goes backwards.
            now = now.checked_add(passed).unwrap_or_default();
            match event {
                Event::Claimed => demand.claimed(now),
                Event::Restored(took, queued) => demand.restored(took, queued),
                Event::Asked(promise) => {
                    check(&demand.depth(now, &promise), &promise);
                    let falls_at = demand.decays_at();
                    prop_assert!(falls_at.is_none_or(|it| it > now || it == Duration::MAX));
                }
            }
        }
    }
}
