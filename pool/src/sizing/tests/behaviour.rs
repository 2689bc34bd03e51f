//! What a pool sees of the rule: fast up, slow down, nothing for nobody.

use std::time::Duration;

use crate::sizing::{Bound, Demand, Promise, depth_for};

const PROMISE: Promise = Promise { miss_ratio: 0.001, min: 0, max: 100_000 };
const BOOT: Duration = Duration::from_secs(1_000);

/// A pool and its time.
struct Pool {
    demand: Demand,
    now: Duration,
    promise: Promise,
}

impl Pool {
    fn new(restore: Duration) -> Self {
        let demand = Demand::with_restore_time(BOOT, restore);
        Self { demand, now: BOOT, promise: PROMISE }
    }

    /// Claims so many a second, evenly, for so long; the target after each.
    fn claims(&mut self, per_second: u32, time: Duration) -> Vec<usize> {
        let gap = Duration::from_secs(1) / per_second;
        let count = (time.as_secs_f64() * f64::from(per_second)) as usize;
        let claim = |_| {
            self.now += gap;
            self.demand.claimed(self.now);
            self.target()
        };
        (0..count).map(claim).collect()
    }

    fn batch(&mut self, size: usize) {
        for _ in 0..size {
            self.demand.claimed(self.now);
            self.target();
        }
    }

    fn target(&mut self) -> usize {
        self.demand.depth(self.now, &self.promise).target
    }

    /// Lets time pass, asking only when the demand says so; how often that was.
    fn silence(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut asked = 0;
        while let Some(at) = self.demand.decays_at().filter(|it| *it < end) {
            assert!(at > self.now, "it makes progress");
            self.now = at;
            self.target();
            asked += 1;
        }
        self.now = end;
        asked
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn steady_demand_gets_the_depth_of_the_formula() {
    let mut pool = Pool::new(millis(300));
    let targets = pool.claims(50, Duration::from_secs(300));
    let expected = depth_for(15.0, 0.001, 1_000);
    let last = targets[targets.len() - 1];
    assert!(last.abs_diff(expected) <= 1, "{last}, not {expected}");
    assert!((pool.demand.claims_per_second(pool.now) - 50.0).abs() < 2.0);
}

#[test]
fn a_jump_is_followed_within_a_second() {
    let mut pool = Pool::new(millis(300));
    pool.claims(10, Duration::from_secs(60));
    let before = pool.target();
    let targets = pool.claims(100, Duration::from_secs(1));
    let expected = depth_for(30.0, 0.001, 1_000);
    let reached = targets[targets.len() - 1];
    assert!(before <= depth_for(3.5, 0.001, 1_000));
    assert!(reached * 10 >= expected * 8, "{reached} of {expected}");
}

#[test]
fn it_falls_later_than_it_rises_and_all_the_way() {
    let mut pool = Pool::new(millis(300));
    pool.claims(100, Duration::from_secs(60));
    let high = pool.target();
    // What is retired now is missing for as long as a restore takes.
    let soon = pool.claims(10, millis(150));
    assert!(soon.iter().all(|it| *it + 1 >= high), "{soon:?} after {high}");
    let later = pool.claims(10, Duration::from_secs(60));
    let expected = depth_for(3.0, 0.001, 1_000);
    let last = later[later.len() - 1];
    assert!(last.abs_diff(expected) <= 1, "{last}, not {expected}");
}

#[test]
fn silence_leads_to_the_minimum_and_the_first_claim_back() {
    for min in [0, 3] {
        let mut pool = Pool::new(millis(300));
        pool.promise.min = min;
        pool.claims(100, Duration::from_secs(60));
        let asked = pool.silence(Duration::from_secs(3_600));
        assert!(asked < 2_000, "it is asked {asked} times");
        let depth = pool.demand.depth(pool.now, &pool.promise);
        assert_eq!((depth.target, depth.bound), (min, Bound::Min));
        assert_eq!(pool.demand.decays_at(), None, "nothing left to fall");
        pool.demand.claimed(pool.now);
        assert!(pool.target() >= 1.max(min), "the second claim finds one");
    }
}

#[test]
fn a_burst_is_kept_ready_for_and_fades_in_silence() {
    let mut pool = Pool::new(millis(30));
    for _ in 0..30 {
        pool.now += Duration::from_secs(10);
        pool.batch(16);
    }
    let depth = pool.demand.depth(pool.now, &pool.promise);
    assert_eq!((depth.target, depth.bound), (16, Bound::Peak));
    pool.silence(Duration::from_secs(100));
    assert_eq!(pool.target(), 16, "it is kept for two minutes");
    pool.silence(Duration::from_secs(100));
    let faded = pool.target();
    assert!((1..16).contains(&faded), "{faded}");
    pool.silence(Duration::from_secs(600));
    assert_eq!(pool.target(), 0);
}

#[test]
fn a_burst_is_paid_for_by_the_claims_that_were_served() {
    let mut pool = Pool::new(millis(30));
    pool.claims(30, Duration::from_secs(30));
    pool.batch(40);
    let peak = |pool: &mut Pool| pool.demand.depth(pool.now, &pool.promise).peak_depth;
    let high = peak(&mut pool);
    assert!(high >= 40, "{high}");
    // A promise of one in a thousand: 20,000 claims take ten VMs off, half a VM a thousand.
    pool.claims(30, Duration::from_secs(667));
    let later = peak(&mut pool);
    assert!(later.abs_diff(high - 10) <= 1, "{later} after {high}");
}

#[test]
fn independent_claims_are_no_bursts() {
    let mut pool = Pool::new(millis(300));
    // Two at once, ten times a second: lumpy, and nothing that a rate does not explain.
    for _ in 0..600 {
        pool.now += millis(100);
        pool.batch(2);
    }
    let depth = pool.demand.depth(pool.now, &pool.promise);
    assert!(depth.bound == Bound::Promise && depth.peak_depth <= 8, "{depth:?}");
}

#[test]
fn the_maximum_binds_and_says_so() {
    let mut pool = Pool::new(Duration::from_secs(2));
    pool.promise.max = 20;
    pool.claims(50, Duration::from_secs(60));
    let depth = pool.demand.depth(pool.now, &pool.promise);
    assert_eq!((depth.target, depth.bound), (20, Bound::Max));
    assert!(depth.wanted.abs_diff(128) <= 6 && depth.predicted_miss_ratio > 0.5, "{depth:?}");
}

#[test]
fn an_unknown_restore_time_is_taken_for_a_second_until_it_is_measured() {
    let mut demand = Demand::new(BOOT);
    assert_eq!(demand.depth(BOOT, &PROMISE).target, 0);
    assert_eq!((demand.restore_time(), demand.decays_at()), (None, None));
    demand.claimed(BOOT);
    assert!((1..10).contains(&demand.depth(BOOT, &PROMISE).target));
    demand.restored(millis(30), Duration::ZERO);
    assert_eq!(demand.restore_time(), Some(millis(30)));
}

#[test]
fn a_queue_for_slots_counts_no_more_than_the_restore() {
    let mut demand = Demand::with_restore_time(BOOT, millis(100));
    for _ in 0..2_000 {
        demand.restored(Duration::from_secs(60), Duration::from_secs(60) - millis(100));
    }
    assert!(demand.restore_time().is_some_and(|it| it <= millis(201)));
}

#[test]
fn one_restore_that_hung_says_little() {
    let mut demand = Demand::with_restore_time(BOOT, millis(30));
    (0..300).for_each(|_| demand.restored(millis(30), Duration::ZERO));
    demand.restored(Duration::from_secs(36_000), Duration::ZERO);
    assert!(demand.restore_time().is_some_and(|it| it < millis(33)));
}

#[test]
fn very_many_claims_at_one_instant_are_a_depth_like_any_other() {
    let mut pool = Pool::new(millis(30));
    (0..1_000_000).for_each(|_| pool.demand.claimed(pool.now));
    pool.target();
    pool.batch(1_000);
    let depth = pool.demand.depth(pool.now, &pool.promise);
    assert_eq!((depth.target, depth.bound), (100_000, Bound::Max));
}

#[test]
fn a_pool_is_a_few_hundred_bytes() {
    assert!(size_of::<Demand>() <= 512, "{}", size_of::<Demand>());
}
