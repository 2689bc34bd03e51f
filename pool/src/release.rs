//! The end of a lease: by its tenant, by time, or because nobody claimed it.
//!
//! RELEASING is appended, the name is freed by giving the VM back its pool's name, the caller is
//! answered, the VM is destroyed, GONE is appended. The first transition out of Leased wins. A
//! VM that ran tenant code is never warm again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::{Uid, VmId, VmRuntimeError};

use crate::acquire::Expiration;
use crate::error::{Error, Result};
use crate::ids::Tenant;
use crate::jobs::Class;
use crate::journal::{LeaseRecord, RecordState};
use crate::lease::{Lease, Leases};
use crate::lifecycle::VmEvent;
use crate::manager::{Manager, tags};
use crate::metrics;
use crate::mutants::{self, Mutant};
use crate::retire::OnGone;

/// A lease whose VM is being destroyed.
pub(crate) struct EndedLease {
    manager: Arc<Manager>,
    lease: Arc<Lease>,
    /// A name that is free only when the VM is gone.
    frees: Option<VmId>,
}

impl EndedLease {
    /// What is written of its end.
    pub(crate) fn record(&self) -> LeaseRecord {
        // From Releasing to Gone nothing else leads.
        let _ = self.lease.advance(VmEvent::Destroyed);
        self.lease.record(RecordState::Gone, self.manager.boot_id())
    }

    /// Writes the ends of leases. Blocks on the journal for microseconds.
    pub(crate) fn write(&self, records: &[LeaseRecord]) {
        if let Err(error) = self.manager.journal.write_leases(records) {
            // The next start finds them as they were: ended, and without a VM.
            tracing::warn!(leases = records.len(), %error, "the end of leases could not be written");
        }
    }

    /// The VM is gone, and that is written.
    pub(crate) fn settle(self) {
        let Self { manager, lease, frees } = self;
        let (leases, now) = (&manager.leases, manager.env.boot_time());
        frees.inspect(|vm_id| leases.free_name(vm_id, &lease, now));
        if mutants::is(Mutant::NameFreedTwice) {
            leases.drop_name(&lease.held().vm_id, lease.uid);
        }
        leases.remove(lease.uid);
        drop(std::mem::take(&mut *lease.room.lock()));
        if let Some(pool) = &lease.pool {
            pool.leased_changed(-1);
            pool.end_quarantine(lease.uid);
        }
        manager.requests.ended(lease.request.clone(), lease.uid, now);
    }
}

impl Manager {
    /// Ends a lease; returns when the name is free. A second call is fine.
    ///
    /// # Errors
    /// `NotFound`; `UidMismatch`; `VmInPool`; `Storage`, and the lease goes on.
    ///
    /// # Cancel safety
    /// A dropped future leaves the lease as it is or has released it.
    pub async fn release(
        self: &Arc<Self>,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<()> {
        let lease = match self.lease_of(vm_id, uid, tenant) {
            Ok(lease) => lease,
            Err(error @ Error::NotFound { .. }) => {
                return self.was_released(vm_id, uid, tenant).ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let span = tracing::debug_span!("release", vm = vm_id.as_str(), uid = %lease.uid);
        match span.in_scope(|| self.end(&lease))? {
            None => Ok(()),
            // A provider without rename keeps the name until the VM is gone.
            Some(gone) => drop_result(gone.await),
        }
    }

    /// The live lease of this name.
    ///
    /// # Errors
    /// `NotFound`, also for another tenant's; `UidMismatch`; `VmInPool`.
    pub fn lease_of(
        &self,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<Arc<Lease>> {
        let is_seen = |lease: &Arc<Lease>| tenant.is_none_or(|it| lease.tenant == *it);
        let Some(lease) = self.leases.by_name(vm_id).filter(is_seen) else {
            let is_warm = |it: &Arc<crate::pool::Provider>| it.runtime.status(vm_id).is_some();
            if vm_id.is_pools_own() && self.providers().iter().any(is_warm) {
                return Err(Error::VmInPool { vm: vm_id.to_string() });
            }
            return Err(Error::no_vm(vm_id));
        };
        match uid {
            Some(uid) if uid != lease.uid => Err(Error::UidMismatch {
                vm: vm_id.to_string(),
                expected: uid.to_string(),
                actual: lease.uid.to_string(),
            }),
            _ => Ok(lease),
        }
    }

    /// A name that was released is free: releasing it again is no error.
    fn was_released(&self, vm_id: &VmId, uid: Option<Uid>, tenant: Option<&Tenant>) -> Option<()> {
        let lease = self.leases.ended_by_name(vm_id, uid)?;
        tenant.is_none_or(|tenant| lease.tenant == *tenant).then_some(())
    }

    /// Ends a lease that has not ended yet. What it answers says when the VM is gone, where the
    /// name is not free before that.
    pub(crate) fn end(self: &Arc<Self>, lease: &Arc<Lease>) -> Result<Option<Gone>> {
        let _writing = lease.writing.lock();
        if lease.advance(VmEvent::Released).is_err() {
            return Ok(None);
        }
        let record = lease.record(RecordState::Releasing, &self.boot_id);
        let is_written = !mutants::is(Mutant::UnwrittenRelease);
        if is_written && let Err(error) = self.journal.write_lease(&record) {
            lease.take_back_release();
            self.shared.changes.vm(lease.uid);
            return Err(error);
        }
        self.attached.end(lease.uid);
        self.shared.changes.vm(lease.uid);
        drop(std::mem::take(&mut *lease.place.lock()));
        let vm_id = record.vm_id;
        let rename = || lease.provider.runtime.rename_vm(&vm_id, &lease.pool_vm_id);
        match tracing::debug_span!("rename").in_scope(rename) {
            // One that is gone or was lost has no name to give back.
            Ok(())
            | Err(VmRuntimeError::NotFound { .. } | VmRuntimeError::InvalidTransition { .. }) => {
                self.leases.free_name(&vm_id, lease, self.env.boot_time());
                if mutants::is(Mutant::ReleaseToPool) {
                    mutants::warm_again(lease, self.env.boot_time());
                    return Ok(None);
                }
                self.destroy(lease, lease.pool_vm_id.clone(), None);
                Ok(None)
            }
            Err(error) => {
                if !matches!(error, VmRuntimeError::Unsupported { .. }) {
                    tracing::warn!(%vm_id, %error, "a released VM keeps its name until it is gone");
                }
                Ok(Some(self.destroy(lease, vm_id.clone(), Some(vm_id))))
            }
        }
    }

    /// Ends a lease that nobody can claim: its caller left, and it had neither id nor name.
    pub(crate) fn release_unclaimed(self: &Arc<Self>, lease: &Arc<Lease>) {
        if let Err(error) = self.end(lease) {
            tracing::warn!(uid = %lease.uid, %error, "an unclaimed VM is left to expire");
        }
    }

    /// Has the VM of an aborted handover destroyed, whichever of its two names it has.
    pub(crate) fn retire_instance(&self, lease: &Arc<Lease>) {
        let vm_id = lease.held().vm_id;
        let called = match lease.provider.runtime.get_vm(&lease.pool_vm_id) {
            Some(view) if view.uid == lease.uid => lease.pool_vm_id.clone(),
            _ => {
                // Renamed already: the name is freed for the next try.
                match lease.provider.runtime.rename_vm(&vm_id, &lease.pool_vm_id) {
                    Ok(()) => lease.pool_vm_id.clone(),
                    Err(_) => vm_id,
                }
            }
        };
        self.retire_unhanded(lease, called);
    }

    /// Has the VM of an aborted handover destroyed, which is called `called`; then nothing is left
    /// of its lease.
    pub(crate) fn retire_unhanded(&self, lease: &Arc<Lease>, called: VmId) {
        let (journal, uid) = (Arc::clone(&self.journal), lease.uid);
        let on_gone = OnGone::Call(Box::new(move || {
            if let Err(error) = journal.forget_lease(uid) {
                tracing::warn!(%uid, %error, "an aborted lease could not be forgotten");
            }
        }));
        drop(self.reaper.retire_instance(&lease.provider, lease.uid, called, on_gone));
    }

    /// Destroys the VM of a lease that has ended; `frees` is a name that is free only then.
    pub(crate) fn destroy(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        called: VmId,
        frees: Option<VmId>,
    ) -> Gone {
        let (manager, ended) = (Arc::clone(self), Arc::clone(lease));
        let on_gone = OnGone::End(EndedLease { manager, lease: ended, frees });
        self.reaper.retire_instance(&lease.provider, lease.uid, called, on_gone)
    }

    /// Ends leases whose time has come, for as long as hearth runs.
    pub(crate) async fn expire_leases(self: Arc<Self>) {
        while !self.tasks.stopping().is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(Leases::tick()) => {}
                () = self.tasks.stopping().cancelled() => return,
            }
            let now = self.env.boot_time();
            if mutants::is(Mutant::MissingExpiry) {
                continue;
            }
            for lease in self.leases.take_due(now) {
                let vm_id = lease.held().vm_id;
                match self.end(&lease) {
                    Ok(_) => {
                        tracing::info!(%vm_id, uid = %lease.uid, "a lease has expired");
                        metrics::lease_expired();
                    }
                    Err(error) => {
                        tracing::warn!(%vm_id, %error, "an expired lease could not be ended yet");
                        lease.change(|held| held.deadline = now + Duration::from_secs(1));
                        self.leases.watch(&lease);
                    }
                }
            }
            for uid in self.requests.forget_old(now) {
                if let Err(error) = self.journal.forget_lease(uid) {
                    tracing::warn!(%uid, %error, "an ended lease could not be forgotten");
                }
            }
        }
    }

    /// Gives a lease another end.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; `InvalidArgument` for a time to live out of
    /// bounds; `Storage`.
    pub fn renew(
        &self,
        vm_id: &VmId,
        tenant: Option<&Tenant>,
        uid: Option<Uid>,
        until: Expiration,
        allow_shorten: bool,
    ) -> Result<Arc<Lease>> {
        let lease = self.lease_of(vm_id, uid, tenant)?;
        // What is kept back on a full disk is for releases.
        self.journal.check_well()?;
        let max_ttl = lease.pool.as_ref().map_or(MAX_TTL, |pool| pool.config().max_ttl);
        let ttl = self.ttl(Some(until), max_ttl, max_ttl)?;
        let (boot, now) = (self.env.boot_time(), self.env.now());
        let writing = lease.writing.lock();
        let before = lease.held();
        if !lease.is_live() {
            return Err(Error::no_vm(vm_id));
        }
        if boot + ttl < before.deadline && !allow_shorten {
            drop(writing);
            return Ok(lease);
        }
        lease.change(|held| {
            held.deadline = boot + ttl;
            held.expire_time = now + ttl;
        });
        let record = lease.record(RecordState::Leased, &self.boot_id);
        let is_written = !mutants::is(Mutant::UnwrittenRenewal);
        if is_written && let Err(error) = self.journal.write_lease(&record) {
            lease.change(|held| {
                held.deadline = before.deadline;
                held.expire_time = before.expire_time;
            });
            self.leases.watch(&lease);
            return Err(error);
        }
        drop(writing);
        self.leases.watch(&lease);
        self.shared.changes.vm(lease.uid);
        Ok(lease)
    }

    /// Destroys every VM of ours, also those that jobs under way still bring; false when that
    /// took too long. Strangers are left alone.
    pub(crate) async fn destroy_all(self: &Arc<Self>) -> bool {
        let all_gone = async {
            // Each is handed in once: the reaper tries until it is gone.
            let mut doomed = HashSet::new();
            loop {
                // Looked at before the VMs: what a job makes is there when it has ended.
                let is_idle = self.jobs.is_idle(Class::Restore) && self.jobs.is_idle(Class::Build);
                for lease in self.leases.live() {
                    self.release_unclaimed(&lease);
                }
                let mut left = 0;
                for provider in self.providers() {
                    for view in provider.runtime.list_vms() {
                        if !view.tags.contains_key(tags::STATE) {
                            continue;
                        }
                        left += 1;
                        if self.leases.by_uid(view.uid).is_none() && doomed.insert(view.uid) {
                            self.reaper.retire(provider, view.vm_id, None);
                        }
                    }
                }
                if is_idle && left == 0 {
                    return;
                }
                tokio::time::sleep(DESTROY_LOOK).await;
            }
        };
        tokio::time::timeout(self.limits.drain_timeout, all_gone).await.is_ok()
    }
}

/// How often a shutdown looks whether everything is destroyed.
const DESTROY_LOOK: Duration = Duration::from_millis(50);

/// The longest lease of a VM that is of no pool.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Resolves when a VM is gone.
pub(crate) type Gone = tokio::sync::oneshot::Receiver<()>;

fn drop_result(gone: Result<(), tokio::sync::oneshot::error::RecvError>) -> Result<()> {
    gone.map_err(|_| Error::Internal("hearth is ending".to_owned()))
}
