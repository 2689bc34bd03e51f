//! Makes what is warm become what should be: one driver for each pool.
//!
//! Level-triggered: a turn looks at the books and never at why it woke; bells only make it look
//! soon, and a slow period repairs a bell that nobody heard. A restore begins with a permit that
//! the books hand out, runs as a job to its end, and comes back as an event.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::model::VmStatus;
use hearth_providers::readiness::warm_up;
use hearth_providers::{Uid, VmId, VmRuntime, VmRuntimeError, VmSpec};
use tokio::time::Instant;

use crate::build::WARM_UP_TIMEOUT;
use crate::error::Error;
use crate::ids::Tenant;
use crate::jobs::Class;
use crate::ledger::{RestoreLimit, WarmVm};
use crate::manager::{Manager, Phase, tags};
use crate::mutants::{self, Mutant};
use crate::pool::{Pool, WarmState};
use crate::templates::Template;
use crate::throttle::{Asker, RestorePlace};

/// Which part of the oldest age VMs may seem older than they are, each another.
const AGE_SPREAD: f64 = 0.2;

/// How long a driver sleeps when nothing wakes it.
const REPAIR_PERIOD: Duration = Duration::from_secs(1);

impl Manager {
    /// Starts the driver of `pool`.
    pub(crate) fn drive(self: &Arc<Self>, pool: &Arc<Pool>) {
        let (manager, pool) = (Arc::clone(self), Arc::clone(pool));
        self.tasks.spawn(async move {
            while !pool.stop.is_cancelled() {
                let sleep = manager.turn(&pool);
                tokio::select! {
                    // In this order, so that a run can be repeated.
                    biased;
                    () = manager.tasks.stopping().cancelled() => return,
                    () = pool.stop.cancelled() => {}
                    () = pool.bell.notified() => {}
                    () = tokio::time::sleep(sleep) => {}
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
            let (manager, pool, template) =
                (Arc::clone(self), Arc::clone(pool), Arc::clone(template));
            self.tasks.spawn(async move { manager.restore(pool, template, vm_id, place).await });
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

    /// One restore, from the permit to the books.
    async fn restore(
        self: Arc<Self>,
        pool: Arc<Pool>,
        template: Arc<Template>,
        vm_id: VmId,
        place: RestorePlace,
    ) {
        let begun = Instant::now();
        let done = self.make_warm(&pool, &template, &vm_id, place).await;
        let now = self.env.boot_time();
        match done {
            Ok((uid, place)) => {
                place.succeeded(pool.restore_took(begun.elapsed()));
                // Those of one age do not all grow too old at once.
                let spread = pool.config().max_warm_age.unwrap_or_default().mul_f64(AGE_SPREAD);
                let ready_at = now.saturating_sub(spread.mul_f64(self.env.unit()));
                let vm = WarmVm { vm_id, uid, ready_at, made_of: Arc::clone(&template) };
                if pool.bring_in(vm, &template, now) {
                    self.note_proven(&template.id, template.generation).await;
                }
            }
            Err(error) => self.restore_failed(&pool, &template, &vm_id, &error).await,
        }
    }

    /// A restore has failed: the breaker notes it, and who waits is told when nothing else happens
    /// any more. A new generation of which nothing can be restored is taken back.
    async fn restore_failed(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        template: &Template,
        vm_id: &VmId,
        error: &VmRuntimeError,
    ) {
        let now = self.env.boot_time();
        pool.metrics.restore_failed(error);
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(pool = %pool.id, %error, source, "a restore failed");
        let reason = source.map_or_else(|| error.to_string(), |it| format!("{error}: {it}"));
        let jitter = self.env.unit();
        let (is_open, is_canary) = {
            let mut ledger = pool.ledger.lock();
            ledger.restore_failed(vm_id, reason.clone(), now, jitter);
            (ledger.breaker().is_open(), ledger.is_unproven())
        };
        pool.show();
        pool.bell.notify_one();
        if !is_open {
            return;
        }
        let retry_after = pool.retry_after(&Tenant::anonymous());
        pool.dismiss_waiters(|| restore_failed(pool, reason.clone(), retry_after));
        if is_canary && pool.restores_from(template) {
            self.roll_back_canary(&template.id, template.generation, reason).await;
        }
    }

    /// Restores, probes and warms up one VM of `pool`, and if the pool wants that reads in its memory
    /// and pauses it. What did not become warm is destroyed. The place is kept until the call has
    /// ended: one that hangs goes on using what it uses.
    async fn make_warm(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        template: &Arc<Template>,
        vm_id: &VmId,
        place: RestorePlace,
    ) -> Result<(Uid, RestorePlace), VmRuntimeError> {
        let spec = self.pool_spec(pool, template, true)?;
        let config = pool.config();
        let pauses = config.warm_state == WarmState::Paused;
        let (steps, prefaults) = (config.warm_up.clone(), config.prefault);
        let template = Arc::clone(template);
        let probe_timeout = self.limits.probe_timeout;
        let (provider, books) = (Arc::clone(&pool.provider), Arc::clone(pool));
        let (name, unready) = (vm_id.clone(), self.reaper.clone());
        let call = move || {
            let runtime = provider.runtime.as_ref();
            let ready = || -> Result<Uid, VmRuntimeError> {
                runtime.create_vm_with_spec(&name, &spec)?;
                template.wait_restored(runtime, &name, probe_timeout)?;
                warm_up(runtime, &name, &steps, WARM_UP_TIMEOUT)?;
                // Who waits already is served sooner without.
                if prefaults && books.ledger.lock().waiting() == 0 {
                    prefault(runtime, &name)?;
                }
                if pauses {
                    runtime.pause_vm(&name)?;
                }
                let found = runtime.get_vm(&name).map(|vm| vm.uid);
                found.ok_or(VmRuntimeError::NotFound { vm_id: name.clone() })
            };
            // Also when it could not be made: its answer may have been lost.
            let uid = ready().inspect_err(|_| unready.retire(&provider, name.clone(), None))?;
            Ok((uid, place))
        };
        let (late_pool, late_name, reaper) = (Arc::clone(pool), vm_id.clone(), self.reaper.clone());
        let late = move |done: Result<(Uid, RestorePlace), VmRuntimeError>| {
            if done.is_ok() {
                late_pool.metrics.discarded("not_ready");
                reaper.retire(&late_pool.provider, late_name, None);
            }
        };
        self.jobs.run(Class::Restore, "restore", self.limits.restore_timeout, call, late).await
    }

    /// What a restore for `pool` asks its provider for, tags included.
    pub(crate) fn pool_spec(
        &self,
        pool: &Pool,
        template: &Template,
        resume: bool,
    ) -> Result<VmSpec, VmRuntimeError> {
        let not_ready = || VmRuntimeError::Unavailable {
            what: format!("template {}", template.id),
            source: template.not_ready().map(Into::into),
        };
        let mut spec = template.restore_spec(resume).ok_or_else(not_ready)?;
        spec.tags = self.tags(Some(pool), Some(template));
        Ok(spec)
    }

    /// What is written on an instance, to know it after a restart.
    pub(crate) fn tags(
        &self,
        pool: Option<&Pool>,
        template: Option<&Template>,
    ) -> std::collections::BTreeMap<String, String> {
        let mut tags = std::collections::BTreeMap::from([
            (tags::STATE.to_owned(), self.state_uuid().to_string()),
            (tags::BOOT.to_owned(), self.boot_id.clone()),
            (tags::MADE_AT.to_owned(), self.env.boot_time().as_millis().to_string()),
        ]);
        if let Some(pool) = pool {
            tags.insert(tags::POOL.to_owned(), pool.id.to_string());
        }
        if let Some(template) = template {
            tags.insert(tags::TEMPLATE.to_owned(), template.id.to_string());
            tags.insert(tags::GENERATION.to_owned(), template.generation.to_string());
        }
        tags
    }
}

/// Has the memory of a VM that is to wait read in. A VM that has it not is as good as ever, so nothing
/// of this fails the restore but the end of the VM.
fn prefault(runtime: &dyn VmRuntime, vm_id: &VmId) -> Result<(), VmRuntimeError> {
    use VmRuntimeError as E;
    match runtime.prefault_vm(vm_id) {
        Ok(bytes) => tracing::debug!(%vm_id, bytes, "the memory of a VM was read in"),
        Err(gone @ (E::NotFound { .. } | E::InvalidTransition { .. } | E::Unavailable { .. })) => {
            return Err(gone);
        }
        Err(error) => tracing::debug!(%vm_id, %error, "the memory of a VM was not read in"),
    }
    Ok(())
}

pub(crate) fn restore_failed(pool: &Pool, reason: String, retry_after: Duration) -> Error {
    let source =
        VmRuntimeError::Unavailable { what: "a restore".to_owned(), source: Some(reason.into()) };
    Error::RestoreFailed { pool: pool.id.to_string(), retry_after, source }
}
