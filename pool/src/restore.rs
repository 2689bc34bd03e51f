//! Restores VMs for a pool: each from a permit of the books to the books, as a job, to its end.
//!
//! Waking a thread takes longer than the quickest backends do. So a thread whose restore was quick
//! begins the next one that is missing by itself, on the same place, as long as nobody else waits for
//! one: a *row*. What is slow is never made in a row, so that nothing waits behind it.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::model::Tags;
use hearth_providers::readiness::warm_up;
use hearth_providers::{Uid, VmId, VmRuntime, VmRuntimeError, VmSpec};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Span;

use crate::build::WARM_UP_TIMEOUT;
use crate::error::Error;
use crate::ids::Tenant;
use crate::jobs::Class;
use crate::ledger::WarmVm;
use crate::manager::{Manager, Phase, tags};
use crate::metrics::RestoreTiming;
use crate::pool::{Pool, WarmState};
use crate::templates::Template;
use crate::throttle::{Asker, RestorePlace};

/// Which part of the oldest age VMs may seem older than they are, each another.
const AGE_SPREAD: f64 = 0.2;
/// What took longer is not followed by another in its row.
pub(crate) const QUICK: Duration = Duration::from_millis(1);

/// Restores of one pool, one after another on one thread.
struct Row {
    manager: Arc<Manager>,
    pool: Arc<Pool>,
    template: Arc<Template>,
    spec: VmSpec,
    /// The one that is being made.
    current: Arc<Mutex<VmId>>,
}

impl Manager {
    /// Restores `vm_id` for `pool`, and what else is missing while that is quick. What did not become
    /// warm is destroyed. The place is kept until the call has ended: one that hangs goes on using what
    /// it uses.
    pub(crate) async fn restore(
        self: Arc<Self>,
        pool: Arc<Pool>,
        template: Arc<Template>,
        vm_id: VmId,
        place: RestorePlace,
        span: Span,
    ) {
        let begun = Instant::now();
        let current = Arc::new(Mutex::new(vm_id));
        let made = match self.pool_spec(&pool, &template, true) {
            Err(error) => Err(error),
            Ok(spec) => {
                let (manager, pool, template) =
                    (Arc::clone(&self), Arc::clone(&pool), Arc::clone(&template));
                let row = Row { manager, pool, template, spec, current: Arc::clone(&current) };
                let (timeout, most) = (self.limits.restore_timeout, self.jobs.most_in_a_row());
                let call = move || row.make(place, begun, span, most);
                // One that comes too late is not known to the books any more, and thrown away there.
                self.jobs.run(Class::Restore, "restore", timeout, call, drop).await
            }
        };
        match made {
            Ok(is_proof) if is_proof => self.note_proven(&template.id, template.generation).await,
            Ok(_) => {}
            Err(error) => {
                let vm_id = current.lock().clone();
                self.restore_failed(&pool, &template, &vm_id, &error).await;
            }
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
    pub(crate) fn tags(&self, pool: Option<&Pool>, template: Option<&Template>) -> Tags {
        let mut tags = std::collections::BTreeMap::from([
            (tags::STATE.to_owned(), self.state_uuid().to_string()),
            (tags::BOOT.to_owned(), self.boot_id.to_string()),
            (tags::MADE_AT.to_owned(), self.env.boot_time().as_millis().to_string()),
        ]);
        if let Some(pool) = pool {
            tags.insert(tags::POOL.to_owned(), pool.id.to_string());
        }
        if let Some(template) = template {
            tags.insert(tags::TEMPLATE.to_owned(), template.id.to_string());
            tags.insert(tags::GENERATION.to_owned(), template.generation.to_string());
        }
        Arc::new(tags)
    }
}

impl Pool {
    /// The span of a restore that begins: below that of the caller who waits for it, or of nobody's.
    pub(crate) fn restore_span(&self) -> Span {
        tracing::debug_span!(
            parent: &self.causes.next(),
            "restore",
            pool = self.id.as_str(),
            provider = &*self.provider.name,
            uid = tracing::field::Empty,
            outcome = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        )
    }
}

impl Row {
    /// Makes at most `most` VMs, the first of which was begun at `begun`, with its `span`. Answers whether
    /// the last one proved a new generation, which ends the row.
    fn make(
        self,
        place: RestorePlace,
        mut begun: Instant,
        mut span: Span,
        most: usize,
    ) -> Result<bool, VmRuntimeError> {
        for left in (0..most).rev() {
            let running = Instant::now();
            let vm_id = self.current.lock().clone();
            // Also when it could not be made: its answer may have been lost.
            let made = span.in_scope(|| self.make_warm(&vm_id));
            note_restored(span, &made);
            let (uid, mut timing) = made.inspect_err(|_| {
                self.manager.reaper.retire(&self.pool.provider, vm_id.clone(), None);
            })?;
            timing.total = begun.elapsed();
            place.succeeded(self.pool.restore_took(&timing));
            if self.bring_in(vm_id, uid) {
                return Ok(true);
            }
            if left == 0 || running.elapsed() > QUICK || !self.begin_next(&place) {
                break;
            }
            (begun, span) = (Instant::now(), self.pool.restore_span());
        }
        drop(place);
        let is_missing = self.pool.ledger.lock().permits(self.manager.env.boot_time()) > 0;
        if is_missing {
            self.pool.bell.notify_one();
        }
        Ok(false)
    }

    /// Restores, probes and warms up one VM, and if the pool wants that reads in its memory and pauses
    /// it.
    fn make_warm(&self, vm_id: &VmId) -> Result<(Uid, RestoreTiming), VmRuntimeError> {
        let config = self.pool.config();
        let runtime = self.pool.provider.runtime.as_ref();
        let begun = Instant::now();
        let restore = || runtime.create_vm_with_spec(vm_id, &self.spec);
        tracing::debug_span!("provider").in_scope(restore)?;
        let created = Instant::now();
        let timeout = self.manager.limits.probe_timeout;
        let probe = || self.template.wait_restored(runtime, vm_id, timeout);
        tracing::debug_span!("probe").in_scope(probe)?;
        let probed = Instant::now();
        let _prepare = tracing::debug_span!("prepare").entered();
        warm_up(runtime, vm_id, &config.warm_up, WARM_UP_TIMEOUT)?;
        // Who waits already is served sooner without.
        if config.prefault && self.pool.ledger.lock().waiting() == 0 {
            prefault(runtime, vm_id)?;
        }
        if config.warm_state == WarmState::Paused {
            runtime.pause_vm(vm_id)?;
        }
        let found = runtime.get_vm(vm_id).map(|vm| vm.uid);
        let uid = found.ok_or_else(|| VmRuntimeError::NotFound { vm_id: vm_id.clone() })?;
        let (provider, probe) = (created - begun, probed - created);
        let timing =
            RestoreTiming { provider, probe, prepare: probed.elapsed(), ..Default::default() };
        Ok((uid, timing))
    }

    /// Brings a VM to the books; answers whether it proved a new generation.
    fn bring_in(&self, vm_id: VmId, uid: Uid) -> bool {
        let (env, now) = (&self.manager.env, self.manager.env.boot_time());
        // Those of one age do not all grow too old at once.
        let spread = self.pool.config().max_warm_age.unwrap_or_default().mul_f64(AGE_SPREAD);
        let ready_at = now.saturating_sub(spread.mul_f64(env.unit()));
        let vm = WarmVm { vm_id, uid, ready_at, made_of: Arc::clone(&self.template) };
        self.pool.bring_in(vm, &self.template, now)
    }

    /// Begins the next restore, if one is missing and nobody else waits for the place.
    fn begin_next(&self, place: &RestorePlace) -> bool {
        let Self { manager, pool, .. } = self;
        if manager.phase() != Phase::Serving || pool.stop.is_cancelled() {
            return false;
        }
        // What tenants have got meanwhile counts: only the driver knows how much is left of a budget.
        if !pool.shared.shares.is_unbounded() {
            return false;
        }
        let now = manager.env.boot_time();
        let mut ledger = pool.ledger.lock();
        if ledger.permits(now) == 0 || !pool.restores_from(&self.template) {
            return false;
        }
        let is_urgent = ledger.adding_restores() > ledger.restoring();
        drop(ledger);
        let (bell, places, restore_time) = (&pool.bell, &pool.places, pool.restore_time());
        if !place.renew(Asker { bell, places, is_urgent, restore_time }, now) {
            return false;
        }
        let vm_id = VmId::warm(manager.env.uid());
        // Noted before the books have it: whoever is told of a failure asks for it.
        *self.current.lock() = vm_id.clone();
        ledger = pool.ledger.lock();
        ledger.begin_restore(vm_id, now)
    }
}

/// Says in the span of a restore what it came to, which ends it.
fn note_restored(span: Span, made: &Result<(Uid, RestoreTiming), VmRuntimeError>) {
    if span.is_disabled() {
        return;
    }
    match made {
        Ok((uid, _)) => {
            span.record("uid", tracing::field::display(uid));
            span.record("outcome", "ok");
        }
        Err(error) => {
            span.record("outcome", error.kind());
            span.record("otel.status_code", "ERROR");
        }
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
