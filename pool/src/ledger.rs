//! The books of one pool: events in, steps out. Pure: no clock, no I/O, no await.
//!
//! Invariants:
//! - `warm + restoring < target + waiting` whenever a restore begins: the permit is given here,
//!   under the lock, so that no race passes it.
//! - A VM is in at most one hand: warm, or reserved for one caller. What was committed has left
//!   the books and never comes back.
//! - Nobody barges: while somebody waits who may have it, a newcomer gets nothing and whoever
//!   waits longest of the tenant whose turn it is gets the next VM.
//! - Warm VMs that are kept for a tenant (its floor) go to nobody else.
//! - While a new generation rolls in, the VMs of the old one are *outdated*: they serve first, go
//!   as new ones come, and none is restored any more. Of the new one a single VM is restored first,
//!   the *canary*; the rest follow when it has become warm.

mod floors;
mod probes;
mod restores;
mod rollout;
mod shelf;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::map::IdMap;
use hearth_providers::{Uid, VmId};

use crate::breaker::Breaker;
use crate::ids::Tenant;
use crate::lifecycle::{VmEvent, VmState};
use crate::line::{Line, Ticket};
use crate::mutants::{self, Mutant};
use crate::sizing::Demand;
use crate::templates::Template;

pub use floors::Floors;
pub use restores::RestoreLimit;
use shelf::{MIN_SWEPT, Shelf};

/// What bounds one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many VMs should be warm.
    pub target: usize,
    /// How many may be restored at once.
    pub max_parallel_restores: usize,
    /// How many callers may wait.
    pub max_waiting: usize,
    /// How old a warm VM may get.
    pub max_warm_age: Option<Duration>,
    /// How many VMs there may be, warm ones and those that are being restored, whatever is wanted.
    pub most: usize,
    /// How many more than wanted there may be while a new generation rolls in; at least 1.
    pub max_surge: usize,
}

/// A VM that is, or was, warm.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmVm {
    /// Its name in the pool.
    pub vm_id: VmId,
    /// Its identity.
    pub uid: Uid,
    /// When it became warm, in boot time.
    pub ready_at: Duration,
    /// What it was restored from.
    pub made_of: Arc<Template>,
}

/// What to do with a VM that came in.
#[derive(Debug)]
pub enum Settled<W> {
    /// It waits for a caller.
    Warm,
    /// This caller waits for it: it is reserved for them.
    Serves(W, WarmVm),
    /// Nobody wants it: destroy it.
    Surplus(WarmVm),
}

/// What a newcomer gets.
#[derive(Debug, PartialEq)]
pub struct Reservation {
    /// The oldest warm VM that is young enough, now reserved.
    pub vm: Option<WarmVm>,
    /// Those that were too old: destroy them.
    pub stale: Vec<WarmVm>,
}

#[derive(Debug)]
struct Entry {
    state: VmState,
    vm: Option<WarmVm>,
    /// When its restore was wished for, and began.
    restore: (Duration, Duration),
    /// It is of the generation before.
    is_outdated: bool,
}

/// A new generation rolls in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rollout {
    /// One of the new generation has become warm.
    is_proven: bool,
    /// One of it has been reserved for somebody.
    has_served: bool,
}

/// The books.
#[derive(Debug)]
pub struct Ledger<W> {
    bounds: Bounds,
    floors: Floors,
    vms: IdMap<VmId, Entry>,
    current: Shelf,
    outdated: Shelf,
    rollout: Option<Rollout>,
    restoring: usize,
    /// How many of these are of the generation before, and will not be taken up.
    restoring_outdated: usize,
    line: Line<W>,
    breaker: Breaker,
    demand: Demand,
    /// When VMs were taken for which no restore has begun yet.
    wishes: VecDeque<Duration>,
    /// Warm VMs by when they were last found well.
    last_probed: VecDeque<(Duration, VmId)>,
}

impl<W> Ledger<W> {
    /// Empty books, opened at `now`.
    pub fn new(bounds: Bounds, floors: Floors, now: Duration) -> Self {
        Self {
            bounds,
            floors,
            vms: IdMap::default(),
            current: Shelf::default(),
            outdated: Shelf::default(),
            rollout: None,
            restoring: 0,
            restoring_outdated: 0,
            line: Line::default(),
            breaker: Breaker::default(),
            demand: Demand::new(now),
            wishes: VecDeque::new(),
            last_probed: VecDeque::new(),
        }
    }

    /// Replaces the bounds; the driver does the rest.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The bounds.
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many are warm, those of the generation before included.
    pub const fn warm(&self) -> usize {
        self.current.warm + self.outdated.warm
    }

    /// How many of these are of the generation before.
    pub const fn outdated(&self) -> usize {
        self.outdated.warm
    }

    /// How many are being restored.
    pub const fn restoring(&self) -> usize {
        self.restoring
    }

    /// How many callers wait.
    pub const fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many of them justify a restore of their own.
    pub const fn adding_restores(&self) -> usize {
        self.line.adding_restores()
    }

    /// Which VM from now on a newcomer would get; see [`Line::position`].
    pub fn position(&self, tenant: &Tenant, weight: u32) -> usize {
        self.line.position(tenant, weight)
    }

    /// What keeps failing.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// What was measured of the claims, and of restores.
    pub const fn demand(&mut self) -> &mut Demand {
        &mut self.demand
    }

    /// The warm VMs that are kept for tenants.
    pub const fn floors(&self) -> &Floors {
        &self.floors
    }

    /// When the oldest warm VM became warm.
    pub fn oldest_ready_at(&mut self) -> Option<Duration> {
        let Self { current, outdated, vms, .. } = self;
        [current, outdated].into_iter().filter_map(|shelf| shelf.oldest(vms)).min()
    }

    /// Would a newcomer of `tenant` get a VM at once?
    pub fn would_serve(&self, tenant: &Tenant) -> bool {
        self.is_free_for(tenant, 0) && !self.line.has_any(|other| self.is_free_for(other, 0))
    }

    /// Reserves the oldest warm VM for a newcomer of `tenant`: none while others wait who may
    /// have it. One of the generation before as long as there is one: so nobody gets one of those
    /// after somebody got one of the new.
    pub fn reserve(&mut self, tenant: &Tenant, now: Duration) -> Reservation {
        let stale = self.take_stale(now);
        // While nobody waits, which is nearly always, nobody needs to be looked for.
        let is_next = self.line.is_empty() || self.would_serve(tenant);
        let vm = match is_next && self.is_free_for(tenant, 0) {
            true if mutants::is(Mutant::NewBeforeOld) => {
                self.serve_oldest(false).or_else(|| self.serve_oldest(true))
            }
            true => self.serve_oldest(true).or_else(|| self.serve_oldest(false)),
            false => None,
        };
        if vm.is_some() && self.wishes.len() < self.bounds.target {
            self.wishes.push_back(now);
        }
        Reservation { vm, stale }
    }

    /// Takes out the warm VMs that are too old at `now`.
    pub fn take_stale(&mut self, now: Duration) -> Vec<WarmVm> {
        let mut stale = Vec::new();
        for is_outdated in [false, true] {
            while self.shelf(is_outdated).1.is_some_and(|ready_at| self.is_stale(ready_at, now)) {
                stale.extend(self.retire_oldest(is_outdated));
            }
        }
        stale
    }

    /// Takes out the warm VMs beyond the target.
    pub fn take_surplus(&mut self) -> Vec<WarmVm> {
        let mut surplus = Vec::new();
        while self.current.warm > self.bounds.target.min(self.bounds.most) {
            let Some(vm) = self.retire_oldest(false) else { break };
            surplus.push(vm);
        }
        surplus
    }

    /// Takes out every warm VM: none of them may be handed out any more. Nor may those that are
    /// reserved: their callers learn of it at the commit.
    pub fn take_all(&mut self) -> Vec<WarmVm> {
        for entry in self.vms.values_mut().filter(|entry| entry.state == VmState::Reserved) {
            entry.state = entry.state.next(VmEvent::Retired).unwrap_or(entry.state);
        }
        self.rollout = None;
        let mut all = Vec::new();
        for is_outdated in [true, false] {
            while let Some(vm) = self.retire_oldest(is_outdated) {
                all.push(vm);
            }
        }
        all
    }

    /// Stands in line.
    ///
    /// # Errors
    /// The waiter, when the line is full.
    pub fn wait(
        &mut self,
        tenant: &Tenant,
        weight: u32,
        adds_restore: bool,
        waiter: W,
    ) -> Result<Ticket, W> {
        if self.line.len() >= self.bounds.max_waiting {
            return Err(waiter);
        }
        Ok(self.line.join(tenant, weight, adds_restore, waiter))
    }

    /// Leaves the line; a no-op when the turn had come.
    pub fn leave(&mut self, ticket: &Ticket) {
        self.line.leave(ticket);
    }

    /// Everybody in line, who is told that there will be nothing.
    pub fn dismiss_waiters(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.line.serve_next()).collect()
    }

    /// Takes up a warm VM that a restart found.
    pub fn adopt(&mut self, vm: WarmVm) -> Settled<W> {
        self.settle(vm, VmState::Restoring, VmEvent::Probed, false)
    }

    /// The caller that `vm_id` was reserved for has left: back to its place, or to the next.
    pub fn give_back(&mut self, vm_id: &VmId, now: Duration) -> Option<Settled<W>> {
        let entry = self.vms.remove(vm_id)?;
        let vm = entry.vm?;
        // Where one of the new generation went to somebody nothing of the old one comes back.
        let is_current = !entry.is_outdated || self.rollout.is_some_and(|it| !it.has_served);
        match entry.state.next(VmEvent::Dropped) {
            Some(VmState::Warm) if is_current && !self.is_stale(vm.ready_at, now) => {
                Some(self.settle(vm, entry.state, VmEvent::Dropped, entry.is_outdated))
            }
            _ => Some(Settled::Surplus(vm)),
        }
    }

    /// The reserved VM is about to be promised: it leaves the books. False when it died, or was
    /// taken from the books meanwhile.
    pub fn commit(&mut self, vm_id: &VmId) -> bool {
        let entry = self.vms.remove(vm_id);
        entry.is_some_and(|entry| entry.state.next(VmEvent::Appended) == Some(VmState::Committed))
    }

    /// A VM ended by itself: a warm one leaves the books and is answered, to be destroyed; of a
    /// reserved one its caller learns at the commit.
    pub fn died(&mut self, vm_id: &VmId) -> Option<WarmVm> {
        let entry = self.vms.get_mut(vm_id)?;
        match entry.state {
            VmState::Warm => {
                let died = self.vms.remove(vm_id)?;
                let Self { current, outdated, vms, .. } = self;
                let shelf = if died.is_outdated { outdated } else { current };
                shelf.warm -= 1;
                shelf.sweep(vms);
                self.end_rollout();
                died.vm
            }
            state => {
                entry.state = state.next(VmEvent::Died)?;
                None
            }
        }
    }

    fn settle(
        &mut self,
        vm: WarmVm,
        state: VmState,
        event: VmEvent,
        is_outdated: bool,
    ) -> Settled<W> {
        let Some(state) = state.next(event) else { return Settled::Surplus(vm) };
        let entry = |state| {
            let restore = Default::default();
            Entry { state, vm: Some(vm.clone()), restore, is_outdated }
        };
        if !mutants::is(Mutant::LostWakeUp)
            && let Some(waiter) = self.serve_next()
        {
            self.vms.insert(vm.vm_id.clone(), entry(VmState::Reserved));
            self.note_served(is_outdated);
            return Settled::Serves(waiter, vm);
        }
        let shelved = if is_outdated { self.warm() } else { self.current.warm };
        if shelved >= self.bounds.target {
            return Settled::Surplus(vm);
        }
        self.vms.insert(vm.vm_id.clone(), entry(state));
        if event == VmEvent::Probed {
            self.last_probed.push_back((vm.ready_at, vm.vm_id.clone()));
            self.sweep_probed();
        }
        let shelf = if is_outdated { &mut self.outdated } else { &mut self.current };
        shelf.warm += 1;
        // Not always the last: it has waited before, or a restart found it.
        let place = shelf.oldest_first.partition_point(|(ready_at, _)| match event {
            VmEvent::Dropped => *ready_at < vm.ready_at,
            _ => *ready_at <= vm.ready_at,
        });
        shelf.oldest_first.insert(place, (vm.ready_at, vm.vm_id));
        Settled::Warm
    }

    /// Whoever is next of those who may have the VM that comes in now.
    fn serve_next(&mut self) -> Option<W> {
        let warm = self.current.warm + self.outdated.warm + 1;
        let Self { line, floors, .. } = self;
        line.serve(|tenant| warm > floors.kept_from(tenant))
    }

    /// Is there more than is kept for others, `coming` VMs included?
    fn is_free_for(&self, tenant: &Tenant, coming: usize) -> bool {
        self.warm() + coming > self.floors.kept_from(tenant)
    }

    fn is_stale(&self, ready_at: Duration, now: Duration) -> bool {
        let max_age = self.bounds.max_warm_age.filter(|_| !mutants::is(Mutant::OverAge));
        max_age.is_some_and(|max_age| ready_at + max_age <= now)
    }

    /// A shelf's oldest VM and when it became warm.
    fn shelf(&mut self, is_outdated: bool) -> (&mut Shelf, Option<Duration>) {
        let shelf = if is_outdated { &mut self.outdated } else { &mut self.current };
        let oldest = shelf.oldest(&self.vms);
        (shelf, oldest)
    }

    fn pop_warm(&mut self, is_outdated: bool) -> Option<WarmVm> {
        let (shelf, oldest) = self.shelf(is_outdated);
        oldest?;
        if mutants::is(Mutant::DoublePop) {
            let (_, vm_id) = shelf.oldest_first.front()?.clone();
            return self.vms.get(&vm_id)?.vm.clone();
        }
        let (_, vm_id) = shelf.oldest_first.pop_front()?;
        shelf.warm -= 1;
        let entry = self.vms.get_mut(&vm_id)?;
        entry.state = entry.state.next(VmEvent::Reserved)?;
        let vm = entry.vm.clone();
        self.end_rollout();
        vm
    }

    /// A shelf's oldest VM, for somebody: one that is thrown away serves nobody.
    fn serve_oldest(&mut self, is_outdated: bool) -> Option<WarmVm> {
        let vm = self.pop_warm(is_outdated)?;
        self.note_served(is_outdated);
        Some(vm)
    }

    fn note_served(&mut self, is_outdated: bool) {
        self.rollout.iter_mut().for_each(|it| it.has_served |= !is_outdated);
    }

    fn retire_oldest(&mut self, is_outdated: bool) -> Option<WarmVm> {
        let vm = self.pop_warm(is_outdated)?;
        self.vms.remove(&vm.vm_id);
        Some(vm)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
