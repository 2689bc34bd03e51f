//! What is remembered of destroyed VMs: by uid, and by name until the name is used again.
//! Bounded in number and in time.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::id::{Uid, VmId};
use crate::map::IdMap;
use crate::model::VmView;

/// The most destroyed VMs that one provider remembers.
pub(super) const MAX_REMEMBERED: usize = 1024;
/// For how long.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Tombstones {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_uid: IdMap<Uid, VmView>,
    by_name: IdMap<VmId, Uid>,
    oldest_first: VecDeque<(Duration, Uid)>,
}

impl Tombstones {
    pub(super) fn add(&self, view: VmView, now: Duration) {
        let mut inner = self.inner.lock();
        inner.forget_old(now);
        inner.oldest_first.push_back((now, view.uid));
        inner.by_name.insert(view.vm_id.clone(), view.uid);
        inner.by_uid.insert(view.uid, view);
    }

    /// The name has a new holder.
    pub(super) fn name_used(&self, vm_id: &VmId) {
        self.inner.lock().by_name.remove(vm_id);
    }

    pub(super) fn by_name(&self, vm_id: &VmId, now: Duration) -> Option<VmView> {
        let mut inner = self.inner.lock();
        inner.forget_old(now);
        let uid = inner.by_name.get(vm_id)?;
        inner.by_uid.get(uid).cloned()
    }

    pub(super) fn by_uid(&self, uid: Uid, now: Duration) -> Option<VmView> {
        let mut inner = self.inner.lock();
        inner.forget_old(now);
        inner.by_uid.get(&uid).cloned()
    }
}

impl Inner {
    fn forget_old(&mut self, now: Duration) {
        while let Some((ended, uid)) = self.oldest_first.front().copied() {
            if self.oldest_first.len() < MAX_REMEMBERED && ended + REMEMBERED_FOR > now {
                return;
            }
            self.oldest_first.pop_front();
            if let Some(view) = self.by_uid.remove(&uid)
                && self.by_name.get(&view.vm_id) == Some(&uid)
            {
                self.by_name.remove(&view.vm_id);
            }
        }
    }
}
