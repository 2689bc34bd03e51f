//! One pool, one policy, one trace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::policy::Policy;
use super::random::Random;
use super::trace::{Announcement, Restore, Trace};

/// What a run has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Claims.
    pub claims: u64,
    /// Those that found nothing.
    pub misses: u64,
    /// How many VMs waited, on average over time.
    pub idle: f64,
}

/// The host: how long restores take, how many it bears at once.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// How long restores take.
    pub restore: Restore,
    /// Restores at once.
    pub parallel: usize,
}

/// Runs `policy` on `trace`; the times of restores are those of `seed`. What is announced is kept on
/// top of the policy's own target, if `announced`. The first `warm_up` claims happen, and are not
/// counted. Blocks.
pub fn simulate<P: Policy>(
    policy: &mut P,
    trace: &Trace,
    host: Host,
    announced: bool,
    warm_up: usize,
    seed: u64,
) -> Run {
    let announcements = if announced { &trace.announcements[..] } else { &[] };
    let parallel = policy.parallel(host.parallel).max(1);
    let mut pool = Pool {
        policy,
        // Not the numbers that made the claims.
        random: Random::new(seed ^ 0x7e57),
        restore: host.restore,
        parallel,
        now: 0,
        warm: 0,
        restoring: BinaryHeap::new(),
        wishes: VecDeque::new(),
        target: 0,
        area: 0,
        announcements,
        begun: 0,
        ended: 0,
        extra: 0,
    };
    pool.settle();
    let mut run = Run::default();
    let mut counted_from = 0;
    for (index, claim) in trace.claims.iter().enumerate() {
        pool.until(*claim);
        if index == warm_up {
            pool.area = 0;
            counted_from = *claim;
        }
        let counts = u64::from(index >= warm_up);
        run.claims += counts;
        if pool.warm > 0 {
            pool.warm -= 1;
        } else {
            run.misses += counts;
        }
        let now = Duration::from_nanos(*claim);
        pool.policy.claimed(now);
        // What was announced is over once all of it came.
        if trace.claims.get(index + 1) != Some(claim) {
            pool.arrived(*claim);
        }
        pool.settle();
    }
    let counted = (pool.now - counted_from).max(1);
    run.idle = pool.area as f64 / counted as f64;
    run
}

/// The pool under simulation. Times are nanoseconds since the trace's begin.
struct Pool<'a, P> {
    policy: &'a mut P,
    random: Random,
    restore: Restore,
    parallel: usize,
    now: u64,
    warm: usize,
    /// Ready at, wished at, begun at.
    restoring: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// When each restore that waits for a slot was wished for.
    wishes: VecDeque<u64>,
    target: usize,
    /// Idle VMs times nanoseconds.
    area: u128,
    announcements: &'a [Announcement],
    /// How many announcements have begun, how many ended, and what is announced between the two.
    begun: usize,
    ended: usize,
    extra: usize,
}

impl<P: Policy> Pool<'_, P> {
    /// Everything that happens up to `end`.
    fn until(&mut self, end: u64) {
        loop {
            let ready = self.restoring.peek().map_or(u64::MAX, |it| it.0.0);
            let wakes = self.policy.wakes_at(Duration::from_nanos(self.now));
            // A policy that wants to be asked at once is asked a little later.
            let wakes = wakes.map_or(u64::MAX, |it| (it.as_nanos() as u64).max(self.now + 1000));
            let said = self.announcements.get(self.begun).map_or(u64::MAX, |it| it.from);
            let next = ready.min(wakes).min(said);
            if next > end {
                self.pass(end);
                return;
            }
            self.pass(next);
            if next == ready {
                self.finish();
            }
            if next == said {
                self.extra += self.announcements[self.begun].count;
                self.begun += 1;
            }
            self.settle();
        }
    }

    fn pass(&mut self, now: u64) {
        self.area += self.warm as u128 * u128::from(now - self.now);
        self.now = now;
    }

    fn finish(&mut self) {
        let Some(Reverse((_, wished, begun))) = self.restoring.pop() else { return };
        let took = Duration::from_nanos(self.now - wished);
        let queued = Duration::from_nanos(begun - wished);
        self.policy.restored(Duration::from_nanos(self.now), took, queued);
        // Too many: it is retired. The books were changed when the target fell.
        if self.stock() < self.target {
            self.warm += 1;
        }
    }

    fn arrived(&mut self, now: u64) {
        while self.announcements.get(self.ended).is_some_and(|it| it.until <= now) {
            self.extra -= self.announcements[self.ended].count;
            self.ended += 1;
        }
    }

    fn stock(&self) -> usize {
        self.warm + self.restoring.len() + self.wishes.len()
    }

    /// Makes "is" become "should be": wishes or forgets restores, retires what waits.
    fn settle(&mut self) {
        let stock = self.stock();
        let now = Duration::from_nanos(self.now);
        self.target = self.policy.target(now, stock) + self.extra;
        if self.target > stock {
            self.wishes.extend(std::iter::repeat_n(self.now, self.target - stock));
        } else if self.target < stock {
            let fewer = (stock - self.target).min(self.wishes.len());
            self.wishes.truncate(self.wishes.len() - fewer);
            self.warm -= (stock - self.target - fewer).min(self.warm);
        }
        while self.restoring.len() < self.parallel
            && let Some(wished) = self.wishes.pop_front()
        {
            let took = (self.restore.sample(&mut self.random) * 1e9) as u64;
            self.restoring.push(Reverse((self.now + took, wished, self.now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Fixed;
    use super::super::trace::Spread;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn run(depth: usize, parallel: usize, seconds: &[f64]) -> Run {
        let claims = seconds.iter().map(|it| (it * SECOND as f64) as u64).collect();
        let trace = Trace { claims, rates: Vec::new(), announcements: Vec::new() };
        let host = Host { restore: Restore { mean: 1.0, spread: Spread::Constant }, parallel };
        simulate(&mut Fixed(depth), &trace, host, false, 0, 1)
    }

    #[test]
    fn a_claim_takes_a_warm_vm_and_orders_one_restore() {
        assert_eq!(run(1, 1, &[2.0, 3.5, 5.0]).misses, 0);
        assert_eq!(run(1, 1, &[2.0, 2.5, 3.5]).misses, 1, "it was being restored");
    }

    #[test]
    fn a_miss_orders_nothing() {
        // Ordered at 2.0, ready at 3.0; the misses between move that neither way.
        assert_eq!(run(1, 1, &[2.0, 2.2, 2.4, 3.1]).misses, 2);
    }

    #[test]
    fn restores_wait_for_a_slot() {
        assert_eq!(run(2, 2, &[5.0, 5.0, 6.1, 6.2]).misses, 0);
        assert_eq!(run(2, 1, &[5.0, 5.0, 6.1, 6.2]).misses, 1, "one after the other");
    }

    #[test]
    fn idle_is_what_waits_over_time() {
        // Ready at 1.0, taken at 2.0, ready at 3.0, taken at 4.0.
        assert!((run(1, 1, &[2.0, 4.0]).idle - 0.5).abs() < 0.01);
    }
}
