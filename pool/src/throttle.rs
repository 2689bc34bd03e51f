//! The places in which restores run, over all pools: who gets the next, and how many there are.
//!
//! Invariants:
//! - No more restores of pools run than [`Concurrency`] allows, and none begins faster than the
//!   rate that is configured.
//! - Restores that somebody waits for come before those that only fill a pool.
//! - No pool takes the last places: it gets one more only while it has fewer than twice what is
//!   free (the dynamic threshold of Choudhury and Hahne 1998), so that one whose restores hang
//!   leaves places for the others, however many it wants, and one alone gets two thirds.
//! - A restore that takes much longer than is usual for its pool is *stuck*: it goes on holding one
//!   of the places that there are at most, and none of those that the node bears, for it does
//!   nothing there. So what hangs does not hold up what is well.
//! - A pool that was refused is told when there may be a place for it; pools are told in turns.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bucket::{Rate, TokenBucket};
use crate::concurrency::Concurrency;
use crate::ledger::RestoreLimit;

/// Of what is free, how many times as much one pool may have.
const SHARE: usize = 2;

/// The places of all pools' restores. Clones are the same.
#[derive(Clone, Debug)]
pub struct Throttle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// By number, when each that runs is to be taken for stuck.
    running: BTreeMap<u64, Duration>,
    next_number: u64,
    most: usize,
    concurrency: Concurrency,
    rate: Option<(Rate, TokenBucket)>,
    /// Pools that somebody waits for.
    urgent: Turns,
    /// Pools that only want to be full.
    filling: Turns,
}

/// Bells to ring, each once, in turns.
#[derive(Debug, Default)]
struct Turns {
    bells: VecDeque<Arc<Notify>>,
    known: HashSet<usize>,
}

impl Turns {
    fn push(&mut self, bell: &Arc<Notify>) {
        if self.known.insert(Arc::as_ptr(bell).addr()) {
            self.bells.push_back(Arc::clone(bell));
        }
    }

    fn ring(&mut self) -> bool {
        let Some(bell) = self.bells.pop_front() else { return false };
        self.known.remove(&Arc::as_ptr(&bell).addr());
        bell.notify_one();
        true
    }
}

/// The places that one pool has; each restore holds a clone until its call has ended, also when
/// nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<()>);

impl Places {
    /// How many of the pool's restores run.
    pub fn running(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// A pool that wants to begin a restore.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// What wakes it.
    pub bell: &'a Arc<Notify>,
    /// What its restores hold while they run.
    pub places: &'a Places,
    /// Somebody waits for this one.
    pub is_urgent: bool,
    /// How long its restores take, as a rule; `None`: nothing is known.
    pub restore_time: Option<Duration>,
}

impl Asker<'_> {
    fn stuck_after(&self) -> Duration {
        self.restore_time.map_or(STUCK_UNKNOWN, |usual| (usual * STUCK_TIMES).max(STUCK_LEAST))
    }
}

/// How many times as long as usual a restore takes that is stuck.
const STUCK_TIMES: u32 = 4;
/// None is before it has taken this long.
const STUCK_LEAST: Duration = Duration::from_millis(100);
/// When one is of which nothing is known.
const STUCK_UNKNOWN: Duration = Duration::from_secs(1);

impl Throttle {
    /// At most `most` at once, and no faster than `rate` from `now` on.
    pub fn new(most: usize, rate: Option<Rate>, now: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            running: BTreeMap::new(),
            next_number: 0,
            most: most.max(1),
            concurrency: Concurrency::new(most),
            rate: rate.map(|rate| (rate, TokenBucket::full(rate, now))),
            urgent: Turns::default(),
            filling: Turns::default(),
        })))
    }

    /// How many may run at once now, and how many do.
    pub fn limit_and_running(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.concurrency.limit(), state.running.len())
    }

    /// A place for a restore of `asker`; it is free again when it is dropped.
    ///
    /// # Errors
    /// What kept it from getting one, and when it should look again; it is woken when a place
    /// becomes free before that.
    pub fn try_begin(
        &self,
        asker: Asker<'_>,
        now: Duration,
    ) -> Result<RestorePlace, (RestoreLimit, Option<Duration>)> {
        let mut state = self.0.lock();
        let active = state.running.values().filter(|stuck_at| **stuck_at > now);
        let (active, next_stuck) = (active.clone().count(), active.min().copied());
        let bearable = state.concurrency.limit().saturating_sub(active);
        let free = bearable.min(state.most.saturating_sub(state.running.len()));
        let is_others_turn = !asker.is_urgent && !state.urgent.bells.is_empty();
        if free == 0 || asker.places.running() >= (SHARE * free).max(1) || is_others_turn {
            let turns = if asker.is_urgent { &mut state.urgent } else { &mut state.filling };
            turns.push(asker.bell);
            // Whoever is first may have left, or be closed: somebody must find out.
            if free > 0 && is_others_turn {
                state.urgent.ring();
            }
            return Err((RestoreLimit::Node, next_stuck.map(|at| at.saturating_sub(now))));
        }
        if let Some((rate, bucket)) = &mut state.rate
            && let Err(wait) = bucket.take(*rate, now)
        {
            return Err((RestoreLimit::Rate, Some(wait)));
        }
        let number = state.next_number;
        state.next_number += 1;
        state.running.insert(number, now + asker.stuck_after());
        Ok(RestorePlace { throttle: self.clone(), number, _held: asker.places.clone() })
    }
}

/// The right to run one restore.
#[derive(Debug)]
pub struct RestorePlace {
    throttle: Throttle,
    number: u64,
    _held: Places,
}

impl RestorePlace {
    /// The restore has succeeded; of late they take `slowdown` times what one takes alone.
    pub fn succeeded(&self, slowdown: f64) {
        let mut state = self.throttle.0.lock();
        let running = state.running.len();
        state.concurrency.ended(slowdown, running);
    }

    /// Another restore of the same pool may begin here at `now`: nobody else wants the place.
    pub fn renew(&self, asker: Asker<'_>, now: Duration) -> bool {
        let mut state = self.throttle.0.lock();
        let is_others = |bell: &Arc<Notify>| !Arc::ptr_eq(bell, asker.bell);
        if state.urgent.bells.iter().chain(&state.filling.bells).any(is_others) {
            return false;
        }
        let active = state.running.values().filter(|stuck_at| **stuck_at > now).count();
        if active > state.concurrency.limit() {
            return false;
        }
        if let Some((rate, bucket)) = &mut state.rate
            && bucket.take(*rate, now).is_err()
        {
            return false;
        }
        state.running.insert(self.number, now + asker.stuck_after());
        true
    }
}

impl Drop for RestorePlace {
    fn drop(&mut self) {
        let mut state = self.throttle.0.lock();
        state.running.remove(&self.number);
        let free = state.most.saturating_sub(state.running.len());
        for _ in 0..free.min(state.concurrency.limit()) {
            if !state.urgent.ring() && !state.filling.ring() {
                break;
            }
        }
    }
}

/// What a restore of one pool takes that runs alone, and what it takes now.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreTimes {
    alone_seconds: Option<f64>,
    mean_seconds: Option<f64>,
    /// When the last one ended while somebody waited, and the mean time from one such to the next.
    last_ended: Option<Duration>,
    gap_seconds: Option<f64>,
    gaps: u32,
}

/// How much the shortest time is believed less with each restore, so that a template that became
/// slower is not taken for a full node for ever.
const FORGETTING: f64 = 1.02;
/// How much of the mean each restore is.
const LATEST: f64 = 0.2;
/// How much of the mean gap each gap is: those that run together end together, and between them and
/// the next is a long one.
const LATEST_GAP: f64 = 0.03;
/// Below this, what a restore takes is mostly what the machine does beside it.
pub(crate) const NOISE: Duration = Duration::from_millis(5);

impl RestoreTimes {
    /// One has succeeded at `now` and took `took`, while somebody waited or nobody did; answers how
    /// many times what one takes alone they take of late.
    pub fn ended(&mut self, took: Duration, now: Duration, is_waited_for: bool) -> f64 {
        if let Some(gap) = self.last_ended.map(|last| now.saturating_sub(last).as_secs_f64()) {
            self.gaps = self.gaps.saturating_add(1);
            let part = LATEST_GAP.max(1.0 / f64::from(self.gaps));
            self.gap_seconds = Some(self.gap_seconds.map_or(gap, |it| it + part * (gap - it)));
        }
        self.last_ended = is_waited_for.then_some(now);
        let took = took.as_secs_f64().max(1e-6);
        let alone = self.alone_seconds.map_or(took, |alone| (alone * FORGETTING).min(took));
        self.alone_seconds = Some(alone);
        let mean = self.mean_seconds.map_or(took, |mean| mean + LATEST * (took - mean));
        self.mean_seconds = Some(mean);
        mean / alone.max(NOISE.as_secs_f64())
    }

    /// What one took when its template was built, for as long as nothing better is known.
    pub fn hint(&mut self, took: Duration) {
        self.mean_seconds.get_or_insert(took.as_secs_f64());
        self.alone_seconds.get_or_insert(took.as_secs_f64());
    }

    /// When the VM that is `position`th from now, counted from 1, can be expected, if `at_once` are
    /// restored at a time: as the mean time says, or sooner, as they have come of late.
    pub fn until(&self, position: usize, at_once: usize) -> Option<Duration> {
        let mean = self.mean_seconds?;
        let rounds = position.div_ceil(at_once.max(1)) as f64 * mean;
        let ahead = position.saturating_sub(1) as f64;
        let seconds = self.gap_seconds.map_or(rounds, |gap| rounds.min(gap.mul_add(ahead, mean)));
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// The mean time of the last ones.
    pub fn mean(&self) -> Option<Duration> {
        self.mean_seconds.map(Duration::from_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// A pool.
    #[derive(Default)]
    struct Wants {
        bell: Arc<Notify>,
        places: Places,
    }

    impl Wants {
        fn one(&self, throttle: &Throttle, is_urgent: bool) -> Option<RestorePlace> {
            self.at(throttle, is_urgent, NOW)
        }

        fn at(&self, throttle: &Throttle, is_urgent: bool, now: Duration) -> Option<RestorePlace> {
            let (bell, places) = (&self.bell, &self.places);
            let restore_time = Some(Duration::from_millis(100));
            throttle.try_begin(Asker { bell, places, is_urgent, restore_time }, now).ok()
        }

        fn all(&self, throttle: &Throttle) -> Vec<RestorePlace> {
            std::iter::from_fn(|| self.one(throttle, false)).collect()
        }
    }

    /// One with `most` places, grown to all of them.
    fn grown(most: usize) -> Throttle {
        let throttle = Throttle::new(most, None, NOW);
        (0..500).for_each(|_| throttle.0.lock().concurrency.ended(1.0, most));
        throttle
    }

    #[test]
    fn a_pool_that_wants_everything_leaves_places() {
        let throttle = grown(16);
        let pools = [Wants::default(), Wants::default(), Wants::default()];
        let held = pools.each_ref().map(|pool| pool.all(&throttle));
        let counts = held.each_ref().map(Vec::len);
        assert_eq!(counts[0], 11);
        assert!(counts[1] > 0 && counts[2] > 0, "{counts:?}");
    }

    #[test]
    fn what_is_stuck_holds_up_nobody_else() {
        let throttle = grown(16);
        let (stuck, well) = (Wants::default(), Wants::default());
        let held = stuck.all(&throttle);
        // The node bears no more than hang already.
        (0..500).for_each(|_| throttle.0.lock().concurrency.ended(99.0, 16));
        assert!(well.one(&throttle, false).is_none());
        let later = NOW + Duration::from_millis(400);
        assert!(well.at(&throttle, false, later).is_some());
        assert!(stuck.at(&throttle, false, later).is_none(), "it has enough");
        drop(held);
    }

    #[test]
    fn a_place_is_kept_only_while_nobody_else_wants_it() {
        let throttle = grown(1);
        let (filling, other) = (Wants::default(), Wants::default());
        let place = filling.one(&throttle, false).unwrap();
        let renewed = |now| {
            let (bell, places) = (&filling.bell, &filling.places);
            place.renew(Asker { bell, places, is_urgent: false, restore_time: None }, now)
        };
        assert!(renewed(NOW));
        assert!(filling.one(&throttle, false).is_none(), "the place is taken");
        assert!(renewed(NOW), "that it wants more places itself is no reason");
        assert!(other.one(&throttle, false).is_none());
        assert!(!renewed(NOW), "the other is next");
    }

    #[test]
    fn one_place_is_enough_for_one() {
        assert_eq!(Wants::default().all(&Throttle::new(1, None, NOW)).len(), 1);
    }

    #[tokio::test]
    async fn a_free_place_goes_to_whoever_is_waited_for() {
        let throttle = grown(1);
        let (filling, urgent) = (Wants::default(), Wants::default());
        let place = filling.one(&throttle, false).unwrap();
        assert!(filling.one(&throttle, false).is_none());
        assert!(urgent.one(&throttle, true).is_none());
        drop(place);
        // Told first, although it came last; a bell that rang is heard at once.
        urgent.bell.notified().await;
        assert!(urgent.one(&throttle, true).is_some());
    }

    #[test]
    fn whoever_left_the_line_holds_nobody_up() {
        let throttle = grown(1);
        let filling = Wants::default();
        let place = filling.one(&throttle, false).unwrap();
        let gone = [Wants::default(), Wants::default(), Wants::default()];
        assert!(gone.iter().all(|pool| pool.one(&throttle, true).is_none()));
        assert!(filling.one(&throttle, false).is_none());
        drop(place);
        let tries = (0..9).find(|_| filling.one(&throttle, false).is_some());
        assert!(tries.is_some(), "it is never its turn");
    }

    #[test]
    fn restores_begin_no_faster_than_the_rate() {
        let rate = Rate { per_second: 10.0, burst: 2 };
        let throttle = Throttle::new(64, Some(rate), NOW);
        let pool = Wants::default();
        let mut begun = 0;
        for step in 0..1000_u32 {
            let now = NOW + Duration::from_millis(1) * step;
            begun += usize::from(pool.at(&throttle, false, now).is_some());
        }
        assert!((10..=12).contains(&begun), "{begun} in a second");
    }

    #[test]
    fn what_one_takes_alone_is_learned_and_forgotten_slowly() {
        let mut times = RestoreTimes::default();
        let mut ended = |millis| times.ended(Duration::from_millis(millis), NOW, false);
        assert!((ended(100) - 1.0).abs() < 1e-9);
        (0..20).for_each(|_| assert!(ended(400) >= 1.0));
        assert!(ended(400) > 2.5);
        for _ in 0..500 {
            ended(400);
        }
        assert!(ended(400) < 1.1);
    }
    #[test]
    fn who_waits_is_told_by_how_fast_vms_come() {
        let mut times = RestoreTimes::default();
        assert_eq!(times.until(8, 2), None);
        let took = Duration::from_millis(100);
        // Two at a time, each of which the machine makes wait for the other.
        for step in 0..100_u32 {
            times.ended(took, NOW + Duration::from_millis(10) * step, true);
        }
        let expected = times.until(101, 2).unwrap().as_secs_f64();
        assert!((expected - 1.1).abs() < 0.01, "{expected} s");
        // After a pause nothing is known of the pace, and the mean has the word.
        times.ended(took, NOW + Duration::from_secs(60), false);
        assert!(times.until(2, 2).unwrap() <= took);
    }
}
