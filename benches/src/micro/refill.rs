//! A step of the refill: what a turn of a pool's driver decides, up to a restore that begins, and its
//! end.
//!
//! The driver itself is the pool's own affair. These are the books that it asks, in its order: the
//! node's budget, what is to be thrown away, what is missing, the place for a restore.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::budget::{Budget, Cost, Need, Shares};
use hearth_pool::ids::{PoolId, Tenant};
use hearth_pool::ledger::{Bounds, Floors, Ledger, Settled, WarmVm};
use hearth_pool::throttle::{Asker, Places, Throttle};
use tokio::sync::Notify;

use super::ledger::{Source, bounds};
use super::{Fixture, Meter, Result};

/// How many VMs each pool should have.
const DEPTH: usize = 10;
/// Restores that may run on the node.
const RESTORES: usize = 16;
/// What one takes.
const RESTORE_TIME: Duration = Duration::from_millis(50);
/// What passes between two steps.
const STEP: Duration = Duration::from_micros(100);
/// How many steps are measured together; each pool has so many VMs that it can need.
const AT_ONCE: usize = DEPTH;

/// One pool as its driver sees it.
struct OnePool {
    id: PoolId,
    ledger: Ledger<()>,
    bell: Arc<Notify>,
    places: Places,
    need: Need,
    /// What is to be restored in place of those that have been handed out.
    fresh: VecDeque<WarmVm>,
}

/// Pools that are full, on a node with a budget that is enough for all.
pub(super) struct Refill {
    pools: Vec<OnePool>,
    shares: Shares,
    throttle: Throttle,
    source: Source,
    tenant: Tenant,
    now: Duration,
    next: usize,
}

impl Refill {
    pub(super) fn new(pools: usize) -> Result<Self> {
        let source = Source::new()?;
        let max_vms = Some((pools * DEPTH * 4) as u64);
        let shares = Shares::new(Budget { max_vms, ..Budget::default() });
        let mut all = Vec::with_capacity(pools);
        for number in 0..pools {
            let mut ledger = Ledger::new(bounds(DEPTH), Floors::default(), Duration::ZERO);
            (0..DEPTH).for_each(|_| drop(ledger.adopt(source.next())));
            let cost = Cost { mem_size_mib: 128, vcpus: 1 };
            let pool = OnePool {
                id: PoolId::parse(&format!("pool-{number}"))?,
                ledger,
                bell: Arc::default(),
                places: Places::default(),
                need: Need { wanted: DEPTH, cost, ..Need::default() },
                fresh: VecDeque::new(),
            };
            shares.settle(&pool.id, pool.need, &pool.bell);
            all.push(pool);
        }
        let throttle = Throttle::new(RESTORES, None, Duration::ZERO);
        let (tenant, now) = (Tenant::anonymous(), Duration::ZERO);
        Ok(Self { pools: all, shares, throttle, source, tenant, now, next: 0 })
    }

    /// A VM of the pool whose turn it is goes to a tenant, or one of the tenants' comes to its end.
    fn hand_out(&mut self, turn: usize) -> Result<()> {
        let place = turn % self.pools.len();
        let pool = &mut self.pools[place];
        let vm = pool.ledger.reserve(&self.tenant, self.now).vm.ok_or("nothing is warm")?;
        pool.ledger.commit(&vm.vm_id);
        pool.fresh.push_back(self.source.next());
        pool.need.leased = (pool.need.leased + 1) % DEPTH;
        Ok(())
    }

    fn step(&mut self) {
        self.now += STEP;
        let (now, place) = (self.now, self.next % self.pools.len());
        self.next += 1;
        let OnePool { id, ledger, bell, places, need, fresh } = &mut self.pools[place];
        let most = self.shares.settle(id, *need, bell);
        ledger.set_bounds(Bounds { most, ..bounds(DEPTH) });
        assert!(ledger.take_stale(now).is_empty(), "none is too old");
        assert!(ledger.take_replaced().is_empty() && ledger.take_surplus().is_empty());
        let (permits, _) = ledger.permits_and_limit(now);
        assert!(permits > 0, "one is missing");
        let asker = Asker { bell, places, is_urgent: false, restore_time: Some(RESTORE_TIME) };
        let place = self.throttle.try_begin(asker, now).expect("nothing else is restored");
        let vm = fresh.pop_front().expect("one was handed out");
        assert!(ledger.begin_restore(vm.vm_id.clone(), now), "there is a permit");
        place.succeeded(1.0);
        let settled = ledger.restored(WarmVm { ready_at: now, ..vm }, now);
        assert!(matches!(settled, Settled::Warm), "nobody waits");
        ledger.settle_wishes();
    }
}

impl Fixture for Refill {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let count = most.min(AT_ONCE);
        (self.next..self.next + count).try_for_each(|turn| self.hand_out(turn))?;
        meter.measure(&mut || (0..count).for_each(|_| self.step()));
        Ok(count)
    }
}
