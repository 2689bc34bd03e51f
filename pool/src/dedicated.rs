//! A restore for one caller alone, under its own name: where nothing warm will do.
//!
//! It is a task of its own from its beginning on; its caller only waits for it. Bounded by places of the
//! pool and by the node's budget; it does not stand in the pool's line.

use std::sync::Arc;

use hearth_providers::{Uid, VmId, VmRuntimeError, VmSpec};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::acquire::{Acquired, Attempt};
use crate::cold::node_full;
use crate::error::{Error, Result};
use crate::jobs::Class;
use crate::journal::Source;
use crate::ledger::WarmVm;
use crate::manager::Manager;
use crate::metrics::{self, RestoreTiming};

/// A VM that was made, since when it was there, and since when it was ready.
type Made = (Uid, Instant, Instant);

impl Manager {
    /// A restore for this caller alone, under its own name.
    pub(crate) async fn dedicated(self: &Arc<Self>, attempt: Attempt) -> Result<Acquired> {
        let pool = Arc::clone(&attempt.pool);
        let template = pool.template();
        let id = pool.id.to_string();
        if let Some(refusal) = template.refusal() {
            return Err(refusal);
        }
        let mut spec = self.pool_spec(&pool, &template, true)?;
        if let Some(from) = &mut spec.restore_from {
            from.network_overrides.clone_from(&attempt.request.network_overrides);
        }
        self.journal.check_well()?;
        let tenant = attempt.request.tenant.clone();
        let longest = attempt.begun + self.limits.max_wait;
        let deadline = attempt.request.deadline.map_or(longest, |it| it.min(longest));
        let Some(place) = pool.take_dedicated() else {
            metrics::cold_rejected("saturated");
            let retry_after = pool.retry_after(&tenant);
            return Err(Error::ColdPathSaturated { pool: id, retry_after });
        };
        let Some(room) = pool.take_room() else { return Err(node_full(&pool, &tenant)) };
        let (answer, answered) = oneshot::channel();
        let manager = Arc::clone(self);
        self.tasks.spawn_part(tracing::Span::current(), async move {
            // The room is the pool's to count as soon as the VM is leased.
            let _held = (place, room);
            let is_claimable = attempt.is_claimable();
            let restore = Instant::now();
            let made = manager.make_dedicated(&attempt, spec, &answer).await;
            let done = made.and_then(|uid| {
                let mut attempt = attempt;
                attempt.timing.restore = restore.elapsed();
                let pool_vm_id = VmId::warm(uid);
                let commit = Instant::now();
                let ready_at = manager.env.boot_time();
                let vm = WarmVm { vm_id: pool_vm_id, uid, ready_at, made_of: template };
                let lease = manager.commit(&attempt, vm, attempt.vm_id()?, Source::Cold)?;
                attempt.timing.commit = commit.elapsed();
                Ok(manager.complete(attempt, lease))
            });
            if let Err(Ok(unheard)) = answer.send(done)
                && !is_claimable
            {
                manager.release_unclaimed(&unheard.lease);
            }
        });
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::Internal("the restore's task ended".to_owned())),
            Err(_) => {
                let retry_after = pool.retry_after(&tenant);
                Err(Error::DeadlineTooShort { pool: id, retry_after })
            }
        }
    }

    /// The restore itself, probed; destroyed again when the caller has left meanwhile.
    async fn make_dedicated(
        self: &Arc<Self>,
        attempt: &Attempt,
        spec: VmSpec,
        answer: &oneshot::Sender<Result<Acquired>>,
    ) -> Result<Uid> {
        let pool = &attempt.pool;
        let vm_id = attempt.vm_id()?;
        let template = pool.template();
        let timeout = self.limits.probe_timeout;
        let (provider, name) = (Arc::clone(&pool.provider), vm_id.clone());
        let reaper = self.reaper.clone();
        let call = move || {
            let restore = || provider.runtime.create_vm_with_spec(&name, &spec);
            let made = tracing::debug_span!("provider").in_scope(restore);
            if made.as_ref().is_err_and(|it| !matches!(it, VmRuntimeError::AlreadyExists { .. })) {
                // Its answer may have been lost.
                reaper.retire(&provider, name.clone(), None);
            }
            made?;
            let created = Instant::now();
            let probe = || template.wait_restored(&*provider.runtime, &name, timeout);
            let probed = tracing::debug_span!("probe").in_scope(probe);
            let made = probed.and_then(|()| {
                let probed = Instant::now();
                let found = provider.runtime.get_vm(&name).map(|vm| (vm.uid, created, probed));
                found.ok_or(VmRuntimeError::NotFound { vm_id: name.clone() })
            });
            made.inspect_err(|_| reaper.retire(&provider, name, None))
        };
        let (late_provider, late_name) = (Arc::clone(&pool.provider), vm_id.clone());
        let late_reaper = self.reaper.clone();
        let late = move |made: Result<Made, VmRuntimeError>| {
            if made.is_ok() {
                late_reaper.retire(&late_provider, late_name, None);
            }
        };
        let limit = self.limits.restore_timeout;
        let begun = Instant::now();
        let made = self.jobs.run(Class::Restore, "restore", limit, call, late).await;
        let (uid, created, probed) = made.map_err(|source| {
            pool.metrics.restore_failed(&source);
            match source {
                // These are the caller's own to mend.
                VmRuntimeError::InvalidSpec { .. }
                | VmRuntimeError::Unsupported { .. }
                | VmRuntimeError::AlreadyExists { .. } => Error::Provider(source),
                source => {
                    let retry_after = pool.retry_after(&attempt.request.tenant);
                    Error::RestoreFailed { pool: pool.id.to_string(), retry_after, source }
                }
            }
        })?;
        let (provider, probe) = (created - begun, probed - created);
        let total = begun.elapsed();
        pool.restore_took(&RestoreTiming { provider, probe, total, ..Default::default() });
        pool.metrics.ready(Source::Cold, attempt.begun.elapsed());
        if answer.is_closed() {
            self.reaper.retire(&pool.provider, vm_id, None);
            return Err(Error::Internal("the caller has left".to_owned()));
        }
        Ok(uid)
    }
}
