//! Warm VMs in the order in which they are handed out.

use std::collections::VecDeque;
use std::time::Duration;

use hearth_providers::VmId;
use hearth_providers::map::IdMap;

use super::Entry;
use crate::lifecycle::VmState;

/// Fewer names than these are not worth a sweep.
pub(super) const MIN_SWEPT: usize = 64;

/// Warm VMs of one generation, by the time at which they became warm; may hold names that are not
/// warm any more, which are skipped, and swept when they are too many.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) oldest_first: VecDeque<(Duration, VmId)>,
    pub(super) warm: usize,
}

impl Shelf {
    /// When its oldest VM became warm.
    pub(super) fn oldest(&mut self, vms: &IdMap<VmId, Entry>) -> Option<Duration> {
        while let Some((_, front)) = self.oldest_first.front()
            && !is_warm(vms, front)
        {
            self.oldest_first.pop_front();
        }
        self.oldest_first.front().map(|(ready_at, _)| *ready_at)
    }

    /// Where nobody takes from the front, the names of those that died behind it would pile up.
    pub(super) fn sweep(&mut self, vms: &IdMap<VmId, Entry>) {
        if self.oldest_first.len() > 2 * self.warm + MIN_SWEPT {
            self.oldest_first.retain(|(_, vm_id)| is_warm(vms, vm_id));
        }
    }
}

fn is_warm(vms: &IdMap<VmId, Entry>, vm_id: &VmId) -> bool {
    vms.get(vm_id).is_some_and(|entry| entry.state == VmState::Warm)
}
