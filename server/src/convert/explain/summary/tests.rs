use hearth_pool::sizing::Depth;

use super::*;

const RESTORE: Duration = Duration::from_millis(250);

fn status() -> PoolStatus {
    PoolStatus {
        warm: 9,
        outdated: 0,
        target: 9,
        restoring: 0,
        leased: 0,
        quarantined: 0,
        waiting: 0,
        generation: 1,
        breaker_open: false,
        failures: 0,
        reason: String::new(),
        retry_after: Duration::ZERO,
        restore_time: Some(RESTORE),
        draining: false,
        prewarmed: 0,
    }
}

fn depth(bound: Bound) -> Depth {
    Depth {
        target: 9,
        wanted: 12,
        promise_depth: 7,
        peak_depth: 9,
        bound,
        claims_per_second: 12.34,
        offered_load: 3.085,
        predicted_miss_ratio: 0.0009,
    }
}

/// What is said of a pool after `change`.
fn said(bound: Bound, change: impl FnOnce(&mut PoolStatus, &mut Facts<'_>)) -> String {
    let (status, mut changed) = (status(), status());
    let plan = Plan { depth: depth(bound), target: 9, most: usize::MAX, limit: RestoreLimit::None };
    let mut facts = Facts {
        name: "pools/web",
        plan,
        promise: Some(0.001),
        status: &status,
        lead_time: Some(RESTORE),
        max_restoring: 4,
        claims: 10_000,
        misses: 3,
        most_missed: Some("POOL_EMPTY".to_owned()),
        not_ready: None,
    };
    change(&mut changed, &mut facts);
    summary(&Facts { status: &changed, ..facts })
}

#[test]
fn a_pool_that_keeps_its_promise_says_how() {
    let text = said(Bound::Promise, |_, _| ());
    assert_eq!(
        text,
        "pools/web is claimed from 12.3 times a second, and a restore takes 250 ms until its \
         VM is warm: 3.08 claims fall within one. 9 should be warm (the fewest for at most \
         0.1 % to find nothing warm), and 9 are. Of acquires 0.09 % are expected to find \
         nothing warm; 3 of 10000 did since the start (0.03 %), most of them for POOL_EMPTY."
    );
}

#[test]
fn every_bound_is_told_apart() {
    let bounds = [
        (Bound::Fixed, "a fixed depth"),
        (Bound::Peak, "the promise alone takes 7"),
        (Bound::Min, "its min; what it measured takes 12"),
        (Bound::Max, "its max; the promise takes 12"),
        (Bound::Budget, "the node's budget leaves of 9"),
        (Bound::Prewarm, "9 of its own and 0 that were announced"),
        (Bound::Drain, "the node is drained"),
    ];
    for (bound, words) in bounds {
        let text = said(bound, |_, _| ());
        assert!(text.contains(words), "{text}");
    }
    assert!(said(Bound::Drain, |status, _| status.draining = true).contains("the pool is"));
}

#[test]
fn what_no_depth_helps_against_is_said() {
    assert!(!said(Bound::Max, |_, _| ()).contains("No depth helps"));
    let text = said(Bound::Max, |_, facts| facts.plan.depth.claims_per_second = 20.0);
    assert!(text.contains("5 would have to run at once, and 4 may. No depth helps"), "{text}");
    // The wait for a place is no reason for more places.
    let waits = said(Bound::Max, |_, facts| facts.lead_time = Some(RESTORE * 100));
    assert!(!waits.contains("No depth helps"), "{waits}");
}

#[test]
fn what_holds_restores_back_is_said() {
    let text = said(Bound::Promise, |status, facts| {
        (status.restoring, status.failures) = (4, 2);
        (status.breaker_open, status.retry_after) = (true, Duration::from_secs(3));
        status.reason = "it hangs".to_owned();
        facts.plan.limit = RestoreLimit::Pool;
    });
    assert!(text.contains("Restores run: 4, at most 4; the pool's max_parallel_restores"));
    assert!(text.contains("2 in a row, the last: it hangs; the next is tried in 3 s."), "{text}");
    let building =
        said(Bound::Promise, |_, facts| facts.not_ready = Some("it is being built".to_owned()));
    assert!(building.contains("Its template is not ready: it is being built."), "{building}");
}

#[test]
fn a_pool_of_which_nothing_is_known_says_that() {
    let text = said(Bound::Min, |_, facts| {
        (facts.lead_time, facts.claims, facts.most_missed) = (None, 0, None);
        facts.plan.depth.claims_per_second = 0.0;
    });
    assert!(text.contains("Nobody claims from pools/web now, and no restore has been measured"));
    assert!(text.contains("is not known yet; nobody has asked since the start"), "{text}");
}

#[test]
fn numbers_have_three_digits() {
    let cases = [
        (0.0, "0"),
        (0.0309, "0.031"),
        (1.0, "1"),
        (9.876, "9.88"),
        (100.0, "100"),
        (1e6, "1000000"),
    ];
    for (value, text) in cases {
        assert_eq!(number(value), text);
    }
    assert_eq!(percent(1e-9), "less than 0.001 %");
}
