//! Who holds a VM, until when, and how it is found: by name, by uid.
//!
//! Invariants: a name is in the index from the moment somebody reserves it until the VM that had
//! it has given it up; the first transition out of Leased wins (release or expiry); `deadline`
//! is in boot time, so that a step of the wall clock expires nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use dashmap::mapref::entry::Entry;
use hearth_providers::map::{IdMap, SharedIdMap};
use hearth_providers::{Uid, VmId};
use parking_lot::Mutex;

use crate::budget::Room;
use crate::error::{Error, Kind, Result};
use crate::ids::{TemplateId, Tenant};
use crate::journal::{LeaseRecord, RecordState, Source};
use crate::lifecycle::{VmEvent, VmState};
use crate::mutants::{self, Mutant};
use crate::pool::{Pool, Provider};
use crate::requests::{Method, RequestKey};
use crate::tenants::Place;

/// Leases are looked at for their end at most this often.
const TICK: Duration = Duration::from_millis(50);

/// One VM that a tenant has, or had.
#[derive(Debug)]
pub struct Lease {
    /// The instance.
    pub uid: Uid,
    /// Who runs it.
    pub provider: Arc<Provider>,
    /// The pool it came from.
    pub pool: Option<Arc<Pool>>,
    /// Its name before and after the tenant.
    pub pool_vm_id: VmId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// The request that made it, and the method.
    pub request: Option<RequestKey>,
    /// What that request asked for, hashed.
    pub fingerprint: u64,
    /// Grows with every holder.
    pub fence: i64,
    /// How it came to be.
    pub source: Source,
    /// The template it was restored from, and its generation.
    pub template: Option<(TemplateId, i64)>,
    /// When it was acquired, by the wall clock.
    pub acquire_time: SystemTime,
    /// Its place within its tenant's quota, until it ends.
    pub(crate) place: Mutex<Place>,
    /// Its room within the node's budget, until it is gone; one of a pool is counted there.
    pub(crate) room: Mutex<Room>,
    held: Mutex<Held>,
    /// Its record is changed and written by one at a time; held over one append, never an await.
    pub(crate) writing: Mutex<()>,
}

/// What changes during a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The tenant's name for it.
    pub vm_id: VmId,
    /// Where it stands: Committed, Leased, Releasing or Gone.
    pub state: VmState,
    /// When it ends, in boot time.
    pub deadline: Duration,
    /// When it ends, by the wall clock.
    pub expire_time: SystemTime,
}

impl Lease {
    /// The lease that `record` has, standing at `state`.
    pub fn new(
        record: LeaseRecord,
        state: VmState,
        provider: Arc<Provider>,
        pool: Option<Arc<Pool>>,
    ) -> Arc<Self> {
        let LeaseRecord { tenant, request_id, generation, .. } = record;
        // Only acquires come from a pool.
        let method = if record.pool.is_some() { Method::Acquire } else { Method::Create };
        let request = request_id.map(|request_id| {
            let tenant = tenant.clone();
            RequestKey { tenant, method, request_id }
        });
        Arc::new(Self {
            uid: record.uid,
            provider,
            pool,
            pool_vm_id: record.pool_vm_id,
            tenant,
            labels: record.labels,
            request,
            fingerprint: record.fingerprint,
            fence: record.fence,
            source: record.source,
            template: record.template.map(|template| (template, generation)),
            acquire_time: record.acquire_time,
            place: Mutex::default(),
            room: Mutex::default(),
            held: Mutex::new(Held {
                vm_id: record.vm_id,
                state,
                deadline: record.deadline,
                expire_time: record.expire_time,
            }),
            writing: Mutex::new(()),
        })
    }

    /// What it looks like now.
    pub fn held(&self) -> Held {
        self.held.lock().clone()
    }

    /// True while the tenant has it.
    pub fn is_live(&self) -> bool {
        matches!(self.held.lock().state, VmState::Committed | VmState::Leased)
    }

    /// Takes the transition that `event` is.
    ///
    /// # Errors
    /// The state it is in, from which `event` does not lead anywhere new.
    pub(crate) fn advance(&self, event: VmEvent) -> Result<(), VmState> {
        let mut held = self.held.lock();
        match held.state.next(event) {
            Some(next) if next != held.state => {
                held.state = next;
                Ok(())
            }
            _ => Err(held.state),
        }
    }

    /// Undoes a release that could not be written.
    pub(crate) fn take_back_release(&self) {
        self.held.lock().state = VmState::Leased;
    }

    /// Gives it another name, or another end.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.lock());
    }

    /// Its record, standing at `state`.
    pub fn record(&self, state: RecordState, boot_id: &Arc<str>) -> LeaseRecord {
        let held = self.held();
        LeaseRecord {
            uid: self.uid,
            state,
            vm_id: held.vm_id,
            pool_vm_id: self.pool_vm_id.clone(),
            provider: Arc::clone(&self.provider.name),
            pool: self.pool.as_ref().map(|pool| pool.id.clone()),
            template: self.template.as_ref().map(|(template, _)| template.clone()),
            generation: self.template.as_ref().map_or(0, |(_, generation)| *generation),
            tenant: self.tenant.clone(),
            labels: self.labels.clone(),
            request_id: self.request.as_ref().map(|key| key.request_id.clone()),
            fingerprint: self.fingerprint,
            fence: self.fence,
            source: self.source,
            boot_id: Arc::clone(boot_id),
            deadline: held.deadline,
            expire_time: held.expire_time,
            acquire_time: self.acquire_time,
        }
    }
}

/// Who has a name.
#[derive(Clone, Debug)]
pub enum Holder {
    /// A call under way.
    Reserved,
    /// A tenant.
    Lease(Arc<Lease>),
}

/// Every lease.
#[derive(Debug)]
pub struct Leases {
    names: SharedIdMap<VmId, Holder>,
    by_uid: SharedIdMap<Uid, Arc<Lease>>,
    ended: Mutex<Ended>,
    by_deadline: Mutex<Deadlines>,
    next_fence: AtomicI64,
    max_ended: usize,
}

/// When leases are to be looked at, by tick. Those that ended or were renewed meanwhile are still
/// there, and swept when they are too many.
#[derive(Debug, Default)]
struct Deadlines {
    by_tick: BTreeMap<u64, Vec<Uid>>,
    len: usize,
    /// How many are too many: twice those that the last sweep kept.
    sweep_at: usize,
}

/// Fewer than these are not worth a sweep.
const MIN_SWEPT: usize = 4096;

/// Leases that have ended, found for a while so that a second release is fine.
#[derive(Debug, Default)]
struct Ended {
    /// The last one of each name.
    by_name: IdMap<VmId, Arc<Lease>>,
    by_uid: IdMap<Uid, Arc<Lease>>,
    oldest_first: VecDeque<(Duration, VmId, Uid)>,
}

/// The most ended leases that are found by name, however many requests are remembered.
const MAX_ENDED: usize = 100_000;
/// For how long they are.
const ENDED_FOR: Duration = Duration::from_secs(3600);

/// A name that is reserved for a call; dropped, it is free.
#[derive(Debug)]
pub struct NameGuard {
    leases: Arc<Leases>,
    vm_id: Option<VmId>,
}

impl NameGuard {
    /// The name.
    pub fn vm_id(&self) -> &VmId {
        self.vm_id.as_ref().expect("it has its name until it is dropped or held")
    }

    /// The name is `lease`'s from now on.
    pub(crate) fn hold(mut self, lease: &Arc<Lease>) {
        if let Some(vm_id) = self.vm_id.take() {
            let lease = Holder::Lease(Arc::clone(lease));
            match self.leases.names.get_mut(&vm_id) {
                Some(mut reserved) => *reserved = lease,
                None => drop(self.leases.names.insert(vm_id, lease)),
            }
        }
    }
}

impl Drop for NameGuard {
    fn drop(&mut self) {
        if let Some(vm_id) = self.vm_id.take() {
            self.leases.names.remove_if(&vm_id, |_, holder| matches!(holder, Holder::Reserved));
        }
    }
}

impl Leases {
    /// None yet; of those that will have ended at most `max_ended` are found for a while.
    pub fn new(max_ended: usize) -> Self {
        Self {
            names: SharedIdMap::default(),
            by_uid: SharedIdMap::default(),
            ended: Mutex::default(),
            by_deadline: Mutex::default(),
            next_fence: AtomicI64::new(0),
            max_ended: max_ended.min(MAX_ENDED),
        }
    }

    /// Reserves a free name for a call.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn reserve_name(self: &Arc<Self>, vm_id: &VmId) -> Result<NameGuard> {
        match self.names.entry(vm_id.clone()) {
            Entry::Occupied(_) => {
                Err(Error::AlreadyExists { kind: Kind::Vm, name: vm_id.to_string() })
            }
            Entry::Vacant(free) => {
                free.insert(Holder::Reserved);
                Ok(NameGuard { leases: Arc::clone(self), vm_id: Some(vm_id.clone()) })
            }
        }
    }

    /// A fence above all before it.
    pub fn next_fence(&self) -> i64 {
        self.next_fence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes the fences that a former life gave.
    pub fn fence_seen(&self, fence: i64) {
        self.next_fence.fetch_max(fence, Ordering::Relaxed);
    }

    /// Takes up a lease that was committed; its end is watched from here on.
    pub fn insert(&self, lease: &Arc<Lease>) {
        self.by_uid.insert(lease.uid, Arc::clone(lease));
        self.watch(lease);
    }

    /// Has the lease's present deadline watched, too.
    pub fn watch(&self, lease: &Lease) {
        let tick = tick_of(lease.held().deadline) + 1;
        let mut deadlines = self.by_deadline.lock();
        deadlines.by_tick.entry(tick).or_default().push(lease.uid);
        deadlines.len += 1;
        if deadlines.len > deadlines.sweep_at.max(MIN_SWEPT) {
            self.sweep(&mut deadlines);
        }
    }

    /// Keeps of each lease its present deadline alone.
    fn sweep(&self, deadlines: &mut Deadlines) {
        deadlines.len = 0;
        deadlines.by_tick.retain(|tick, uids| {
            let ends = |lease: &Lease| tick_of(lease.held().deadline) + 1;
            uids.retain(|uid| self.by_uid(*uid).is_some_and(|lease| ends(&lease) == *tick));
            uids.sort_unstable();
            uids.dedup();
            deadlines.len += uids.len();
            !uids.is_empty()
        });
        deadlines.sweep_at = 2 * deadlines.len;
    }

    /// The leases that have ended at `now`.
    pub fn take_due(&self, now: Duration) -> Vec<Arc<Lease>> {
        let mut due = Vec::new();
        loop {
            let mut deadlines = self.by_deadline.lock();
            let first =
                deadlines.by_tick.first_entry().filter(|entry| *entry.key() <= tick_of(now));
            let Some(uids) = first.map(|entry| entry.remove()) else { return due };
            deadlines.len -= uids.len();
            drop(deadlines);
            for lease in uids.iter().filter_map(|uid| self.by_uid(*uid)) {
                // It may have been renewed since: its new end is watched elsewhere.
                if lease.is_live() && lease.held().deadline <= now {
                    due.push(lease);
                }
            }
        }
    }

    /// How often [`Self::take_due`] is worth a call.
    pub const fn tick() -> Duration {
        TICK
    }

    /// The lease that has this name now.
    pub fn by_name(&self, vm_id: &VmId) -> Option<Arc<Lease>> {
        match self.names.get(vm_id)?.value() {
            Holder::Lease(lease) => Some(Arc::clone(lease)),
            Holder::Reserved => None,
        }
    }

    /// The lease of this instance, live or on its way out.
    pub fn by_uid(&self, uid: Uid) -> Option<Arc<Lease>> {
        self.by_uid.get(&uid).map(|lease| Arc::clone(lease.value()))
    }

    /// The lease that had this name, that of `uid` or the last one, if it has ended and is remembered.
    pub fn ended_by_name(&self, vm_id: &VmId, uid: Option<Uid>) -> Option<Arc<Lease>> {
        let ended = self.ended.lock();
        match uid {
            None => ended.by_name.get(vm_id).cloned(),
            Some(uid) => ended.by_uid.get(&uid).filter(|it| it.held().vm_id == *vm_id).cloned(),
        }
    }

    /// A restart found that `lease` has this name.
    pub(crate) fn hold_name(&self, vm_id: &VmId, lease: &Arc<Lease>) {
        self.names.insert(vm_id.clone(), Holder::Lease(Arc::clone(lease)));
    }

    /// The name is free: its holder has given it up at `now`.
    pub fn free_name(&self, vm_id: &VmId, lease: &Arc<Lease>, now: Duration) {
        let mut ended = self.ended.lock();
        while let Some((since, _, _)) = ended.oldest_first.front()
            && (ended.oldest_first.len() >= self.max_ended || *since + ENDED_FOR <= now)
            && let Some((_, oldest, uid)) = ended.oldest_first.pop_front()
        {
            ended.by_uid.remove(&uid);
            if ended.by_name.get(&oldest).is_some_and(|lease| lease.uid == uid) {
                ended.by_name.remove(&oldest);
            }
        }
        ended.oldest_first.push_back((now, vm_id.clone(), lease.uid));
        ended.by_uid.insert(lease.uid, Arc::clone(lease));
        // A start finds them in no order.
        let is_last = |known: &Arc<Lease>| known.fence <= lease.fence;
        if ended.by_name.get(vm_id).is_none_or(is_last) {
            ended.by_name.insert(vm_id.clone(), Arc::clone(lease));
        }
        drop(ended);
        self.drop_name(vm_id, lease.uid);
    }

    /// The VM is called otherwise now.
    pub fn drop_name(&self, vm_id: &VmId, uid: Uid) {
        let anybodys = mutants::is(Mutant::NameFreedTwice);
        let is_its =
            |holder: &Holder| anybodys || matches!(holder, Holder::Lease(it) if it.uid == uid);
        self.names.remove_if(vm_id, |_, holder| is_its(holder));
    }

    /// Nothing is left of the instance.
    pub fn remove(&self, uid: Uid) {
        self.by_uid.remove(&uid);
    }

    /// Every lease that a tenant has, sorted by name.
    pub fn live(&self) -> Vec<Arc<Lease>> {
        let all = self.by_uid.iter().map(|entry| Arc::clone(entry.value()));
        let mut live: Vec<_> =
            all.filter(|lease| lease.is_live()).map(|it| (it.held().vm_id, it)).collect();
        live.sort_by(|(a, _), (b, _)| a.cmp(b));
        live.into_iter().map(|(_, lease)| lease).collect()
    }

    /// How many instances tenants have, or are being taken from them.
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Nobody has any.
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }
}

const fn tick_of(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}
