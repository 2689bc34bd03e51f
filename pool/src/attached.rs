//! Who is connected to VMs that tenants have: told when the lease ends.
//!
//! A connection belongs to a lease, not to a name: whoever has the name afterwards is another.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_providers::Uid;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Those who are connected, by VM. Bounded by who makes them.
#[derive(Debug, Default)]
pub struct Attached {
    by_uid: Mutex<HashMap<Uid, Entry>>,
}

#[derive(Debug)]
struct Entry {
    ended: CancellationToken,
    count: usize,
}

/// One connection; dropped, it is over.
#[derive(Debug)]
pub struct Attachment {
    attached: Arc<Attached>,
    uid: Uid,
    ended: CancellationToken,
}

impl Attached {
    /// Somebody is about to be connected to the VM `uid`. Whether its lease has ended already is to
    /// be looked at after this.
    pub(crate) fn attach(self: &Arc<Self>, uid: Uid) -> Attachment {
        let mut by_uid = self.by_uid.lock();
        let entry = by_uid
            .entry(uid)
            .or_insert_with(|| Entry { ended: CancellationToken::new(), count: 0 });
        entry.count += 1;
        let ended = entry.ended.clone();
        drop(by_uid);
        Attachment { attached: Arc::clone(self), uid, ended }
    }

    /// The lease of the VM `uid` has ended.
    pub(crate) fn end(&self, uid: Uid) {
        let by_uid = self.by_uid.lock();
        if let Some(entry) = by_uid.get(&uid) {
            entry.ended.cancel();
        }
    }
}

impl Attachment {
    /// The VM that it is to.
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// Is cancelled when the lease ends.
    pub const fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut by_uid = self.attached.by_uid.lock();
        if let Some(entry) = by_uid.get_mut(&self.uid) {
            entry.count -= 1;
            if entry.count == 0 {
                by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_lease_is_told_to_all_who_are_connected_and_to_nobody_else() {
        let attached = Arc::<Attached>::default();
        let (one, two) = (Uid::from_random([1; 16]), Uid::from_random([2; 16]));
        let first = attached.attach(one);
        let second = attached.attach(one);
        let other = attached.attach(two);
        attached.end(one);
        assert!(first.ended().is_cancelled() && second.ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
        drop((first, second, other));
        assert!(attached.by_uid.lock().is_empty(), "nothing is left of them");
        attached.end(one);
    }
}
