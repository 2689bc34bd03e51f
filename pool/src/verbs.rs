//! What a tenant asks of a VM that it has, and VMs that it makes itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::freeze;
use hearth_providers::model::{SnapshotRef, SnapshotSource, SnapshotView};
use hearth_providers::{SnapshotId, Uid, VmId, VmRuntimeError, VmSpec};
use tokio::sync::oneshot;

use crate::acquire::{Acquired, Expiration};
use crate::budget::{Cost, Room};
use crate::cold::FULL_FOR;
use crate::error::{Error, Result};
use crate::ids::{RequestId, TemplateId, Tenant};
use crate::jobs::Class;
use crate::journal::{LeaseRecord, RecordState, Source};
use crate::lease::{Lease, NameGuard};
use crate::lifecycle::{VmEvent, VmState};
use crate::manager::Manager;
use crate::metrics::Timing;
use crate::pool::Provider;
use crate::release::MAX_TTL;
use crate::requests::{Fingerprint, Method, Pending, RequestKey};

/// The lease of a VM that was made without saying how long.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// A VM that a tenant makes from a spec of its own.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// Who asks.
    pub tenant: Tenant,
    /// Its name; unset: any.
    pub vm_id: Option<VmId>,
    /// The configured provider; empty: the default one.
    pub provider: String,
    /// What to make.
    pub spec: VmSpec,
    /// How long it may live.
    pub ttl: Option<Duration>,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// The caller's name for this request.
    pub request_id: Option<RequestId>,
    /// Only say whether it could be done.
    pub validate_only: bool,
    /// The template that it is restored from after all, and its generation.
    pub template: Option<(TemplateId, i64)>,
    /// What the caller asked for, hashed, where that is not this request.
    pub fingerprint: Option<u64>,
}

/// A verb that leads from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateVerb {
    /// Boot, or go on.
    Start,
    /// Pause, or power off.
    Stop,
}

impl Manager {
    /// Makes a VM from a spec; it ends Created, or as `restore_from` has it, with a lease like
    /// any other. `None` answers a request that was only to be checked.
    ///
    /// # Errors
    /// As for acquire; those of the provider.
    ///
    /// # Cancel safety
    /// As for acquire.
    pub async fn create_vm(self: &Arc<Self>, request: CreateRequest) -> Result<Option<Acquired>> {
        let provider = Arc::clone(self.provider(&request.provider)?);
        let fingerprint = Fingerprint::default()
            .part(&request.vm_id)
            .part(&request.provider)
            .part(&request.spec)
            .part(&request.ttl)
            .part(&request.labels)
            .finish();
        let fingerprint = request.fingerprint.unwrap_or(fingerprint);
        let pending = match &request.request_id {
            None => None,
            Some(request_id) => {
                let (tenant, request_id) = (request.tenant.clone(), request_id.clone());
                let key = RequestKey { tenant, method: Method::Create, request_id };
                match self.begin_request(key, fingerprint).await? {
                    Ok(pending) => Some(pending),
                    Err(replayed) => return Ok(Some(replayed)),
                }
            }
        };
        self.check_serving()?;
        let asked = request.ttl.map(Expiration::After);
        let ttl = self.ttl(asked, DEFAULT_TTL, MAX_TTL)?;
        request.spec.check()?;
        if request.validate_only {
            return Ok(None);
        }
        let place = self.shared.tenants.take_place(&request.tenant)?;
        let name = self.reserve_name(request.vm_id.as_ref())?;
        self.journal.check_well()?;
        let room = self.take_room(&request.spec)?;
        let (answer, answered) = oneshot::channel();
        let manager = Arc::clone(self);
        self.tasks.spawn_part(tracing::Span::current(), async move {
            let is_claimable = request.request_id.is_some() || request.vm_id.is_some();
            let made = manager.make_own(&provider, request, ttl, fingerprint, pending, name).await;
            if let Ok(made) = &made {
                *made.lease.place.lock() = place;
                *made.lease.room.lock() = room;
            }
            if let Err(Ok(unheard)) = answer.send(made)
                && !is_claimable
            {
                manager.release_unclaimed(&unheard.lease);
            }
        });
        let ended = |_| Error::Internal("the task that makes the VM has ended".to_owned());
        answered.await.map_err(ended)?.map(Some)
    }

    /// Room for a VM that no pool counts.
    fn take_room(&self, spec: &VmSpec) -> Result<Room> {
        let cost = Cost { mem_size_mib: spec.mem_size_mib, vcpus: spec.vcpu_count.into() };
        self.shared.shares.take_room(cost).ok_or_else(|| Error::CapacityExhausted {
            what: "tenants have all of its budget".to_owned(),
            retry_after: FULL_FOR,
        })
    }

    async fn make_own(
        &self,
        provider: &Arc<Provider>,
        request: CreateRequest,
        ttl: Duration,
        fingerprint: u64,
        pending: Option<Pending>,
        // Dropped before the request: a duplicate that waits for its end finds the name free.
        name: NameGuard,
    ) -> Result<Acquired> {
        let vm_id = name.vm_id().clone();
        let mut spec = request.spec;
        spec.tags = self.tags(None, None);
        let (maker, called) = (Arc::clone(provider), vm_id.clone());
        let lost = self.reaper.clone();
        let call = move || {
            let made = maker.runtime.create_vm_with_spec(&called, &spec);
            if made.as_ref().is_err_and(|it| !matches!(it, VmRuntimeError::AlreadyExists { .. })) {
                // Its answer may have been lost.
                lost.retire(&maker, called.clone(), None);
            }
            made?;
            let found = maker.runtime.get_vm(&called).map(|vm| vm.uid);
            found.ok_or(VmRuntimeError::NotFound { vm_id: called })
        };
        let (late_provider, late_name) = (Arc::clone(provider), vm_id.clone());
        let reaper = self.reaper.clone();
        let late = move |made: Result<Uid, VmRuntimeError>| {
            if made.is_ok() {
                reaper.retire(&late_provider, late_name, None);
            }
        };
        let limit = self.limits.restore_timeout;
        let uid = self.jobs.run(Class::Restore, "create", limit, call, late).await?;
        let now = self.env.now();
        let record = LeaseRecord {
            uid,
            state: RecordState::Leased,
            vm_id: vm_id.clone(),
            pool_vm_id: VmId::warm(uid),
            provider: Arc::clone(&provider.name),
            pool: None,
            template: request.template.as_ref().map(|(template, _)| template.clone()),
            generation: request.template.as_ref().map_or(0, |(_, generation)| *generation),
            tenant: request.tenant,
            labels: request.labels,
            request_id: request.request_id,
            fingerprint,
            fence: self.leases.next_fence(),
            source: Source::Cold,
            boot_id: Arc::clone(&self.boot_id),
            deadline: self.env.boot_time() + ttl,
            expire_time: now + ttl,
            acquire_time: now,
        };
        if let Err(error) = self.journal.write_lease(&record) {
            self.reaper.retire(provider, vm_id, None);
            return Err(error);
        }
        let lease = Lease::new(record, VmState::Committed, Arc::clone(provider), None);
        let _ = lease.advance(VmEvent::HandedOver);
        self.leases.insert(&lease);
        name.hold(&lease);
        self.shared.changes.leased(&lease);
        pending.into_iter().for_each(|pending| pending.done(&lease));
        Ok(Acquired { lease, replayed: false, timing: Timing::default() })
    }

    /// Starts or stops a VM that a tenant has.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; those of the provider.
    ///
    /// # Cancel safety
    /// A dropped future leaves the verb to run to its end.
    pub async fn change_state(
        &self,
        verb: StateVerb,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<Arc<Lease>> {
        let lease = self.lease_of(vm_id, uid, tenant)?;
        self.verb(&lease, move |lease, vm_id| match verb {
            StateVerb::Start => lease.provider.runtime.start_vm(vm_id),
            StateVerb::Stop => lease.provider.runtime.stop_vm(vm_id),
        })
        .await?;
        Ok(lease)
    }

    /// Captures a VM that a tenant has; it is stopped for it where its provider cannot do without and
    /// `allow_stop` says so, and stays stopped then.
    ///
    /// # Errors
    /// As for [`Self::change_state`]; `StopRequired`.
    ///
    /// # Cancel safety
    /// As for [`Self::change_state`].
    pub async fn snapshot_vm(
        &self,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
        snapshot_id: SnapshotId,
        allow_stop: bool,
    ) -> Result<SnapshotView> {
        if freeze::is_reserved(&snapshot_id) {
            let why = "snapshots of artifacts have names that begin with \"frozen-\"";
            return Err(Error::invalid("snapshot_id", why));
        }
        let lease = self.lease_of(vm_id, uid, tenant)?;
        self.verb(&lease, move |lease, vm_id| {
            let runtime = &*lease.provider.runtime;
            freeze::stopped_where_it_must(runtime, vm_id, allow_stop, || {
                runtime.snapshot_vm(vm_id, &snapshot_id)
            })?;
            lease.provider.runtime.snapshot(&reference(lease, &snapshot_id))
        })
        .await
    }

    /// One snapshot of a VM that a tenant has.
    ///
    /// # Errors
    /// As for [`Self::change_state`].
    pub fn snapshot(
        &self,
        vm_id: &VmId,
        tenant: Option<&Tenant>,
        snapshot_id: &SnapshotId,
    ) -> Result<SnapshotView> {
        let lease = self.lease_of(vm_id, None, tenant)?;
        Ok(lease.provider.runtime.snapshot(&reference(&lease, snapshot_id))?)
    }

    /// Every snapshot of a VM that a tenant has, in the order they were taken.
    ///
    /// # Errors
    /// As for [`Self::change_state`].
    pub fn snapshots(&self, vm_id: &VmId, tenant: Option<&Tenant>) -> Result<Vec<SnapshotView>> {
        let lease = self.lease_of(vm_id, None, tenant)?;
        let runtime = &lease.provider.runtime;
        let names = runtime.get_vm_by_uid(lease.uid).map(|vm| vm.snapshots).unwrap_or_default();
        let found = names.iter().map(|name| runtime.snapshot(&reference(&lease, name)));
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Deletes a snapshot of a VM that a tenant has.
    ///
    /// # Errors
    /// As for [`Self::change_state`]; `SnapshotInUse`.
    pub async fn delete_snapshot(
        &self,
        vm_id: &VmId,
        tenant: Option<&Tenant>,
        snapshot_id: SnapshotId,
    ) -> Result<()> {
        let lease = self.lease_of(vm_id, None, tenant)?;
        self.verb(&lease, move |lease, _| {
            lease.provider.runtime.delete_snapshot(&reference(lease, &snapshot_id))
        })
        .await
    }

    /// Gives a VM that a tenant has another name. Blocks for microseconds.
    ///
    /// # Errors
    /// As for [`Self::change_state`]; `AlreadyExists`; `Storage`, and nothing has changed.
    pub fn rename_vm(
        self: &Arc<Self>,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
        new: &VmId,
    ) -> Result<Arc<Lease>> {
        let lease = self.lease_of(vm_id, uid, tenant)?;
        if vm_id == new {
            return Ok(lease);
        }
        let name = self.reserve_name(Some(new))?;
        let writing = lease.writing.lock();
        if !lease.is_live() || lease.held().vm_id != *vm_id {
            return Err(Error::no_vm(vm_id));
        }
        // The journal has the last word at a restart, so it is told first, and again on failure.
        let called = |vm_id: &VmId| {
            lease.change(|held| held.vm_id = vm_id.clone());
            self.journal.write_lease(&lease.record(RecordState::Leased, &self.boot_id))
        };
        let runtime = &lease.provider.runtime;
        let rename = || match runtime.rename_vm(vm_id, new) {
            // Its answer was lost.
            Err(_) if runtime.get_vm(new).is_some_and(|view| view.uid == lease.uid) => Ok(()),
            renamed => Ok(renamed?),
        };
        let renamed = called(new).and_then(|()| rename());
        if let Err(error) = renamed {
            called(vm_id)?;
            return Err(error);
        }
        name.hold(&lease);
        self.leases.drop_name(vm_id, lease.uid);
        drop(writing);
        self.shared.changes.vm(lease.uid);
        Ok(lease)
    }

    /// Runs a verb on a leased VM as a job.
    async fn verb<T, F>(&self, lease: &Arc<Lease>, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Lease, &VmId) -> Result<T, VmRuntimeError> + Send + 'static,
    {
        let held = Arc::clone(lease);
        let call = move || act(&held, &held.held().vm_id);
        let limit = self.limits.verb_timeout;
        let done = self.jobs.run(Class::Verb, "verb", limit, call, drop).await;
        self.shared.changes.vm(lease.uid);
        Ok(done?)
    }

    pub(crate) fn check_serving(&self) -> Result<()> {
        use crate::manager::Phase;
        match self.phase() {
            Phase::Starting => Err(Error::Starting),
            Phase::Draining | Phase::Ending => Err(Error::Draining),
            Phase::Serving => Ok(()),
        }
    }
}

fn reference(lease: &Lease, snapshot_id: &SnapshotId) -> SnapshotRef {
    SnapshotRef {
        source: SnapshotSource::VmUid(lease.uid),
        snapshot_id: snapshot_id.clone(),
        resume_immediately: false,
        network_overrides: Vec::new(),
    }
}
