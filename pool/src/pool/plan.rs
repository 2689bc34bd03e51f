//! What a pool should have, decided anew with every turn of its driver: how many VMs, why, and what
//! was missed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{MAX_DEPTH, Pool, Sizing};
use crate::budget::Need;
use crate::ledger::{Bounds, RestoreLimit};
use crate::sizing::{self, Bound, Depth};

/// For how long a start keeps warm what it has found.
const HELD_FOR: Duration = Duration::from_secs(120);

/// How many VMs should be warm, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What demand needs; its `bound` is what decided the target in the end.
    pub depth: Depth,
    /// How many should be warm.
    pub target: usize,
    /// How many there may be at most, those that are being restored included.
    pub most: usize,
    /// What kept the last turn from beginning more restores.
    pub limit: RestoreLimit,
}

impl Default for Plan {
    fn default() -> Self {
        let depth = fixed(0, 0.0, None);
        Self { depth, target: 0, most: usize::MAX, limit: RestoreLimit::None }
    }
}

/// What demand is at a depth that somebody gave.
fn fixed(depth: usize, claims_per_second: f64, restore_time: Option<Duration>) -> Depth {
    let offered_load = claims_per_second * restore_time.unwrap_or_default().as_secs_f64();
    Depth {
        target: depth,
        wanted: depth,
        promise_depth: 0,
        peak_depth: 0,
        bound: Bound::Fixed,
        claims_per_second,
        offered_load,
        predicted_miss_ratio: sizing::miss_ratio(depth, offered_load),
    }
}

impl Pool {
    /// Decides how many VMs should be warm, and has the books follow: none while the pool drains, or
    /// the node does.
    pub(crate) fn plan(&self, node_drains: bool) {
        let (now, config) = (self.env.boot_time(), self.config());
        let prewarmed: usize = config.prewarms(self.env.now()).map(|it| it.count).sum();
        let mut ledger = self.ledger.lock();
        let floors = ledger.floors().total();
        let waiting = ledger.adding_restores();
        let demand = ledger.demand();
        let mut depth = match (config.sizing, config.sizing.promise()) {
            (Sizing::Fixed { depth }, _) => {
                fixed(depth, demand.claims_per_second(now), demand.restore_time())
            }
            (_, Some(promise)) => demand.depth(now, &promise),
            (Sizing::Promised { .. }, None) => fixed(0, 0.0, None),
        };
        drop(ledger);
        let floor = config.sizing.floor().max(floors);
        let mut target = depth.target.max(floors);
        let held = self.held(now).min(config.sizing.most());
        if held > target {
            (target, depth.bound) = (held, Bound::Peak);
        }
        if prewarmed > 0 {
            target = (target + prewarmed).min(MAX_DEPTH);
            depth.bound = Bound::Prewarm;
        }
        if config.drains || node_drains {
            (target, depth.bound) = (0, Bound::Drain);
        }
        let share = self.settle_budget(target, waiting, floor.min(target));
        if share < target {
            (target, depth.bound) = (share, Bound::Budget);
        }
        if target != depth.target {
            depth.predicted_miss_ratio = sizing::miss_ratio(target, depth.offered_load);
        }
        let max_surge = match config.rollout.max_surge {
            0 => target.div_ceil(4).max(1),
            surge => surge,
        };
        let bounds = Bounds {
            target,
            max_parallel_restores: config.max_parallel_restores,
            max_waiting: self.max_waiting,
            max_warm_age: config.max_warm_age,
            most: share,
            max_surge,
        };
        let mut ledger = self.ledger.lock();
        // Under the lock: of a pool that is closed meanwhile nothing more is wanted.
        if !self.stop.is_cancelled() {
            ledger.set_bounds(bounds);
        }
        drop(ledger);
        let mut plan = self.plan.lock();
        *plan = Plan { depth, target, most: share, limit: plan.limit };
        drop(plan);
        // Of the time that restores run, not of what they wait: it would count itself.
        let running = self.restore_time().unwrap_or_default().as_secs_f64();
        let at_once = self.max_restoring().max(1) as f64;
        let saturation = depth.claims_per_second * running / at_once;
        self.metrics.planned(depth.claims_per_second, depth.predicted_miss_ratio, saturation);
    }

    /// A start has found one more that may be warm. What was measured of demand is forgotten with
    /// every start; what it had led to is kept for a while instead.
    pub(crate) fn hold_one_more(&self) {
        let until = self.env.boot_time() + HELD_FOR;
        let mut held = self.held.lock();
        *held = (held.0 + 1, until);
        drop(held);
        self.plan(false);
    }

    fn held(&self, now: Duration) -> usize {
        let (held, until) = *self.held.lock();
        if now < until { held } else { 0 }
    }

    /// What was decided last, and why.
    pub fn planned(&self) -> Plan {
        *self.plan.lock()
    }

    /// The mean time from the wish for a VM until it is warm, the wait for a place included; `None`
    /// as long as no restore has ended.
    pub fn lead_time(&self) -> Option<Duration> {
        self.ledger.lock().demand().restore_time()
    }

    /// How many of its restores may run at once now.
    pub fn max_restoring(&self) -> usize {
        let (node_limit, _) = self.shared.throttle.limit_and_running();
        self.config().max_parallel_restores.min(node_limit)
    }

    /// What keeps more restores from beginning.
    pub(crate) fn limited_by(&self, limit: RestoreLimit) {
        self.plan.lock().limit = limit;
    }

    /// Tells the node's budget what is wanted and had; answers how many VMs there may be.
    pub(crate) fn settle_budget(&self, target: usize, waiting: usize, floor: usize) -> usize {
        // Held, so that nobody's later count is overwritten.
        let leased = self.leased.lock();
        if self.stop.is_cancelled() && leased.count == 0 {
            self.shared.shares.forget(&self.id);
            return 0;
        }
        let (priority, cost) = (self.config().priority, self.cost());
        let wanted = target + waiting;
        let need = Need { wanted, waiting, floor, priority, cost, leased: leased.count };
        self.shared.shares.settle(&self.id, need, &self.bell)
    }

    /// Until when the target stays as it is, if nobody claims.
    pub(crate) fn plan_ends_in(&self, now: Duration) -> Option<Duration> {
        let config = self.config();
        let held = self.held.lock().1.checked_sub(now).filter(|left| !left.is_zero());
        let announced = config.prewarms(self.env.now()).map(|it| it.expire_time).min();
        let announced = announced.and_then(|ends| ends.duration_since(self.env.now()).ok());
        let promised = config.sizing.promise();
        let decays = promised.and_then(|_| self.ledger.lock().demand().decays_at());
        let decays = decays.map(|at| at.saturating_sub(now));
        [announced, decays, held].into_iter().flatten().min()
    }

    /// What was missed, by why.
    pub const fn misses(&self) -> &Misses {
        &self.misses
    }
}

/// Acquires, and those that found nothing warm, by why; bounded by the reasons that there are.
#[derive(Debug, Default)]
pub struct Misses {
    claims: AtomicU64,
    by_reason: Mutex<BTreeMap<&'static str, (u64, SystemTime)>>,
}

/// One reason for which acquires found nothing warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The reason, as [`crate::error::Error::reason`] has it.
    pub reason: &'static str,
    /// How often since the start.
    pub count: u64,
    /// When last.
    pub last_time: SystemTime,
}

impl Misses {
    /// An acquire asked for a warm VM.
    pub(crate) fn claimed(&self) {
        self.claims.fetch_add(1, Ordering::Relaxed);
    }

    /// It found none, for `reason`.
    pub(crate) fn missed(&self, reason: &'static str, now: SystemTime) {
        let mut by_reason = self.by_reason.lock();
        let (count, last_time) = by_reason.entry(reason).or_insert((0, now));
        (*count, *last_time) = (*count + 1, now);
    }

    /// How many acquires asked for a warm VM, and how many found none.
    pub fn claims_and_misses(&self) -> (u64, u64) {
        let misses = self.by_reason.lock().values().map(|(count, _)| count).sum();
        (self.claims.load(Ordering::Relaxed), misses)
    }

    /// By reason, the most frequent first.
    pub fn by_reason(&self) -> Vec<Miss> {
        let by_reason = self.by_reason.lock();
        let mut misses: Vec<_> = by_reason
            .iter()
            .map(|(reason, (count, last_time))| Miss {
                reason,
                count: *count,
                last_time: *last_time,
            })
            .collect();
        misses.sort_by_key(|miss| std::cmp::Reverse(miss.count));
        misses
    }
}

/// Why an acquire found nothing warm that was served all the same.
pub(crate) const EMPTY: &str = "pool_empty";
