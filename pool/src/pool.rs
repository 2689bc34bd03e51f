//! One pool: its books, its provider and template, and the bell that wakes its driver.

mod config;
pub(crate) mod plan;
mod reserved;
mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::env::Env;
use hearth_providers::{Uid, VmId, VmRuntime};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::budget::{Cost, Room, Shares};
use crate::changes::Changes;
use crate::config::Limits;
use crate::error::{Error, Kind, Result};
use crate::follow::Causes;
use crate::ids::{PoolId, Tenant};
use crate::journal::Source;
use crate::ledger::{Bounds, Ledger, Settled, WarmVm};
use crate::metrics::PoolMetrics;
use crate::mutants::{self, Mutant};
use crate::retire::Reaper;
use crate::sizing::Demand;
use crate::templates::Template;
use crate::tenants::Tenants;
use crate::throttle::{Places, RestoreTimes, Throttle};

pub use config::{
    CutOver, DEFAULT_MAX_TTL, DEFAULT_PARALLEL_RESTORES, DEFAULT_TTL, MAX_DEPTH, Overflow,
    PoolConfig, Prewarm, Rollout, Sizing, WarmState,
};
pub use plan::{Miss, Misses, Plan};
pub(crate) use reserved::Reserved;
pub use status::PoolStatus;

/// A configured provider.
pub struct Provider {
    /// Its configured name.
    pub name: Arc<str>,
    /// Its kind, as `qemu`.
    pub kind: String,
    /// What makes its VMs.
    pub runtime: Arc<dyn VmRuntime>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({} of kind {})", self.name, self.kind)
    }
}

/// How many VMs of a pool that wait are probed at once.
const PROBES_AT_ONCE: usize = 2;

/// What a waiter is sent.
pub(crate) type Granted = Result<Reserved>;

/// Why a warm VM is thrown away: one of a fixed set, for the metric.
pub(crate) type Discard = &'static str;

/// What the pools of a node share. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) throttle: Throttle,
    pub(crate) shares: Shares,
    pub(crate) tenants: Tenants,
    pub(crate) changes: Changes,
    /// Places in line, over all pools.
    pub(crate) waiting: Arc<Semaphore>,
}

/// A pool.
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// Who makes its VMs.
    pub provider: Arc<Provider>,
    pub(crate) metrics: PoolMetrics,
    /// Wakes its driver.
    pub(crate) bell: Arc<Notify>,
    /// Wakes its driver when more of the same has been gathered: rung with each handoff.
    pub(crate) soft_bell: Notify,
    pub(crate) stop: tokio_util::sync::CancellationToken,
    pub(crate) ledger: Mutex<Ledger<oneshot::Sender<Granted>>>,
    pub(crate) shared: Shared,
    config: RwLock<Arc<PoolConfig>>,
    template: RwLock<Arc<Template>>,
    /// What the new generation that rolls in replaces.
    former: Mutex<Option<Arc<Template>>>,
    leased: Mutex<Leased>,
    /// Restores under way, each for one caller alone.
    dedicated: Arc<Semaphore>,
    times: Mutex<RestoreTimes>,
    /// What was decided last, and why.
    plan: Mutex<Plan>,
    misses: Misses,
    /// What a start has found warm, and until when it is kept.
    held: Mutex<(usize, Duration)>,
    /// Places that its restores have, over all that may run.
    pub(crate) places: Places,
    /// Who waits for restores, where that is followed.
    pub(crate) causes: Causes,
    /// Probes of VMs that wait.
    probes: Arc<Semaphore>,
    empty: Mutex<Empty>,
    reaper: Reaper,
    env: Arc<dyn Env>,
    max_waiting: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(
        config: PoolConfig,
        template: Arc<Template>,
        provider: Arc<Provider>,
        limits: &Limits,
        shared: Shared,
        reaper: Reaper,
        env: Arc<dyn Env>,
    ) -> Arc<Self> {
        let metrics =
            PoolMetrics::new(config.id.as_str(), config.template.as_str(), &provider.name);
        let floors = shared.tenants.floors(&config.id);
        let bounds = bounds(&config, limits.max_waiting);
        let mut ledger = Ledger::new(bounds, floors, env.boot_time());
        if !template.is_proven {
            ledger.cut_over();
        }
        let mut times = RestoreTimes::default();
        let hint = template.snapshot.as_ref().and_then(|it| it.restore_time);
        if let Some(took) = hint.filter(|took| !took.is_zero()) {
            times.hint(took);
            *ledger.demand() = Demand::with_restore_time(env.boot_time(), took);
        }
        let pool = Self {
            id: config.id.clone(),
            provider,
            metrics,
            bell: Arc::default(),
            soft_bell: Notify::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            ledger: Mutex::new(ledger),
            shared,
            config: RwLock::new(Arc::new(config)),
            template: RwLock::new(template),
            former: Mutex::default(),
            leased: Mutex::default(),
            dedicated: Arc::new(Semaphore::new(limits.max_waiting.min(Semaphore::MAX_PERMITS))),
            times: Mutex::new(times),
            plan: Mutex::default(),
            misses: Misses::default(),
            held: Mutex::default(),
            places: Places::default(),
            causes: Causes::default(),
            probes: Arc::new(Semaphore::new(PROBES_AT_ONCE)),
            empty: Mutex::default(),
            reaper,
            env,
            max_waiting: limits.max_waiting,
        };
        pool.plan(false);
        pool.show();
        Arc::new(pool)
    }

    /// Its configuration now.
    pub fn config(&self) -> Arc<PoolConfig> {
        Arc::clone(&self.config.read())
    }

    /// The template that it restores from now.
    pub fn template(&self) -> Arc<Template> {
        Arc::clone(&self.template.read())
    }

    pub(crate) fn set_config(&self, config: PoolConfig) {
        *self.config.write() = Arc::new(config);
        self.plan(false);
        self.bell.notify_one();
    }

    /// Restores from `template` from now on. Where that makes other VMs than before, these are
    /// replaced as the pool says: they go as new ones come, or at once.
    pub(crate) fn set_template(&self, template: Arc<Template>) {
        let former = std::mem::replace(&mut *self.template.write(), Arc::clone(&template));
        let mut before = self.former.lock();
        let mut ledger = self.ledger.lock();
        let discarded = if former.snapshot.is_none() || former.is_same_make(&template) {
            Vec::new()
        } else if ledger.is_rolling()
            && before.as_ref().is_some_and(|it| it.is_same_make(&template))
        {
            *before = None;
            ledger.undo_rollout()
        } else {
            let is_rolling = self.config().rollout.cut_over == CutOver::Rolling;
            // Undone, the one that failed is not gone back to.
            let was_proven = !ledger.is_unproven();
            if was_proven {
                *before = Some(former);
            }
            match is_rolling {
                _ if mutants::is(Mutant::OldGeneration) => Vec::new(),
                true if was_proven => ledger.begin_rollout(),
                true => ledger.restart_rollout(),
                false => ledger.cut_over(),
            }
        };
        drop(ledger);
        drop(before);
        self.discard(discarded, "old_generation");
        self.bell.notify_one();
    }

    /// Restores from `template` from now on, and anew: nothing that is warm fits any more.
    pub(crate) fn replace_all(&self, template: Arc<Template>) {
        *self.template.write() = template;
        self.discard_all();
        self.bell.notify_one();
    }

    /// Ends: whoever waits is told, what is warm is destroyed.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        let name = self.id.to_string();
        self.dismiss_waiters(|| Error::NotFound { kind: Kind::Pool, name: name.clone() });
        let mut ledger = self.ledger.lock();
        let closed = Bounds { target: 0, max_waiting: 0, ..ledger.bounds() };
        ledger.set_bounds(closed);
        drop(ledger);
        self.discard_all();
        self.settle_budget(0, 0, 0);
        self.show();
    }

    fn discard_all(&self) {
        let old = self.ledger.lock().take_all();
        self.discard(old, "old_generation");
    }

    /// Counts a claim of `tenant`, and reserves a warm VM for it.
    pub(crate) fn claim(self: &Arc<Self>, tenant: &Tenant) -> Option<Reserved> {
        self.misses.claimed();
        self.reserve_and(tenant, |ledger, now| ledger.demand().claimed(now))
    }

    /// Reserves a warm VM for a newcomer of `tenant`.
    pub(crate) fn reserve(self: &Arc<Self>, tenant: &Tenant) -> Option<Reserved> {
        self.reserve_and(tenant, |_, _| {})
    }

    fn reserve_and(
        self: &Arc<Self>,
        tenant: &Tenant,
        count: impl FnOnce(&mut Ledger<oneshot::Sender<Granted>>, Duration),
    ) -> Option<Reserved> {
        let now = self.env.boot_time();
        let mut ledger = self.ledger.lock();
        count(&mut ledger, now);
        let reservation = ledger.reserve(tenant, now);
        drop(ledger);
        // Of a VM that is handed out the driver hears when that is done, so that its turn does not
        // run beside the handover.
        if reservation.vm.is_none() || !reservation.stale.is_empty() {
            self.bell.notify_one();
        }
        self.discard(reservation.stale, "over_age");
        reservation.vm.map(|vm| Reserved::new(self, vm))
    }

    /// Is `template`, of this generation, what it restores from now?
    pub(crate) fn restores_from(&self, template: &Template) -> bool {
        let now = self.template.read();
        (&now.id, now.generation) == (&template.id, template.generation)
    }

    /// A VM that was restored from `template` comes in at `now`. Answers whether it proved a new
    /// generation.
    pub(crate) fn bring_in(
        self: &Arc<Self>,
        vm: WarmVm,
        template: &Template,
        now: Duration,
    ) -> bool {
        let uid = vm.uid;
        // Looked at under the lock: a new generation is published before the old one's VMs are
        // taken from the books.
        let mut ledger = self.ledger.lock();
        if !ledger.is_restoring(&vm.vm_id) {
            drop(ledger);
            // Its time was over, and its restore was taken for failed.
            self.discard([vm], "not_ready");
            false
        } else if self.restores_from(template) {
            let was_unproven = ledger.is_unproven();
            let wished = ledger.wished_at(&vm.vm_id);
            let settled = ledger.restored(vm, now);
            let is_proof = was_unproven && !ledger.is_unproven();
            drop(ledger);
            if let Some(wished) = wished {
                self.metrics.ready(Source::Warm, now.saturating_sub(wished));
            }
            self.settle(settled);
            self.shared.changes.vm(uid);
            is_proof
        } else {
            ledger.abandon_restore(&vm.vm_id);
            drop(ledger);
            self.discard([vm], "old_generation");
            self.bell.notify_one();
            false
        }
    }

    /// Brings a VM that came in to whoever waits for it.
    pub(crate) fn settle(self: &Arc<Self>, mut settled: Settled<oneshot::Sender<Granted>>) {
        loop {
            match settled {
                Settled::Warm => break,
                Settled::Surplus(vm) => {
                    self.discard([vm], "surplus");
                    break;
                }
                Settled::Serves(waiter, vm) => {
                    let reserved = Reserved::new(self, vm);
                    let Err(unsent) = waiter.send(Ok(reserved)) else { break };
                    // The caller has left; its VM goes to the next, here and not by `drop`, so
                    // that a line of leavers does not nest.
                    let Some(vm) = unsent.ok().and_then(Reserved::take) else { break };
                    let now = self.env.boot_time();
                    let Some(next) = self.ledger.lock().give_back(&vm.vm_id, now) else { break };
                    settled = next;
                }
            }
        }
        self.soft_bell.notify_one();
    }

    /// Throws warm VMs away.
    pub(crate) fn discard(&self, vms: impl IntoIterator<Item = WarmVm>, reason: Discard) {
        for vm in vms {
            self.metrics.discarded(reason);
            self.reaper.retire(&self.provider, vm.vm_id, None);
        }
    }

    /// A VM of this pool has ended by itself, if it is in the books.
    pub(crate) fn died(&self, vm_id: &VmId) {
        if mutants::is(Mutant::DeadHandedOut) {
            return;
        }
        let died = self.ledger.lock().died(vm_id);
        self.discard(died, "died");
        self.bell.notify_one();
    }

    pub(crate) fn leased_changed(&self, change: isize) {
        let mut leased = self.leased.lock();
        leased.count = leased.count.saturating_add_signed(change);
        // Under the lock, so that the last value is the last one shown, and counted.
        self.metrics.leased(leased.count);
        self.shared.shares.has_leased(&self.id, leased.count);
        drop(leased);
        if self.stop.is_cancelled() {
            // Nobody drives it any more, and tenants still have VMs of it.
            self.settle_budget(0, 0, 0);
        } else if change < 0 && !self.shared.shares.is_unbounded() {
            // Others may wait for its room.
            self.bell.notify_one();
        } else {
            self.soft_bell.notify_one();
        }
    }

    /// A VM that a tenant has of this pool has ended by itself; it stays for whoever wants to know why.
    pub(crate) fn quarantine(&self, uid: Uid) {
        let mut leased = self.leased.lock();
        leased.failed.insert(uid);
        self.metrics.quarantined(leased.failed.len());
    }

    /// Nothing is left of this VM, which may have been in quarantine.
    pub(crate) fn end_quarantine(&self, uid: Uid) {
        let mut leased = self.leased.lock();
        leased.failed.remove(&uid);
        self.metrics.quarantined(leased.failed.len());
    }

    /// A place for a restore of one caller alone; dropped, it is free. `None` when as many have one
    /// as may wait.
    pub(crate) fn take_dedicated(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.dedicated).try_acquire_owned().ok()
    }

    /// What one VM of it uses.
    pub(crate) fn cost(&self) -> Cost {
        let spec = &self.template.read().spec;
        Cost { mem_size_mib: spec.mem_size_mib, vcpus: spec.vcpu_count.into() }
    }

    /// Room for a VM of it that it does not count. `None` when the node is full.
    pub(crate) fn take_room(&self) -> Option<Room> {
        self.shared.shares.take_room(self.cost())
    }

    /// Writes the counts into the metrics.
    pub(crate) fn show(&self) {
        let mut ledger = self.ledger.lock();
        let oldest = ledger.oldest_ready_at();
        let counts = (ledger.warm(), ledger.bounds().target, ledger.restoring());
        let open = ledger.breaker().is_open();
        drop(ledger);
        self.metrics.counts(counts.0, counts.1, counts.2);
        let now = self.env.boot_time();
        self.note_empty(counts.0 == 0 && counts.1 > 0, now);
        self.metrics.oldest_warm_age(oldest.map_or(Duration::ZERO, |at| now.saturating_sub(at)));
        self.metrics.breaker(self.config().template.as_str(), open);
    }

    fn note_empty(&self, is_empty: bool, now: Duration) {
        let mut empty = self.empty.lock();
        if let Some(since) = empty.since.take() {
            empty.in_all += now.saturating_sub(since);
            self.metrics.empty_for(empty.in_all);
        }
        empty.since = is_empty.then_some(now);
    }

    /// A place for a probe of a VM that waits; `None` while as many are under way as may be.
    pub(crate) fn take_probe(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.probes).try_acquire_owned().ok()
    }

    /// A VM that waits did not pass its probe.
    pub(crate) fn probe_failed(&self, vm_id: &VmId) {
        let failed = self.ledger.lock().died(vm_id);
        self.discard(failed, "probe_failed");
        self.bell.notify_one();
    }

    /// Tells everybody in line that there will be nothing.
    pub(crate) fn dismiss_waiters(&self, why: impl Fn() -> Error) {
        let waiters = self.ledger.lock().dismiss_waiters();
        waiters.into_iter().for_each(|waiter| drop(waiter.send(Err(why()))));
    }
}

/// For how long a pool had nothing warm that should have had something.
#[derive(Debug, Default)]
struct Empty {
    since: Option<Duration>,
    in_all: Duration,
}

/// The VMs of a pool that tenants have.
#[derive(Debug, Default)]
struct Leased {
    count: usize,
    /// Those of them that ended by themselves.
    failed: HashSet<Uid>,
}

fn bounds(config: &PoolConfig, max_waiting: usize) -> Bounds {
    Bounds {
        target: 0,
        max_parallel_restores: config.max_parallel_restores,
        max_waiting,
        max_warm_age: config.max_warm_age,
        most: usize::MAX,
        max_surge: 1,
    }
}
