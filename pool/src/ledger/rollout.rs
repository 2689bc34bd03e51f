//! How one generation takes the place of another.
//!
//! What is warm when a new one comes is *outdated*: it serves until it is replaced, or goes at once,
//! as the pool has it. The first VM of the new one proves it; until then no other is restored. A
//! generation that cannot be proven is taken back, and what was outdated is current again.

use super::{Breaker, Ledger, Rollout, WarmVm};
use crate::lifecycle::{VmEvent, VmState};

impl<W> Ledger<W> {
    /// Takes out the warm VMs of the generation before that are not needed beside the new ones.
    pub fn take_replaced(&mut self) -> Vec<WarmVm> {
        let mut replaced = Vec::new();
        while self.outdated.warm > 0 && self.warm() > self.bounds.target.min(self.bounds.most) {
            let Some(vm) = self.retire_oldest(true) else { break };
            replaced.push(vm);
        }
        self.end_rollout();
        replaced
    }

    /// A new generation rolls in: what is warm serves until it is replaced.
    pub fn begin_rollout(&mut self) -> Vec<WarmVm> {
        // What is two generations old goes at once.
        let mut older = Vec::new();
        while let Some(vm) = self.retire_oldest(true) {
            older.push(vm);
        }
        for entry in self.vms.values_mut() {
            if entry.is_outdated && entry.state == VmState::Reserved {
                entry.state = entry.state.next(VmEvent::Retired).unwrap_or(entry.state);
            }
            entry.is_outdated = true;
        }
        self.outdated = std::mem::take(&mut self.current);
        self.restoring_outdated = self.restoring;
        self.rollout = Some(Rollout::default());
        self.breaker = Breaker::default();
        older
    }

    /// Another generation comes in place of one that has not been proven: what is warm goes on
    /// serving until that one is.
    pub fn restart_rollout(&mut self) -> Vec<WarmVm> {
        let mut unproven = Vec::new();
        while let Some(vm) = self.retire_oldest(false) {
            unproven.push(vm);
        }
        self.vms.values_mut().for_each(|entry| entry.is_outdated = true);
        self.restoring_outdated = self.restoring;
        self.rollout = Some(Rollout::default());
        self.breaker = Breaker::default();
        unproven
    }

    /// The new generation is taken back: what it was to replace is current again, what is warm of
    /// it goes.
    pub fn undo_rollout(&mut self) -> Vec<WarmVm> {
        let mut withdrawn = Vec::new();
        while let Some(vm) = self.retire_oldest(false) {
            withdrawn.push(vm);
        }
        self.restoring_outdated = 0;
        for entry in self.vms.values_mut() {
            if !entry.is_outdated && entry.state == VmState::Reserved {
                entry.state = entry.state.next(VmEvent::Retired).unwrap_or(entry.state);
            }
            // Whoever restores looks at the generation before it brings a VM in.
            let is_of_new = !entry.is_outdated;
            entry.is_outdated = is_of_new;
            self.restoring_outdated += usize::from(is_of_new && entry.vm.is_none());
        }
        self.current = std::mem::take(&mut self.outdated);
        self.rollout = None;
        self.breaker = Breaker::default();
        withdrawn
    }

    /// What is warm is not good any more, and none of it may be handed out: a new generation
    /// comes, whose first VM is to prove it.
    pub fn cut_over(&mut self) -> Vec<WarmVm> {
        let all = self.take_all();
        self.vms.values_mut().for_each(|entry| entry.is_outdated = true);
        self.restoring_outdated = self.restoring;
        self.rollout = Some(Rollout::default());
        self.breaker = Breaker::default();
        all
    }

    /// A new generation rolls in, and none of it has become warm yet.
    pub const fn is_unproven(&self) -> bool {
        matches!(self.rollout, Some(Rollout { is_proven: false, .. }))
    }

    /// A new generation rolls in.
    pub const fn is_rolling(&self) -> bool {
        self.rollout.is_some()
    }

    /// It has rolled in when it is proven and nothing of the old one is warm.
    pub(super) fn end_rollout(&mut self) {
        if self.outdated.warm == 0 && !self.is_unproven() {
            self.rollout = None;
        }
    }
}
