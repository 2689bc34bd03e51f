//! One pool: its books, its provider and template, and the bell that wakes its driver.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::env::Env;
use hearth_providers::model::VmStatus;
use hearth_providers::{Uid, VmId, VmRuntime};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::Limits;
use crate::error::{Error, Kind, Result};
use crate::ids::{PoolId, TemplateId};
use crate::ledger::{Bounds, Ledger, Settled, WarmVm};
use crate::metrics::PoolMetrics;
use crate::mutants::{self, Mutant};
use crate::retire::Reaper;
use crate::templates::Template;

/// A configured provider.
pub struct Provider {
    /// Its configured name.
    pub name: String,
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

/// How many VMs should be warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// So many.
    Fixed {
        /// How many.
        depth: usize,
    },
}

/// How VMs wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmState {
    /// They run.
    #[default]
    Running,
    /// They are paused and cost no CPU; the handoff resumes them.
    Paused,
}

/// What happens to an acquire when nothing is warm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It waits, and a restore more is begun for it.
    #[default]
    WarmElseCold,
    /// It waits for one of the pool's own.
    Wait,
    /// It is refused.
    WarmOnly,
    /// It gets a restore of its own even when something is warm.
    ColdOnly,
}

/// A pool as an operator asks for it: as it is journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// Its name.
    pub id: PoolId,
    /// What its VMs are restored from.
    pub template: TemplateId,
    /// How many should be warm.
    pub sizing: Sizing,
    /// How they wait.
    pub warm_state: WarmState,
    /// How old they may get; unset: any age.
    pub max_warm_age: Option<Duration>,
    /// How many are restored at once.
    pub max_parallel_restores: usize,
    /// What an acquire does that does not say.
    pub default_overflow: Overflow,
    /// The lease of an acquire that does not say.
    pub default_ttl: Duration,
    /// The longest lease.
    pub max_ttl: Duration,
    /// Changes with every change.
    pub etag: String,
    /// When it was made.
    pub create_time: SystemTime,
    /// When it was last changed.
    pub update_time: SystemTime,
}

/// The lease of an acquire that does not say, in a pool that does not.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// The longest lease, in a pool that does not say.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How many VMs a pool restores at once that does not say.
pub const DEFAULT_PARALLEL_RESTORES: usize = 8;

/// The deepest pool.
pub const MAX_DEPTH: usize = 100_000;

impl PoolConfig {
    /// A pool of depth 0, with every other setting at its default.
    pub fn new(id: PoolId, template: TemplateId) -> Self {
        Self {
            id,
            template,
            sizing: Sizing::Fixed { depth: 0 },
            warm_state: WarmState::default(),
            max_warm_age: None,
            max_parallel_restores: DEFAULT_PARALLEL_RESTORES,
            default_overflow: Overflow::default(),
            default_ttl: DEFAULT_TTL,
            max_ttl: DEFAULT_MAX_TTL,
            etag: String::new(),
            create_time: SystemTime::UNIX_EPOCH,
            update_time: SystemTime::UNIX_EPOCH,
        }
    }

    /// The target of warm VMs.
    pub const fn target(&self) -> usize {
        let Sizing::Fixed { depth } = self.sizing;
        depth
    }
}

/// What a waiter is sent.
pub(crate) type Granted = Result<Reserved>;

/// Why a warm VM is thrown away: one of a fixed set, for the metric.
pub(crate) type Discard = &'static str;

/// A pool.
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// Who makes its VMs.
    pub provider: Arc<Provider>,
    pub(crate) metrics: PoolMetrics,
    pub(crate) bell: Notify,
    pub(crate) stop: tokio_util::sync::CancellationToken,
    pub(crate) ledger: Mutex<Ledger<oneshot::Sender<Granted>>>,
    config: RwLock<Arc<PoolConfig>>,
    template: RwLock<Arc<Template>>,
    leased: Mutex<Leased>,
    /// Restores under way, each for one caller alone.
    dedicated: Arc<Semaphore>,
    /// Mean time of a restore, in seconds, for predictions.
    restore_seconds: Mutex<Option<f64>>,
    reaper: Reaper,
    env: Arc<dyn Env>,
    max_waiting: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a pool stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// VMs that wait.
    pub warm: usize,
    /// VMs that should.
    pub target: usize,
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
}

impl Pool {
    pub(crate) fn new(
        config: PoolConfig,
        template: Arc<Template>,
        provider: Arc<Provider>,
        limits: &Limits,
        reaper: Reaper,
        env: Arc<dyn Env>,
    ) -> Arc<Self> {
        let metrics =
            PoolMetrics::new(config.id.as_str(), config.template.as_str(), &provider.name);
        let pool = Self {
            id: config.id.clone(),
            provider,
            metrics,
            bell: Notify::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            ledger: Mutex::new(Ledger::new(bounds(&config, limits.max_waiting))),
            config: RwLock::new(Arc::new(config)),
            template: RwLock::new(template),
            leased: Mutex::default(),
            dedicated: Arc::new(Semaphore::new(limits.max_waiting.min(Semaphore::MAX_PERMITS))),
            restore_seconds: Mutex::default(),
            reaper,
            env,
            max_waiting: limits.max_waiting,
        };
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
        self.ledger.lock().set_bounds(bounds(&config, self.max_waiting));
        *self.config.write() = Arc::new(config);
        self.bell.notify_one();
    }

    /// Restores from `template` from now on; what is warm of another generation is thrown away.
    pub(crate) fn set_template(&self, template: Arc<Template>) {
        let is_new = self.template().generation != template.generation;
        *self.template.write() = template;
        if is_new && !mutants::is(Mutant::OldGeneration) {
            self.discard_all();
        }
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
        self.show();
    }

    fn discard_all(&self) {
        let old = self.ledger.lock().take_all();
        self.discard(old, "old_generation");
    }

    /// How it stands.
    pub fn status(&self) -> PoolStatus {
        let now = self.env.boot_time();
        let (leased, quarantined) = {
            let leased = self.leased.lock();
            (leased.count, leased.failed.len())
        };
        let ledger = self.ledger.lock();
        let breaker = ledger.breaker();
        PoolStatus {
            warm: ledger.warm(),
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
        }
    }

    /// The mean time of a restore, if one was measured.
    pub fn restore_time(&self) -> Option<Duration> {
        self.restore_seconds.lock().map(Duration::from_secs_f64)
    }

    pub(crate) fn restore_took(&self, took: Duration) {
        self.metrics.restored(took);
        let mut mean = self.restore_seconds.lock();
        let took = took.as_secs_f64();
        *mean = Some(mean.map_or(took, |mean| mean.mul_add(0.8, took * 0.2)));
    }

    /// The time until a caller at the end of the line can expect a VM.
    pub(crate) fn expected_wait(&self) -> Option<Duration> {
        let restore = self.restore_time()?;
        let ledger = self.ledger.lock();
        let ahead = ledger.waiting() + 1;
        let at_once = ledger.bounds().max_parallel_restores.max(1);
        Some(restore * ahead.div_ceil(at_once) as u32)
    }

    /// What to tell a caller who is turned away: when it may be worth another try.
    pub(crate) fn retry_after(&self) -> Duration {
        let floor = Duration::from_millis(20);
        let breaker = self.ledger.lock().breaker().retry_after(self.env.boot_time());
        self.expected_wait().unwrap_or(Duration::from_millis(200)).max(breaker).max(floor)
    }

    /// Reserves a warm VM for a newcomer.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Reserved> {
        let reservation = self.ledger.lock().reserve(self.env.boot_time());
        self.discard(reservation.stale, "over_age");
        let reserved = Reserved::new(self, reservation.vm?);
        self.show();
        self.bell.notify_one();
        Some(reserved)
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
                    let Some(vm) = unsent.ok().and_then(|mut it| it.vm.take()) else { break };
                    let now = self.env.boot_time();
                    let Some(next) = self.ledger.lock().give_back(&vm.vm_id, now) else { break };
                    settled = next;
                }
            }
        }
        self.show();
        self.bell.notify_one();
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
        self.show();
        self.bell.notify_one();
    }

    pub(crate) fn leased_changed(&self, change: isize) {
        let mut leased = self.leased.lock();
        leased.count = leased.count.saturating_add_signed(change);
        // Under the lock, so that the last value is the last one shown.
        self.metrics.leased(leased.count);
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

    /// Writes the counts into the metrics.
    pub(crate) fn show(&self) {
        let mut ledger = self.ledger.lock();
        let oldest = ledger.oldest_ready_at();
        let counts = (ledger.warm(), ledger.bounds().target, ledger.restoring());
        let open = ledger.breaker().is_open();
        drop(ledger);
        self.metrics.counts(counts.0, counts.1, counts.2);
        let now = self.env.boot_time();
        self.metrics.oldest_warm_age(oldest.map_or(Duration::ZERO, |at| now.saturating_sub(at)));
        self.metrics.breaker(open);
    }

    /// Tells everybody in line that there will be nothing.
    pub(crate) fn dismiss_waiters(&self, why: impl Fn() -> Error) {
        let waiters = self.ledger.lock().dismiss_waiters();
        waiters.into_iter().for_each(|waiter| drop(waiter.send(Err(why()))));
    }
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
        target: config.target(),
        max_parallel_restores: config.max_parallel_restores,
        max_waiting,
        max_warm_age: config.max_warm_age,
    }
}

/// A warm VM held for one caller; dropped, it goes back to the pool or to the next in line.
#[derive(Debug)]
pub(crate) struct Reserved {
    pool: Arc<Pool>,
    vm: Option<WarmVm>,
}

impl Reserved {
    /// Holds what the books have just reserved.
    pub(crate) fn new(pool: &Arc<Pool>, vm: WarmVm) -> Self {
        Self { pool: Arc::clone(pool), vm: Some(vm) }
    }

    /// Takes the VM out of the books, to be promised. `None` when it has died: it is destroyed.
    pub(crate) fn commit(mut self) -> Option<WarmVm> {
        let vm = self.vm.take()?;
        let alive = matches!(
            self.pool.provider.runtime.status(&vm.vm_id),
            Some(VmStatus::Running | VmStatus::Stopped)
        );
        let alive = alive || mutants::is(Mutant::DeadHandedOut);
        if self.pool.ledger.lock().commit(&vm.vm_id) && alive {
            return Some(vm);
        }
        self.pool.discard([vm], "died");
        None
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(vm) = self.vm.take()
            && !mutants::is(Mutant::LeakedReservation)
        {
            let now = self.pool.env.boot_time();
            let settled = self.pool.ledger.lock().give_back(&vm.vm_id, now);
            settled.into_iter().for_each(|settled| self.pool.settle(settled));
        }
    }
}
