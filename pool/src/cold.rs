//! The cold gate: what becomes of an acquire that finds nothing warm.
//!
//! It is bounded: so many may stand in line for one pool, and so many for all; and it refuses
//! early whoever would be waiting in vain, with the time after which another try may be worth it.
//! Restores are not begun here: who stands in line justifies one more (unless it only waits for
//! the pool's own), and the driver begins it when there is a place for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::ids::Tenant;
use crate::line::Ticket;
use crate::manager::{Manager, Phase};
use crate::metrics::{self, Timing};
use crate::pool::{Overflow, Pool, Reserved};
use crate::restore::restore_failed;

/// When to look again whether somebody has released something, at the earliest.
pub(crate) const FULL_FOR: Duration = Duration::from_secs(1);

/// A caller that found nothing warm.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) tenant: Tenant,
    pub(crate) overflow: Overflow,
    /// When it stops waiting, if it said so.
    pub(crate) deadline: Option<Instant>,
}

impl Manager {
    /// Waits for a VM as the overflow policy has it; notes in `timing` how long.
    ///
    /// # Errors
    /// `PoolEmpty` for who wants nothing else than a warm one; `TemplateNotReady`;
    /// `ColdPathSaturated` when the line is full, or nothing is known of how long it takes and
    /// somebody waits already; `DeadlineTooShort`; `CapacityExhausted`; `RestoreFailed` when that
    /// is all that happens; `Draining`.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line; a VM that it had been given goes to the next.
    pub(crate) async fn wait_in_line(
        &self,
        pool: &Arc<Pool>,
        waiter: Waiter,
        timing: &mut Timing,
    ) -> Result<Reserved> {
        let begun = Instant::now();
        let longest = begun + self.limits.max_wait;
        let deadline = waiter.deadline.map_or(longest, |it| it.min(longest));
        self.check_gate(pool, &waiter, begun, deadline)?;
        let saturated = || {
            metrics::cold_rejected("saturated");
            let retry_after = pool.retry_after(&waiter.tenant);
            Error::ColdPathSaturated { pool: pool.id.to_string(), retry_after }
        };
        let Ok(place) = Arc::clone(&pool.shared.waiting).try_acquire_owned() else {
            return Err(saturated());
        };
        let weight = pool.shared.tenants.settings(&waiter.tenant).weight;
        let (sender, granted) = oneshot::channel();
        let adds_restore = waiter.overflow != Overflow::Wait;
        // Before the books, so that the driver finds it with whatever they have it restore.
        let _cause = pool.causes.join();
        let joined = {
            let mut ledger = pool.ledger.lock();
            // One may have become warm since the caller looked: nobody waits beside it.
            let late = ledger.reserve(&waiter.tenant, self.env.boot_time());
            if let Some(vm) = late.vm {
                drop(ledger);
                pool.discard(late.stale, "over_age");
                return Ok(Reserved::new(pool, vm));
            }
            if ledger.breaker().is_open() {
                let reason = ledger.breaker().reason().to_owned();
                drop(ledger);
                pool.discard(late.stale, "over_age");
                metrics::cold_rejected("breaker");
                return Err(restore_failed(pool, reason, pool.retry_after(&waiter.tenant)));
            }
            let joined = ledger.wait(&waiter.tenant, weight, adds_restore, sender);
            drop(ledger);
            pool.discard(late.stale, "over_age");
            joined
        };
        let Ok(ticket) = joined else { return Err(saturated()) };
        pool.bell.notify_one();
        let in_line = InLine::new(pool, ticket, place);
        // The phase may have changed since it was looked at: who joins late is told, too.
        if self.phase() != Phase::Serving {
            return Err(Error::Draining);
        }
        if pool.config().drains {
            return Err(Error::PoolDraining { pool: pool.id.to_string() });
        }
        let granted = tokio::time::timeout_at(deadline, granted).await;
        drop(in_line);
        timing.queue = begun.elapsed();
        match granted {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => Err(too_short(pool, &waiter.tenant)),
        }
    }

    /// Refuses whoever would wait in vain.
    fn check_gate(
        &self,
        pool: &Arc<Pool>,
        waiter: &Waiter,
        begun: Instant,
        deadline: Instant,
    ) -> Result<()> {
        let id = || pool.id.to_string();
        if waiter.overflow == Overflow::WarmOnly {
            metrics::cold_rejected("warm_only");
            let retry_after = pool.retry_after(&waiter.tenant);
            return Err(Error::PoolEmpty { pool: id(), retry_after });
        }
        if let Some(refusal) = pool.template().refusal() {
            return Err(refusal);
        }
        match pool.expected_wait(&waiter.tenant) {
            Some(expected) if waiter.deadline.is_some() && begun + expected > deadline => {
                metrics::cold_rejected("deadline");
                return Err(too_short(pool, &waiter.tenant));
            }
            Some(_) => {}
            // Nothing is known: one more than what is on its way anyway, to find out.
            None => {
                let ledger = pool.ledger.lock();
                let is_full = ledger.waiting() > ledger.restoring();
                drop(ledger);
                if is_full {
                    metrics::cold_rejected("unmeasured");
                    let retry_after = pool.retry_after(&waiter.tenant);
                    return Err(Error::ColdPathSaturated { pool: id(), retry_after });
                }
            }
        }
        let is_coming = {
            let ledger = pool.ledger.lock();
            ledger.warm() + ledger.restoring() > ledger.waiting()
        };
        if !is_coming && !pool.shared.shares.has_room(pool.cost()) {
            return Err(node_full(pool, &waiter.tenant));
        }
        Ok(())
    }
}

/// Tenants have everything that the node may give.
pub(crate) fn node_full(pool: &Pool, tenant: &Tenant) -> Error {
    metrics::cold_rejected("capacity");
    let retry_after = pool.retry_after(tenant).max(FULL_FOR);
    Error::CapacityExhausted { what: "tenants have all of its budget".to_owned(), retry_after }
}

fn too_short(pool: &Pool, tenant: &Tenant) -> Error {
    let retry_after = pool.retry_after(tenant);
    Error::DeadlineTooShort { pool: pool.id.to_string(), retry_after }
}

/// A place in line; dropped, it is given up.
struct InLine<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
    _place: OwnedSemaphorePermit,
}

impl<'a> InLine<'a> {
    fn new(pool: &'a Arc<Pool>, ticket: Ticket, place: OwnedSemaphorePermit) -> Self {
        metrics::cold_inflight(1.0);
        Self { pool, ticket, _place: place }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        metrics::cold_inflight(-1.0);
        self.pool.ledger.lock().leave(&self.ticket);
        // One restore may be too many now; a surplus VM is seen by the driver.
        self.pool.soft_bell.notify_one();
    }
}
