//! Makes what is warm become what should be: one driver for each pool.
//!
//! Level-triggered: a turn looks at the books and never at why it woke; bells only make it look
//! soon, and a slow period repairs a bell that nobody heard. A restore begins with a permit that
//! the books hand out, runs as a job to its end, and comes back as an event.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::{Uid, VmId, VmRuntimeError, VmSpec};
use tokio::time::Instant;

use crate::error::Error;
use crate::jobs::Class;
use crate::ledger::WarmVm;
use crate::manager::{Manager, Phase, tags};
use crate::pool::{Pool, WarmState};
use crate::templates::Template;

/// How long a driver sleeps when nothing wakes it.
const REPAIR_PERIOD: Duration = Duration::from_secs(1);

impl Manager {
    /// Starts the driver of `pool`.
    pub(crate) fn drive(self: &Arc<Self>, pool: &Arc<Pool>) {
        let (manager, pool) = (Arc::clone(self), Arc::clone(pool));
        self.tasks.spawn(async move {
            while !pool.stop.is_cancelled() {
                manager.turn(&pool);
                let sleep = manager.until_next_turn(&pool);
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

    /// One turn: throw away what is too old or too many, begin what is missing.
    fn turn(self: &Arc<Self>, pool: &Arc<Pool>) {
        let now = self.env.boot_time();
        let mut ledger = pool.ledger.lock();
        let stale = ledger.take_stale(now);
        let surplus = ledger.take_surplus();
        drop(ledger);
        pool.discard(stale, "over_age");
        pool.discard(surplus, "surplus");
        if self.phase() == Phase::Draining {
            let all = pool.ledger.lock().take_all();
            pool.discard(all, "surplus");
        }
        let template = pool.template();
        if template.not_ready().is_none() && self.phase() == Phase::Serving {
            loop {
                let uid = self.env.uid();
                let vm_id = VmId::warm(uid);
                if !pool.ledger.lock().begin_restore(vm_id.clone(), now) {
                    break;
                }
                let (manager, pool, template) =
                    (Arc::clone(self), Arc::clone(pool), Arc::clone(&template));
                self.tasks.spawn(async move { manager.restore(pool, template, vm_id).await });
            }
        }
        pool.show();
    }

    fn until_next_turn(&self, pool: &Pool) -> Duration {
        let now = self.env.boot_time();
        let mut ledger = pool.ledger.lock();
        let retry = Some(ledger.breaker().retry_after(now)).filter(|it| !it.is_zero());
        let too_old = ledger.bounds().max_warm_age.zip(ledger.oldest_ready_at());
        let too_old = too_old.map(|(age, ready_at)| (ready_at + age).saturating_sub(now));
        // A retry that is due and found no permit (one is under way) waits for the bell.
        let next = [retry, too_old].into_iter().flatten().min().unwrap_or(REPAIR_PERIOD);
        next.clamp(Duration::from_millis(1), REPAIR_PERIOD)
    }

    /// One restore, from the permit to the books.
    async fn restore(self: Arc<Self>, pool: Arc<Pool>, template: Arc<Template>, vm_id: VmId) {
        let begun = Instant::now();
        let done = self.make_warm(&pool, &template, &vm_id).await;
        let now = self.env.boot_time();
        match done {
            Ok(uid) => {
                pool.restore_took(begun.elapsed());
                let vm = WarmVm { vm_id, uid, ready_at: now };
                // Looked at under the lock: a new generation is published before the old one's
                // VMs are taken from the books.
                let mut ledger = pool.ledger.lock();
                if pool.template().generation == template.generation {
                    let settled = ledger.restored(vm);
                    drop(ledger);
                    pool.settle(settled);
                } else {
                    ledger.abandon_restore(&vm.vm_id);
                    drop(ledger);
                    pool.discard([vm], "old_generation");
                    pool.bell.notify_one();
                }
            }
            Err(error) => {
                pool.metrics.restore_failed(&error);
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(pool = %pool.id, %error, source, "a restore failed");
                let reason =
                    source.map_or_else(|| error.to_string(), |it| format!("{error}: {it}"));
                let jitter = self.env.unit();
                let mut ledger = pool.ledger.lock();
                ledger.restore_failed(&vm_id, reason.clone(), now, jitter);
                let is_open = ledger.breaker().is_open();
                drop(ledger);
                pool.show();
                pool.bell.notify_one();
                if is_open {
                    let retry_after = pool.retry_after();
                    pool.dismiss_waiters(|| restore_failed(&pool, reason.clone(), retry_after));
                }
            }
        }
    }

    /// Restores, warms up and probes one VM of `pool`, and pauses it if the pool wants that.
    /// What did not become warm is destroyed.
    async fn make_warm(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        template: &Arc<Template>,
        vm_id: &VmId,
    ) -> Result<Uid, VmRuntimeError> {
        let spec = self.pool_spec(pool, template, true)?;
        let pauses = pool.config().warm_state == WarmState::Paused;
        let template = Arc::clone(template);
        let probe_timeout = self.limits.probe_timeout;
        let provider = Arc::clone(&pool.provider);
        let (name, unready) = (vm_id.clone(), self.reaper.clone());
        let call = move || {
            let runtime = provider.runtime.as_ref();
            let ready = || -> Result<Uid, VmRuntimeError> {
                runtime.create_vm_with_spec(&name, &spec)?;
                template.wait_restored(runtime, &name, probe_timeout)?;
                if pauses {
                    runtime.pause_vm(&name)?;
                }
                let found = runtime.get_vm(&name).map(|vm| vm.uid);
                found.ok_or(VmRuntimeError::NotFound { vm_id: name.clone() })
            };
            // Also when it could not be made: its answer may have been lost.
            ready().inspect_err(|_| unready.retire(&provider, name.clone(), None))
        };
        let (late_pool, late_name, reaper) = (Arc::clone(pool), vm_id.clone(), self.reaper.clone());
        let late = move |done: Result<Uid, VmRuntimeError>| {
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

pub(crate) fn restore_failed(pool: &Pool, reason: String, retry_after: Duration) -> Error {
    let source =
        VmRuntimeError::Unavailable { what: "a restore".to_owned(), source: Some(reason.into()) };
    Error::RestoreFailed { pool: pool.id.to_string(), retry_after, source }
}
