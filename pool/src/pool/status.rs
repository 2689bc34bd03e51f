//! How a pool stands, and when a caller can expect a VM of it.

use std::time::Duration;

use super::Pool;
use crate::ids::Tenant;
use crate::metrics::RestoreTiming;

/// How a pool stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// VMs that wait.
    pub warm: usize,
    /// VMs that should.
    pub target: usize,
    /// VMs of the generation before that still wait.
    pub outdated: usize,
    /// VMs being restored.
    pub restoring: usize,
    /// VMs that tenants have.
    pub leased: usize,
    /// How many of these have ended by themselves.
    pub quarantined: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// The template's generation.
    pub generation: i64,
    /// Restores are held back.
    pub breaker_open: bool,
    /// Failures of restores in a row.
    pub failures: u32,
    /// Why the last one failed.
    pub reason: String,
    /// When the next is tried.
    pub retry_after: Duration,
    /// Mean time of a restore.
    pub restore_time: Option<Duration>,
    /// It is kept empty.
    pub draining: bool,
    /// VMs of announced demand.
    pub prewarmed: usize,
}

impl Pool {
    /// How it stands.
    pub fn status(&self) -> PoolStatus {
        let now = self.env.boot_time();
        let (leased, quarantined) = {
            let leased = self.leased.lock();
            (leased.count, leased.failed.len())
        };
        let config = self.config();
        let ledger = self.ledger.lock();
        let breaker = ledger.breaker();
        PoolStatus {
            warm: ledger.warm(),
            outdated: ledger.outdated(),
            target: ledger.bounds().target,
            restoring: ledger.restoring(),
            leased,
            quarantined,
            waiting: ledger.waiting(),
            generation: self.template().generation,
            breaker_open: breaker.is_open(),
            failures: breaker.failures(),
            reason: breaker.reason().to_owned(),
            retry_after: breaker.retry_after(now),
            restore_time: self.restore_time(),
            draining: config.drains,
            prewarmed: config.prewarms(self.env.now()).map(|prewarm| prewarm.count).sum(),
        }
    }

    /// The mean time of a restore, if one was measured.
    pub fn restore_time(&self) -> Option<Duration> {
        self.times.lock().mean()
    }

    /// A restore has succeeded; answers how many times what it takes alone it took.
    pub(crate) fn restore_took(&self, timing: &RestoreTiming) -> f64 {
        self.metrics.restored(timing);
        let is_waited_for = self.ledger.lock().waiting() > 0;
        self.times.lock().ended(timing.total, self.env.boot_time(), is_waited_for)
    }

    /// The time until a caller of `tenant` at the end of its line can expect a VM; `None` as long
    /// as no restore has been measured.
    pub(crate) fn expected_wait(&self, tenant: &Tenant) -> Option<Duration> {
        let times = *self.times.lock();
        let weight = self.shared.tenants.settings(tenant).weight;
        let (node_limit, _) = self.shared.throttle.limit_and_running();
        let ledger = self.ledger.lock();
        let position = ledger.position(tenant, weight);
        let at_once = ledger.bounds().max_parallel_restores.min(node_limit).max(1);
        let breaker = ledger.breaker().retry_after(self.env.boot_time());
        Some(times.until(position, at_once)? + breaker)
    }

    /// What to tell a caller of `tenant` who is turned away: when another try may be worth it.
    pub(crate) fn retry_after(&self, tenant: &Tenant) -> Duration {
        let floor = Duration::from_millis(20);
        let breaker = self.ledger.lock().breaker().retry_after(self.env.boot_time());
        self.expected_wait(tenant).unwrap_or(Duration::from_millis(200)).max(breaker).max(floor)
    }
}
