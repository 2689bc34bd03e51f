//! Makes what is warm become what should be: one driver for each pool.
//!
//! Level-triggered: a turn looks at the books and never at why it woke; bells only make it look
//! soon, and a slow period repairs a bell that nobody heard. A restore begins with a permit that
//! the books hand out, runs as a job to its end, and comes back as an event.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::model::VmStatus;
use hearth_providers::{VmId, VmRuntimeError};

use crate::jobs::Class;
use crate::ledger::RestoreLimit;
use crate::manager::{Manager, Phase};
use crate::mutants::{self, Mutant};
use crate::pool::{Pool, WarmState};
use crate::templates::Template;
use crate::throttle::{Asker, NOISE};

/// How long a driver sleeps when nothing wakes it.
const REPAIR_PERIOD: Duration = Duration::from_secs(1);
/// A refill does not run beside each claim: VMs that were taken are gathered for so long, and again while a
/// burst goes on and the pool bears it. A claim that wakes the driver has another thread woken before it is
/// answered.
const GATHER: Duration = Duration::from_millis(2);
/// How often at most, one after another.
const MOST_GATHERED: u32 = 25;

/// What a driver has gathered since its last turn.
#[derive(Debug, Default)]
struct Gathered {
    times: u32,
    claims: u64,
}

impl Gathered {
    /// Whether the refill of `pool` waits once more, as nobody suffers from it: its restores are so quick
    /// that beginning one costs as much as a claim, nobody waits, no new generation rolls in, at least half is
    /// warm, and later, while claims go on to come, what is left lasts for longer than all that is missing
    /// takes to restore.
    fn goes_on(&mut self, pool: &Pool) -> bool {
        let claims = pool.misses().claims_and_misses().0;
        let claimed = claims.saturating_sub(std::mem::replace(&mut self.claims, claims));
        self.times += 1;
        let Some(restore_time) = pool.restore_time().filter(|it| *it < NOISE) else { return false };
        let (warm, target) = {
            let ledger = pool.ledger.lock();
            if ledger.waiting() > 0 || ledger.is_rolling() {
                return false;
            }
            (ledger.warm(), ledger.bounds().target)
        };
        if self.times == 1 {
            return 2 * warm >= target;
        }
        if claimed == 0 || self.times > MOST_GATHERED {
            return false;
        }
        let lasts = GATHER.as_secs_f64() * warm as f64 / claimed as f64;
        let at_once = pool.max_restoring().max(1) as f64;
        let takes =
            restore_time.as_secs_f64() * (target.saturating_sub(warm) as f64 / at_once + 1.0);
        lasts > takes + 2.0 * GATHER.as_secs_f64()
    }
}

impl Manager {
    /// Starts the driver of `pool`.
    pub(crate) fn drive(self: &Arc<Self>, pool: &Arc<Pool>) {
        let (manager, pool) = (Arc::clone(self), Arc::clone(pool));
        self.tasks.spawn(async move {
            while !pool.stop.is_cancelled() {
                let mut sleep = manager.turn(&pool);
                let mut gathered = Gathered::default();
                loop {
                    let can_wait = tokio::select! {
                        // In this order, so that a run can be repeated.
                        biased;
                        () = manager.tasks.stopping().cancelled() => return,
                        () = pool.stop.cancelled() => false,
                        () = pool.bell.notified() => false,
                        () = pool.soft_bell.notified(), if gathered.times == 0 => true,
                        () = tokio::time::sleep(sleep) => gathered.times > 0,
                    };
                    if !can_wait || sleep < GATHER || !gathered.goes_on(&pool) {
                        break;
                    }
                    sleep = GATHER;
                }
            }
        });
    }

    /// One turn: decide what should be, throw away what is too old or too many, begin what is
    /// missing. Answers when to look again, if nothing happens before that.
    fn turn(self: &Arc<Self>, pool: &Arc<Pool>) -> Duration {
        pool.plan(self.phase() == Phase::Draining);
        let now = self.env.boot_time();
        let mut ledger = pool.ledger.lock();
        let stale = ledger.take_stale(now);
        let replaced = ledger.take_replaced();
        let surplus = ledger.take_surplus();
        drop(ledger);
        pool.discard(stale, "over_age");
        pool.discard(replaced, "old_generation");
        pool.discard(surplus, "surplus");
        if self.phase() == Phase::Draining {
            let all = pool.ledger.lock().take_all();
            pool.discard(all, "surplus");
        }
        let mut more_may_in = None;
        let template = pool.template();
        if template.not_ready().is_none() && self.phase() == Phase::Serving {
            more_may_in = self.begin_missing(pool, &template, now);
            self.probe_waiting(pool, &template, now);
        }
        pool.show();
        self.until_next_turn(pool, more_may_in)
    }

    /// Begins the restores that are missing, as far as they may begin; answers when to look again
    /// whether more may.
    fn begin_missing(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        template: &Arc<Template>,
        now: Duration,
    ) -> Option<Duration> {
        loop {
            let mut ledger = pool.ledger.lock();
            let (mut permits, mut limit) = ledger.permits_and_limit(now);
            // Those that have hung for too long are not restores any more, and still run.
            let at_once = ledger.bounds().max_parallel_restores;
            let is_unbounded = mutants::is(Mutant::UnboundedRestores);
            if pool.places.running() >= at_once && !is_unbounded {
                (permits, limit) = (0, RestoreLimit::Pool);
            }
            // Each that runs serves one who waits.
            let is_urgent = ledger.adding_restores() > ledger.restoring();
            if permits == 0 {
                ledger.settle_wishes();
                drop(ledger);
                pool.limited_by(limit);
                return None;
            }
            drop(ledger);
            let (bell, places) = (&pool.bell, &pool.places);
            let restore_time = pool.restore_time();
            let asker = Asker { bell, places, is_urgent, restore_time };
            let place = match self.shared.throttle.try_begin(asker, now) {
                Ok(place) => place,
                Err((limit, again)) => {
                    pool.limited_by(limit);
                    return again;
                }
            };
            let vm_id = VmId::warm(self.env.uid());
            if !pool.ledger.lock().begin_restore(vm_id.clone(), now) {
                return None;
            }
            let span = pool.restore_span();
            let (manager, pool, template) =
                (Arc::clone(self), Arc::clone(pool), Arc::clone(template));
            self.tasks
                .spawn(async move { manager.restore(pool, template, vm_id, place, span).await });
        }
    }

    fn until_next_turn(&self, pool: &Pool, more_may_in: Option<Duration>) -> Duration {
        let now = self.env.boot_time();
        let mut ledger = pool.ledger.lock();
        let retry = Some(ledger.breaker().retry_after(now)).filter(|it| !it.is_zero());
        let too_old = ledger.bounds().max_warm_age.zip(ledger.oldest_ready_at());
        let too_old = too_old.map(|(age, ready_at)| (ready_at + age).saturating_sub(now));
        drop(ledger);
        let planned = pool.plan_ends_in(now);
        // A retry that is due and found no permit (one is under way) waits for the bell.
        let next = [retry, too_old, planned, more_may_in].into_iter().flatten().min();
        next.unwrap_or(REPAIR_PERIOD).clamp(Duration::from_millis(1), REPAIR_PERIOD)
    }

    /// Looks after VMs that have waited for long: what does not answer any more is not handed out.
    fn probe_waiting(self: &Arc<Self>, pool: &Arc<Pool>, template: &Arc<Template>, now: Duration) {
        let interval = self.limits.probe_interval;
        if interval.is_zero() {
            return;
        }
        while let Some(place) = pool.take_probe() {
            let due = now.checked_sub(interval);
            let Some(vm) = due.and_then(|due| pool.ledger.lock().due_for_probe(due)) else {
                return;
            };
            let (manager, pool, template) =
                (Arc::clone(self), Arc::clone(pool), Arc::clone(template));
            self.tasks.spawn(async move {
                let is_well = manager.probe(&pool, &template, &vm.vm_id).await;
                drop(place);
                match is_well {
                    Ok(()) => {
                        let now = manager.env.boot_time();
                        pool.ledger.lock().probed(vm.vm_id, now);
                        pool.bell.notify_one();
                    }
                    Err(error) => {
                        tracing::warn!(pool = %pool.id, vm_id = %vm.vm_id, %error, "a warm VM is not well");
                        pool.probe_failed(&vm.vm_id);
                    }
                }
            });
        }
    }

    /// Whether a VM that waits could still be handed out.
    async fn probe(
        &self,
        pool: &Arc<Pool>,
        template: &Arc<Template>,
        vm_id: &VmId,
    ) -> Result<(), VmRuntimeError> {
        let (provider, template) = (Arc::clone(&pool.provider), Arc::clone(template));
        let is_paused = pool.config().warm_state == WarmState::Paused;
        let (name, timeout) = (vm_id.clone(), self.limits.probe_timeout);
        let call = move || match (is_paused, provider.runtime.status(&name)) {
            // It answers nobody while it stands still.
            (true, Some(VmStatus::Stopped)) => Ok(()),
            (false, Some(VmStatus::Running)) => {
                template.wait_restored(provider.runtime.as_ref(), &name, timeout)
            }
            // Somebody has it by now: that is theirs to find out.
            (_, None) => Ok(()),
            (_, Some(status)) => Err(VmRuntimeError::Unavailable {
                what: format!("a warm VM that is {status:?}"),
                source: None,
            }),
        };
        self.jobs.run(Class::Verb, "probe", self.limits.verb_timeout, call, drop).await
    }
}
