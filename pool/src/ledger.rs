//! The books of one pool: events in, steps out. Pure: no clock, no I/O, no await.
//!
//! Invariants:
//! - `warm + restoring < target + waiting` whenever a restore begins: the permit is given here,
//!   under the lock, so that no race passes it.
//! - A VM is in at most one hand: warm, or reserved for one caller. What was committed has left
//!   the books and never comes back.
//! - Nobody barges: while somebody waits, a newcomer gets nothing and whoever waits longest of
//!   the tenant whose turn it is gets the next VM.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hearth_providers::{Uid, VmId};

use crate::breaker::Breaker;
use crate::ids::Tenant;
use crate::lifecycle::{VmEvent, VmState};
use crate::line::{Line, Ticket};
use crate::mutants::{self, Mutant};

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
}

/// A VM that is, or was, warm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmVm {
    /// Its name in the pool.
    pub vm_id: VmId,
    /// Its identity.
    pub uid: Uid,
    /// When it became warm, in boot time.
    pub ready_at: Duration,
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
#[derive(Debug, PartialEq, Eq)]
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
}

/// The books.
#[derive(Debug)]
pub struct Ledger<W> {
    bounds: Bounds,
    vms: HashMap<VmId, Entry>,
    /// By the time at which they became warm; may hold names that are not warm any more, which
    /// are skipped, and swept when they are too many.
    oldest_first: VecDeque<(Duration, VmId)>,
    warm: usize,
    restoring: usize,
    line: Line<W>,
    breaker: Breaker,
}

impl<W> Ledger<W> {
    /// Empty books.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            vms: HashMap::new(),
            oldest_first: VecDeque::new(),
            warm: 0,
            restoring: 0,
            line: Line::default(),
            breaker: Breaker::default(),
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

    /// How many are warm.
    pub const fn warm(&self) -> usize {
        self.warm
    }

    /// How many are being restored.
    pub const fn restoring(&self) -> usize {
        self.restoring
    }

    /// How many callers wait.
    pub const fn waiting(&self) -> usize {
        self.line.len()
    }

    /// What keeps failing.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// When the oldest warm VM became warm.
    pub fn oldest_ready_at(&mut self) -> Option<Duration> {
        self.skip_gone();
        self.oldest_first.front().map(|(ready_at, _)| *ready_at)
    }

    /// Reserves the oldest warm VM for a newcomer: none while others wait.
    pub fn reserve(&mut self, now: Duration) -> Reservation {
        let stale = self.take_stale(now);
        let vm = if self.line.is_empty() { self.pop_warm() } else { None };
        Reservation { vm, stale }
    }

    /// Takes out the warm VMs that are too old at `now`.
    pub fn take_stale(&mut self, now: Duration) -> Vec<WarmVm> {
        let mut stale = Vec::new();
        while self.oldest_ready_at().is_some_and(|ready_at| self.is_stale(ready_at, now)) {
            stale.extend(self.retire_oldest());
        }
        stale
    }

    /// Takes out the warm VMs beyond the target.
    pub fn take_surplus(&mut self) -> Vec<WarmVm> {
        let mut surplus = Vec::new();
        while self.warm > self.bounds.target {
            let Some(vm) = self.retire_oldest() else { break };
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
        std::iter::from_fn(|| self.retire_oldest()).collect()
    }

    /// Stands in line.
    ///
    /// # Errors
    /// The waiter, when the line is full.
    pub fn wait(&mut self, tenant: &Tenant, adds_restore: bool, waiter: W) -> Result<Ticket, W> {
        if self.line.len() >= self.bounds.max_waiting {
            return Err(waiter);
        }
        Ok(self.line.join(tenant, adds_restore, waiter))
    }

    /// Leaves the line; a no-op when the turn had come.
    pub fn leave(&mut self, ticket: &Ticket) {
        self.line.leave(ticket);
    }

    /// Everybody in line, who is told that there will be nothing.
    pub fn dismiss_waiters(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.line.serve_next()).collect()
    }

    /// How many restores may begin at `now`.
    pub fn permits(&self, now: Duration) -> usize {
        let wanted = self.bounds.target + self.line.adding_restores();
        let missing = wanted.saturating_sub(self.warm + self.restoring);
        let at_once = self.bounds.max_parallel_restores;
        let at_once = if mutants::is(Mutant::UnboundedRestores) { missing } else { at_once };
        let places = at_once.saturating_sub(self.restoring);
        self.breaker.allows(missing.min(places), self.restoring, now)
    }

    /// Begins the restore of `vm_id`; false when there is no permit for it.
    pub fn begin_restore(&mut self, vm_id: VmId, now: Duration) -> bool {
        if self.permits(now) == 0 {
            return false;
        }
        self.restoring += 1;
        self.vms.insert(vm_id, Entry { state: VmState::Restoring, vm: None });
        true
    }

    /// The restore of `vm` succeeded, probe included.
    pub fn restored(&mut self, vm: WarmVm) -> Settled<W> {
        self.breaker.succeeded();
        match self.end_restore(&vm.vm_id) {
            Some(state) => self.settle(vm, state, VmEvent::Probed),
            None => Settled::Surplus(vm),
        }
    }

    /// The restore of `vm_id` failed; `jitter` is in `0.0..1.0`.
    pub fn restore_failed(&mut self, vm_id: &VmId, reason: String, now: Duration, jitter: f64) {
        if self.end_restore(vm_id).is_some() {
            self.breaker.failed(reason, now, jitter);
        }
    }

    /// The restore of `vm_id` ended, and what it made is not wanted any more.
    pub fn abandon_restore(&mut self, vm_id: &VmId) {
        self.end_restore(vm_id);
    }

    /// Takes up a warm VM that a restart found.
    pub fn adopt(&mut self, vm: WarmVm) -> Settled<W> {
        self.settle(vm, VmState::Restoring, VmEvent::Probed)
    }

    /// The caller that `vm_id` was reserved for has left: back to its place, or to the next.
    pub fn give_back(&mut self, vm_id: &VmId, now: Duration) -> Option<Settled<W>> {
        let entry = self.vms.remove(vm_id)?;
        let vm = entry.vm?;
        match entry.state.next(VmEvent::Dropped) {
            Some(VmState::Warm) if !self.is_stale(vm.ready_at, now) => {
                Some(self.settle(vm, entry.state, VmEvent::Dropped))
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
                self.warm -= 1;
                let died = self.vms.remove(vm_id)?.vm;
                self.sweep();
                died
            }
            state => {
                entry.state = state.next(VmEvent::Died)?;
                None
            }
        }
    }

    fn settle(&mut self, vm: WarmVm, state: VmState, event: VmEvent) -> Settled<W> {
        let mut become_ = |state: VmState| {
            self.vms.insert(vm.vm_id.clone(), Entry { state, vm: Some(vm.clone()) });
        };
        let Some(state) = state.next(event) else { return Settled::Surplus(vm) };
        if !mutants::is(Mutant::LostWakeUp)
            && let Some(waiter) = self.line.serve_next()
        {
            become_(VmState::Reserved);
            return Settled::Serves(waiter, vm);
        }
        if self.warm >= self.bounds.target {
            return Settled::Surplus(vm);
        }
        become_(state);
        self.warm += 1;
        // Not always the last: it has waited before, or a restart found it.
        let place = self.oldest_first.partition_point(|(ready_at, _)| match event {
            VmEvent::Dropped => *ready_at < vm.ready_at,
            _ => *ready_at <= vm.ready_at,
        });
        self.oldest_first.insert(place, (vm.ready_at, vm.vm_id));
        Settled::Warm
    }

    fn is_stale(&self, ready_at: Duration, now: Duration) -> bool {
        let max_age = self.bounds.max_warm_age.filter(|_| !mutants::is(Mutant::OverAge));
        max_age.is_some_and(|max_age| ready_at + max_age <= now)
    }

    fn pop_warm(&mut self) -> Option<WarmVm> {
        self.skip_gone();
        if mutants::is(Mutant::DoublePop) {
            return self.vms.get(&self.oldest_first.front()?.1)?.vm.clone();
        }
        let (_, vm_id) = self.oldest_first.pop_front()?;
        let entry = self.vms.get_mut(&vm_id)?;
        entry.state = entry.state.next(VmEvent::Reserved)?;
        self.warm -= 1;
        entry.vm.clone()
    }

    fn retire_oldest(&mut self) -> Option<WarmVm> {
        let vm = self.pop_warm()?;
        self.vms.remove(&vm.vm_id);
        Some(vm)
    }

    fn skip_gone(&mut self) {
        while let Some((_, front)) = self.oldest_first.front()
            && !is_warm(&self.vms, front)
        {
            self.oldest_first.pop_front();
        }
    }

    /// Where nobody takes from the front, the names of those that died behind it would pile up.
    fn sweep(&mut self) {
        if self.oldest_first.len() > 2 * self.warm + MIN_SWEPT {
            self.oldest_first.retain(|(_, vm_id)| is_warm(&self.vms, vm_id));
        }
    }

    /// Answers where it stood: it may have died since its probe.
    fn end_restore(&mut self, vm_id: &VmId) -> Option<VmState> {
        let entry = self.vms.remove(vm_id)?;
        self.restoring -= 1;
        Some(entry.state)
    }
}

fn is_warm(vms: &HashMap<VmId, Entry>, vm_id: &VmId) -> bool {
    vms.get(vm_id).is_some_and(|entry| entry.state == VmState::Warm)
}

/// Fewer names than these are not worth a sweep.
const MIN_SWEPT: usize = 64;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
