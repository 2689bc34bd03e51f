//! Which of the VMs that wait is to be looked after next.

use std::time::Duration;

use hearth_providers::VmId;

use super::{Ledger, MIN_SWEPT, WarmVm};
use crate::lifecycle::VmState;

impl<W> Ledger<W> {
    /// A warm VM that was last found well before `since`. It stays warm, and is not answered again
    /// until it was [`Self::probed`].
    pub fn due_for_probe(&mut self, since: Duration) -> Option<WarmVm> {
        let mut place = 0;
        while let Some((probed_at, vm_id)) = self.last_probed.get(place) {
            if *probed_at > since {
                break;
            }
            match self.vms.get(vm_id) {
                Some(entry) if entry.state == VmState::Warm => {
                    let vm = entry.vm.clone();
                    self.last_probed.remove(place);
                    return vm;
                }
                // It may come back.
                Some(entry) if entry.state == VmState::Reserved => place += 1,
                _ => drop(self.last_probed.remove(place)),
            }
        }
        None
    }

    /// When the next warm VM was last found well.
    pub fn next_probed_at(&self) -> Option<Duration> {
        self.last_probed.front().map(|(probed_at, _)| *probed_at)
    }

    /// A warm VM was found well at `now`.
    pub fn probed(&mut self, vm_id: VmId, now: Duration) {
        if self.vms.get(&vm_id).is_some_and(|entry| entry.vm.is_some()) {
            self.last_probed.push_back((now, vm_id));
        }
    }

    /// Where nobody probes, the names of those that are gone would pile up.
    pub(super) fn sweep_probed(&mut self) {
        if self.last_probed.len() > 2 * self.vms.len() + MIN_SWEPT {
            self.last_probed.retain(|(_, vm_id)| self.vms.contains_key(vm_id));
        }
    }
}
