//! Which restores may begin, and what becomes of them.

use std::time::Duration;

use hearth_providers::VmId;

use super::{Entry, Ledger, Settled, WarmVm};
use crate::lifecycle::{VmEvent, VmState};
use crate::mutants::{self, Mutant};

/// What keeps more restores from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreLimit {
    /// Nothing: no more are wanted.
    None,
    /// The pool's own bound.
    Pool,
    /// What the node bears.
    Node,
    /// The rate at which restores may begin.
    Rate,
    /// They have failed.
    Breaker,
    /// There is no room for more VMs.
    Capacity,
    /// The first VM of a new generation has not become warm yet.
    Canary,
}

impl<W> Ledger<W> {
    /// How many restores may begin at `now`.
    pub fn permits(&self, now: Duration) -> usize {
        self.permits_and_limit(now).0
    }

    /// The same, and what keeps more from beginning.
    pub fn permits_and_limit(&self, now: Duration) -> (usize, RestoreLimit) {
        let wanted = self.bounds.target + self.line.adding_restores();
        let of_new = self.current.warm + self.restoring;
        let all = of_new + self.outdated.warm;
        let surge = if self.outdated.warm > 0 { self.bounds.max_surge } else { 0 };
        let missing = wanted.saturating_sub(of_new).min((wanted + surge).saturating_sub(all));
        let at_once = self.bounds.max_parallel_restores;
        let at_once = if mutants::is(Mutant::UnboundedRestores) { missing } else { at_once };
        let canary = match self.is_unproven() {
            true => 1_usize.saturating_sub(self.restoring - self.restoring_outdated),
            false => usize::MAX,
        };
        let mut permits = missing;
        let mut limit = RestoreLimit::None;
        for (most, binds) in [
            (self.bounds.most.saturating_sub(all), RestoreLimit::Capacity),
            (at_once.saturating_sub(self.restoring), RestoreLimit::Pool),
            (canary, RestoreLimit::Canary),
            (self.breaker.allows(permits, self.restoring, now), RestoreLimit::Breaker),
        ] {
            if most < permits {
                (permits, limit) = (most, binds);
            }
        }
        (permits, limit)
    }

    /// Begins the restore of `vm_id`; false when there is no permit for it.
    pub fn begin_restore(&mut self, vm_id: VmId, now: Duration) -> bool {
        if self.permits(now) == 0 {
            return false;
        }
        self.restoring += 1;
        let restore = (self.wishes.pop_front().unwrap_or(now), now);
        let entry = Entry { state: VmState::Restoring, vm: None, restore, is_outdated: false };
        self.vms.insert(vm_id, entry);
        true
    }

    /// The restore of `vm_id` has begun, and neither ended nor failed.
    pub fn is_restoring(&self, vm_id: &VmId) -> bool {
        self.vms.get(vm_id).is_some_and(|entry| entry.vm.is_none())
    }

    /// When the VM was wished for that `vm_id` is being restored for.
    pub fn wished_at(&self, vm_id: &VmId) -> Option<Duration> {
        self.vms.get(vm_id).map(|entry| entry.restore.0)
    }

    /// Where nothing is missing nothing is wished for any more.
    pub fn settle_wishes(&mut self) {
        if self.warm() + self.restoring >= self.bounds.target {
            self.wishes.clear();
        }
    }

    /// The restore of `vm` succeeded at `now`, probe included.
    pub fn restored(&mut self, vm: WarmVm, now: Duration) -> Settled<W> {
        match self.end_restore(&vm.vm_id) {
            Some(entry) if !entry.is_outdated => {
                let (wished, begun) = entry.restore;
                let queued = begun.saturating_sub(wished);
                self.demand.restored(now.saturating_sub(wished), queued);
                self.breaker.succeeded();
                self.rollout.iter_mut().for_each(|it| it.is_proven = true);
                self.end_rollout();
                self.settle(vm, entry.state, VmEvent::Probed, false)
            }
            _ => Settled::Surplus(vm),
        }
    }

    /// The restore of `vm_id` failed; `jitter` is in `0.0..1.0`.
    pub fn restore_failed(&mut self, vm_id: &VmId, reason: String, now: Duration, jitter: f64) {
        if self.end_restore(vm_id).is_some_and(|entry| !entry.is_outdated) {
            self.breaker.failed(reason, now, jitter);
        }
    }

    /// The restore of `vm_id` ended, and what it made is not wanted any more.
    pub fn abandon_restore(&mut self, vm_id: &VmId) {
        self.end_restore(vm_id);
    }

    /// Answers where it stood: it may have died since its probe.
    fn end_restore(&mut self, vm_id: &VmId) -> Option<Entry> {
        let entry = self.vms.remove(vm_id)?;
        self.restoring -= 1;
        self.restoring_outdated -= usize::from(entry.is_outdated);
        Some(entry)
    }
}
