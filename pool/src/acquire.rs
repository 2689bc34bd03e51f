//! The handoff path: from a request to a lease.
//!
//! 1. The request id is looked up: the same request gets the same answer.
//! 2. The name is reserved, so that a taken one costs no VM.
//! 3. A warm VM is reserved, **the lease is appended to the journal: this commits**, the VM is
//!    renamed, and resumed where the pool keeps it paused.
//! 4. With none warm the caller stands in line for a restore, or gets one of its own.
//!
//! # Cancel safety
//! A dropped future either changed nothing or leaves a lease that the request id or the name
//! finds; without either the VM is released. Between the reservation and the append nothing is
//! awaited, and from the append on whatever awaits is a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::model::NetworkInterface;
use hearth_providers::{VmId, VmRuntimeError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::cold::Waiter;
use crate::error::{Error, Result};
use crate::ids::{PoolId, RequestId, Tenant};
use crate::jobs::Class;
use crate::journal::{LeaseRecord, RecordState, Source};
use crate::lease::{Lease, NameGuard};
use crate::ledger::WarmVm;
use crate::lifecycle::{VmEvent, VmState};
use crate::manager::{Manager, Phase};
use crate::metrics::{self, Timing};
use crate::mutants::{self, Mutant};
use crate::pool::{Overflow, Pool, Reserved, WarmState, plan};
use crate::requests::{Begin, Fingerprint, Method, Pending, RequestKey};
use crate::retire::OnGone;
use crate::tenants::Place;

/// How often a handover that failed after its commit is tried anew with another VM.
const MORE_TRIES: usize = 2;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// Who asks.
    pub tenant: Tenant,
    /// From which pool.
    pub pool: PoolId,
    /// Under which name; unset: any.
    pub vm_id: Option<VmId>,
    /// The caller's name for this request.
    pub request_id: Option<RequestId>,
    /// How long it wants the VM; unset: the pool's default.
    pub expiration: Option<Expiration>,
    /// What to do when nothing is warm; unset: the pool's default.
    pub overflow: Option<Overflow>,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// Interfaces that replace the snapshot's; not empty: a restore of its own.
    pub network_overrides: Vec<NetworkInterface>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Only say whether it could be done.
    pub validate_only: bool,
}

/// When a lease is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiration {
    /// So long after it begins.
    After(Duration),
    /// At this time of the wall clock.
    At(SystemTime),
}

/// What a caller got.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// The lease.
    pub lease: Arc<Lease>,
    /// It is of an earlier call with the same request id.
    pub replayed: bool,
    /// How long it took; zero when replayed.
    pub timing: Timing,
}

/// One acquire under way: what it holds is given back when it is dropped.
pub(crate) struct Attempt {
    pub(crate) request: AcquireRequest,
    pub(crate) pool: Arc<Pool>,
    ttl: Duration,
    fingerprint: u64,
    /// Its place in the tenant's quota.
    place: Place,
    // Dropped in this order: a duplicate that waits for the end of the request finds the name free.
    name: Option<NameGuard>,
    pending: Option<Pending>,
    pub(crate) begun: Instant,
    pub(crate) timing: Timing,
}

impl Attempt {
    /// The name that the VM will have.
    pub(crate) fn vm_id(&self) -> Result<VmId> {
        let name = self.name.as_ref().map(|name| name.vm_id().clone());
        name.ok_or_else(|| Error::Internal("an acquire without a name".to_owned()))
    }

    /// A caller that left can find its VM again.
    pub(crate) const fn is_claimable(&self) -> bool {
        self.request.request_id.is_some() || self.request.vm_id.is_some()
    }
}

/// A handover that did not succeed.
enum Unserved {
    /// That VM is gone; another one may do.
    Again(Box<Attempt>, VmRuntimeError),
    /// Nothing will do.
    Failed(Error),
}

impl Manager {
    /// Hands out a VM, or says why not. `None` answers a request that was only to be checked.
    ///
    /// # Errors
    /// As the overflow policy has it, `PoolEmpty`, `ColdPathSaturated`, `DeadlineTooShort`,
    /// `RestoreFailed`; `AlreadyExists` for a taken name; `Storage` when the journal is unwell.
    /// Of a failed acquire no VM is left.
    pub async fn acquire(self: &Arc<Self>, request: AcquireRequest) -> Result<Option<Acquired>> {
        let begun = Instant::now();
        match self.phase() {
            Phase::Starting => return Err(Error::Starting),
            Phase::Serving | Phase::Draining | Phase::Ending => {}
        }
        let pool = self.pool(&request.pool)?;
        let span = tracing::debug_span!(
            "acquire",
            pool = pool.id.as_str(),
            tenant = request.tenant.as_str(),
            request_id = request.request_id.as_ref().map(RequestId::as_str),
            vm = tracing::field::Empty,
            uid = tracing::field::Empty,
            source = tracing::field::Empty,
            outcome = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let done = self.acquire_from(&pool, request, begun).instrument(span.clone()).await;
        if !span.is_disabled() {
            note_outcome(&span, &done);
        }
        match &done {
            Ok(Some(acquired)) if !acquired.replayed => {
                pool.metrics.acquired(acquired.lease.source, &acquired.timing);
            }
            Ok(_) => {}
            Err(error) => pool.metrics.acquire_failed(error, begun.elapsed()),
        }
        done
    }

    async fn acquire_from(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        request: AcquireRequest,
        begun: Instant,
    ) -> Result<Option<Acquired>> {
        // Only a request that has an id can be made twice.
        let is_named = request.request_id.is_some();
        let fingerprint = if is_named { request_fingerprint(&request) } else { 0 };
        // A former request is answered even while draining: its VM is there.
        let pending = match &request.request_id {
            None => None,
            Some(request_id) => {
                let (tenant, request_id) = (request.tenant.clone(), request_id.clone());
                let key = RequestKey { tenant, method: Method::Acquire, request_id };
                match self.begin_request(key, fingerprint).await? {
                    Ok(pending) => Some(pending),
                    Err(replayed) => return Ok(Some(replayed)),
                }
            }
        };
        let ttl = self.check(pool, &request)?;
        if !request.validate_only {
            self.shared.tenants.check_rate(&request.tenant, self.env.boot_time())?;
        }
        let place = self.shared.tenants.take_place(&request.tenant)?;
        // Nobody waits for a VM that could not be handed out.
        self.journal.check_well()?;
        let name = self.reserve_name(request.vm_id.as_ref())?;
        if request.validate_only {
            return Ok(None);
        }
        let attempt = Attempt {
            pool: Arc::clone(pool),
            ttl,
            fingerprint,
            place,
            name: Some(name),
            pending,
            begun,
            timing: Timing::default(),
            request,
        };
        self.attempt(attempt).await.map(Some)
    }

    /// Looks a request up and waits for one that is under way. The inner error is its answer.
    pub(crate) async fn begin_request(
        &self,
        key: RequestKey,
        fingerprint: u64,
    ) -> Result<Result<Pending, Acquired>> {
        loop {
            match self.requests.begin(key.clone(), fingerprint) {
                Begin::New(pending) => return Ok(Ok(pending)),
                // Its end, good or bad, drops the sender; then it is looked at again.
                Begin::UnderWay(mut ends) => drop(ends.changed().await),
                Begin::Done(lease) if lease.is_live() => {
                    let timing = Timing::default();
                    return Ok(Err(Acquired { lease, replayed: true, timing }));
                }
                Begin::Done(lease) => {
                    return Err(Error::LeaseExpired { vm: lease.held().vm_id.to_string() });
                }
                Begin::Reused => {
                    return Err(Error::RequestIdReused {
                        request_id: key.request_id.as_str().to_owned(),
                    });
                }
                Begin::Full => return Err(Error::RequestLogFull),
            }
        }
    }

    /// Refuses what cannot be; answers the time to live.
    pub(crate) fn check(&self, pool: &Pool, request: &AcquireRequest) -> Result<Duration> {
        if self.phase() != Phase::Serving {
            return Err(Error::Draining);
        }
        let config = pool.config();
        if config.drains {
            return Err(Error::PoolDraining { pool: pool.id.to_string() });
        }
        let overflow = request.overflow.unwrap_or(config.default_overflow);
        if !request.network_overrides.is_empty() && overflow == Overflow::WarmOnly {
            let why = "a warm VM has its network already: WARM_ONLY cannot be met";
            return Err(Error::invalid("network_overrides", why));
        }
        self.ttl(request.expiration, config.default_ttl, config.max_ttl)
    }

    /// The time to live asked for, within bounds.
    pub(crate) fn ttl(
        &self,
        asked: Option<Expiration>,
        default: Duration,
        max: Duration,
    ) -> Result<Duration> {
        let (field, ttl) = match asked {
            None => return Ok(default.min(max)),
            Some(Expiration::After(ttl)) => ("ttl", ttl),
            Some(Expiration::At(time)) => {
                ("expire_time", time.duration_since(self.env.now()).unwrap_or_default())
            }
        };
        match ttl {
            Duration::ZERO => Err(Error::invalid(field, "the lease would end at once")),
            ttl if ttl > max => {
                let why = format!("the lease would be longer than the {} s allowed", max.as_secs());
                Err(Error::invalid(field, why))
            }
            ttl => Ok(ttl),
        }
    }

    /// Reserves the name asked for, or one that nobody has.
    pub(crate) fn reserve_name(&self, wanted: Option<&VmId>) -> Result<NameGuard> {
        if let Some(vm_id) = wanted {
            if vm_id.is_pools_own() {
                let why = "names that begin with \"warm-\" are the pools' own";
                return Err(Error::invalid("vm_id", why));
            }
            return self.leases.reserve_name(vm_id);
        }
        loop {
            let uid = self.env.uid().to_string();
            let vm_id = VmId::parse(&format!("vm-{}", &uid[..13]))
                .map_err(|error| Error::Internal(error.to_string()))?;
            match self.leases.reserve_name(&vm_id) {
                Err(Error::AlreadyExists { .. }) => {}
                reserved => return reserved,
            }
        }
    }

    async fn attempt(self: &Arc<Self>, mut attempt: Attempt) -> Result<Acquired> {
        let pool = Arc::clone(&attempt.pool);
        let config = pool.config();
        let overflow = attempt.request.overflow.unwrap_or(config.default_overflow);
        let cannot_rename = !pool.provider.runtime.capabilities().rename;
        if overflow == Overflow::ColdOnly
            || !attempt.request.network_overrides.is_empty()
            || (cannot_rename && overflow != Overflow::WarmOnly)
        {
            return self.dedicated(attempt).await;
        }
        let mut last = None;
        for tries in 0..=MORE_TRIES {
            let select = Instant::now();
            let tenant = &attempt.request.tenant;
            // Only the first try is demand.
            let warm = tracing::debug_span!("select")
                .in_scope(|| if tries == 0 { pool.claim(tenant) } else { pool.reserve(tenant) });
            attempt.timing.select = select.elapsed();
            let (reserved, source) = match warm {
                Some(reserved) => (reserved, Source::Warm),
                None => {
                    let (tenant, deadline) = (tenant.clone(), attempt.request.deadline);
                    let waiter = Waiter { tenant, overflow, deadline };
                    let waited = self.wait_in_line(&pool, waiter, &mut attempt.timing);
                    let waited = waited.instrument(tracing::debug_span!("queue")).await;
                    let reason = waited.as_ref().map_or_else(Error::reason, |_| plan::EMPTY);
                    if tries == 0 {
                        pool.misses().missed(reason, self.env.now());
                    }
                    (waited?, Source::Cold)
                }
            };
            match self.hand_over(attempt, reserved, source).await {
                Ok(acquired) => return Ok(acquired),
                Err(Unserved::Failed(error)) => return Err(error),
                Err(Unserved::Again(unserved, error)) => {
                    attempt = *unserved;
                    last = Some(error);
                }
            }
        }
        let source = last.unwrap_or(VmRuntimeError::Unavailable {
            what: "every VM that was tried had ended".to_owned(),
            source: None,
        });
        Err(Error::HandoverFailed { pool: pool.id.to_string(), source })
    }

    /// Commits and renames; what awaits after the commit does so in a task of its own.
    async fn hand_over(
        self: &Arc<Self>,
        mut attempt: Attempt,
        reserved: Reserved,
        source: Source,
    ) -> Result<Acquired, Unserved> {
        let commit = Instant::now();
        self.journal.check_well().map_err(Unserved::Failed)?;
        let Some(vm) = reserved.commit() else {
            let what = "a VM that had just ended".to_owned();
            let error = VmRuntimeError::Unavailable { what, source: None };
            return Err(Unserved::Again(Box::new(attempt), error));
        };
        let called = vm.vm_id.clone();
        let lease = self.commit(&attempt, vm, called, source).map_err(Unserved::Failed)?;
        let vm_id = lease.held().vm_id;
        let rename = || lease.provider.runtime.rename_vm(&lease.pool_vm_id, &vm_id);
        if let Err(error) = tracing::debug_span!("rename").in_scope(rename) {
            self.abort(&lease, &error);
            return Err(Unserved::Again(Box::new(attempt), error));
        }
        if mutants::is(Mutant::RenameBeforeAppend) {
            let _ = self.journal.write_lease(&lease.record(RecordState::Resuming, &self.boot_id));
        }
        attempt.timing.commit = commit.elapsed();
        let is_paused = attempt.pool.config().warm_state == WarmState::Paused;
        if !is_paused || mutants::is(Mutant::ForgottenResume) {
            return Ok(self.complete(attempt, lease));
        }
        // It has left the books, and a resume takes a while.
        attempt.pool.soft_bell.notify_one();
        let is_claimable = attempt.is_claimable();
        let (answer, answered) = oneshot::channel();
        let manager = Arc::clone(self);
        self.tasks.spawn_part(Span::current(), async move {
            let done = manager.resume(attempt, lease).await;
            if let Err(Ok(unheard)) = answer.send(done)
                && !is_claimable
            {
                manager.release_unclaimed(&unheard.lease);
            }
        });
        let ended = |_| Unserved::Failed(Error::Internal("the handover's task ended".to_owned()));
        answered.await.map_err(ended)?
    }

    /// Lets a committed, paused VM go on.
    async fn resume(
        self: &Arc<Self>,
        mut attempt: Attempt,
        lease: Arc<Lease>,
    ) -> Result<Acquired, Unserved> {
        let resume = Instant::now();
        let (runtime, vm_id) = (Arc::clone(&lease.provider.runtime), lease.held().vm_id);
        let call = move || runtime.resume_vm(&vm_id);
        let timeout = self.limits.verb_timeout;
        match self.jobs.run(Class::Verb, "resume", timeout, call, drop).await {
            Ok(()) => {
                attempt.timing.resume = resume.elapsed();
                self.note_resumed(&lease);
                Ok(self.complete(attempt, lease))
            }
            Err(error) => {
                self.abort(&lease, &error);
                Err(Unserved::Again(Box::new(attempt), error))
            }
        }
    }

    /// From now on a VM of a paused pool that stands still does so by its tenant's wish.
    pub(crate) fn note_resumed(&self, lease: &Arc<Lease>) {
        let _writing = lease.writing.lock();
        if !lease.is_live() {
            return;
        }
        let record = lease.record(RecordState::Leased, &self.boot_id);
        if let Err(error) = self.journal.write_lease(&record) {
            tracing::warn!(uid = %lease.uid, %error, "a restart may resume this VM again");
        }
    }

    /// Appends the lease: from here on the VM is the tenant's. Until the handover it is `called` by
    /// its pool's name, or by the tenant's already: a dedicated one.
    pub(crate) fn commit(
        &self,
        attempt: &Attempt,
        vm: WarmVm,
        called: VmId,
        source: Source,
    ) -> Result<Arc<Lease>> {
        let WarmVm { vm_id: pool_vm_id, uid, made_of: template, .. } = vm;
        let vm_id = attempt.vm_id()?;
        // A dedicated one runs already.
        let is_paused = called != vm_id && attempt.pool.config().warm_state == WarmState::Paused;
        let state = if is_paused { RecordState::Resuming } else { RecordState::Leased };
        let now = self.env.now();
        let record = LeaseRecord {
            uid,
            state,
            vm_id,
            pool_vm_id,
            provider: Arc::clone(&attempt.pool.provider.name),
            pool: Some(attempt.pool.id.clone()),
            template: Some(template.id.clone()),
            generation: template.generation,
            tenant: attempt.request.tenant.clone(),
            labels: attempt.request.labels.clone(),
            request_id: attempt.request.request_id.clone(),
            fingerprint: attempt.fingerprint,
            fence: self.leases.next_fence(),
            source,
            boot_id: Arc::clone(&self.boot_id),
            deadline: self.env.boot_time() + attempt.ttl,
            expire_time: now + attempt.ttl,
            acquire_time: now,
        };
        let is_late = mutants::is(Mutant::RenameBeforeAppend) && called != record.vm_id;
        let written = if is_late { Ok(()) } else { self.journal.write_lease(&record) };
        if let Err(error) = written {
            // Whether it was written is unknown: nobody may have this VM, and no later life may
            // find its record.
            tracing::error!(%uid, %error, "the journal cannot be written");
            let journal = Arc::clone(&self.journal);
            let on_gone = OnGone::Call(Box::new(move || {
                if let Err(error) = journal.forget_lease(uid) {
                    tracing::warn!(%uid, %error, "a lease that nobody got could not be forgotten");
                }
            }));
            self.reaper.retire(&attempt.pool.provider, called, Some(on_gone));
            attempt.pool.bell.notify_one();
            return Err(error);
        }
        let (provider, pool) = (Arc::clone(&attempt.pool.provider), Arc::clone(&attempt.pool));
        Ok(Lease::new(record, VmState::Committed, provider, Some(pool)))
    }

    /// The handover is done: the lease is there for everybody to find.
    pub(crate) fn complete(&self, mut attempt: Attempt, lease: Arc<Lease>) -> Acquired {
        // From Committed to Leased nothing else leads.
        let _ = lease.advance(VmEvent::HandedOver);
        self.leases.insert(&lease);
        attempt.pool.leased_changed(1);
        *lease.place.lock() = std::mem::take(&mut attempt.place);
        attempt.name.take().into_iter().for_each(|name| name.hold(&lease));
        self.shared.changes.leased(&lease);
        attempt.pending.take().into_iter().for_each(|pending| pending.done(&lease));
        attempt.timing.total = attempt.begun.elapsed();
        Acquired { lease, replayed: false, timing: attempt.timing }
    }

    /// The handover failed after its commit: the tenant never had it.
    fn abort(&self, lease: &Arc<Lease>, error: &VmRuntimeError) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(uid = %lease.uid, %error, source, "a handover failed after its commit");
        metrics::rename_failed(error);
        let _ = lease.advance(VmEvent::Aborted);
        lease.pool.iter().for_each(|pool| pool.bell.notify_one());
        if let Err(error) =
            self.journal.write_lease(&lease.record(RecordState::Aborted, &self.boot_id))
        {
            tracing::error!(uid = %lease.uid, %error, "an abort could not be written");
        }
        if !mutants::is(Mutant::AbortedLeft) {
            self.retire_instance(lease);
        }
    }
}

/// Says in the span of an acquire what it came to.
fn note_outcome(span: &Span, done: &Result<Option<Acquired>>) {
    match done {
        Ok(Some(acquired)) => {
            let lease = &acquired.lease;
            let source = match lease.source {
                Source::Warm => "warm",
                Source::Cold => "cold",
            };
            span.record("vm", lease.held().vm_id.as_str());
            span.record("uid", tracing::field::display(lease.uid));
            span.record("source", source);
            span.record("outcome", if acquired.replayed { "replayed" } else { "ok" });
        }
        Ok(None) => {
            span.record("outcome", "valid");
        }
        Err(error) => {
            span.record("outcome", error.reason());
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// What is asked for, hashed as [`Fingerprint::part`] would each field: who retries a request may do so with
/// another version of hearth. Every acquire does this, so what is usual is not formatted.
fn request_fingerprint(request: &AcquireRequest) -> u64 {
    let AcquireRequest { pool, vm_id, expiration, overflow, labels, network_overrides, .. } =
        request;
    let hash = Fingerprint::default().text([pool.as_str()]);
    let hash = match vm_id {
        Some(vm_id) => hash.text(["Some(", vm_id.as_str(), ")"]),
        None => hash.text(["None"]),
    };
    hash.usually(expiration.is_none(), "None", expiration)
        .usually(overflow.is_none(), "None", overflow)
        .map(labels)
        .usually(network_overrides.is_empty(), "[]", network_overrides)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_fingerprint_that_its_fields_have_as_they_are_shown() {
        let of = |vm_id: Option<&str>, is_usual: bool| AcquireRequest {
            tenant: Tenant::anonymous(),
            pool: PoolId::parse("default").unwrap(),
            vm_id: vm_id.map(|it| VmId::parse(it).unwrap()),
            request_id: None,
            expiration: (!is_usual).then_some(Expiration::After(Duration::from_secs(5))),
            overflow: (!is_usual).then_some(Overflow::Wait),
            labels: (!is_usual).then(|| ("k".to_owned(), "\"v\"".to_owned())).into_iter().collect(),
            network_overrides: (!is_usual).then(NetworkInterface::default).into_iter().collect(),
            deadline: None,
            validate_only: false,
        };
        for request in [of(None, true), of(Some("a"), true), of(Some("a"), false)] {
            let shown = Fingerprint::default()
                .part(&request.pool)
                .part(&request.vm_id)
                .part(&request.expiration)
                .part(&request.overflow)
                .part(&request.labels)
                .part(&request.network_overrides);
            assert_eq!(request_fingerprint(&request), shown.finish());
        }
    }
}
