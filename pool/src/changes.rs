//! What has changed of VMs and pools, for whoever tells those who watch.
//!
//! Whoever changes something notes it here after the change, and never before. A note says what
//! to look at, not what it looks like: whoever reads it looks itself. So notes may be lost or come
//! twice, and a look at everything mends it.
//!
//! While nobody reads, noting is one load. While somebody does it is a push under a lock that is
//! held for nothing else, and one wake-up for all notes until they are taken.
//!
//! Invariant: at most [`MAX_NOTES`] wait; what comes beyond is forgotten, and that it was is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_providers::Uid;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lease::Lease;
use crate::pool::Pool;

/// Notes that wait to be read; more would be older than a look at everything.
pub const MAX_NOTES: usize = 16 * 1024;

/// What has changed, by kind. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Of VMs.
    pub vms: Arc<Notes<VmNote>>,
    /// Of pools: those that were made, changed or deleted. How they stand is to be looked at.
    pub pools: Arc<Notes<PoolNote>>,
}

/// Which VM to look at.
#[derive(Clone, Debug)]
pub enum VmNote {
    /// A tenant got this VM; its lease may have ended since.
    Leased(Arc<Lease>),
    /// Something of this VM has changed.
    Vm(Uid),
}

/// Which pool to look at.
#[derive(Clone, Debug)]
pub enum PoolNote {
    /// It was made, and may have been deleted since.
    Made(Arc<Pool>),
    /// It was changed or deleted.
    Changed(Arc<Pool>),
}

impl Changes {
    /// A tenant got a VM.
    pub(crate) fn leased(&self, lease: &Arc<Lease>) {
        self.vms.note(|| VmNote::Leased(Arc::clone(lease)));
    }

    /// Something of a VM has changed.
    pub(crate) fn vm(&self, uid: Uid) {
        self.vms.note(|| VmNote::Vm(uid));
    }

    /// A pool was made.
    pub(crate) fn pool_made(&self, pool: &Arc<Pool>) {
        self.pools.note(|| PoolNote::Made(Arc::clone(pool)));
    }

    /// A pool was changed or deleted.
    pub(crate) fn pool(&self, pool: &Arc<Pool>) {
        self.pools.note(|| PoolNote::Changed(Arc::clone(pool)));
    }
}

/// Notes of one kind, for one reader.
#[derive(Debug)]
pub struct Notes<T> {
    is_read: AtomicBool,
    waiting: Mutex<Waiting<T>>,
    bell: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    notes: Vec<T>,
    has_lost: bool,
}

/// Notes that were taken.
#[derive(Debug)]
pub struct Taken<T> {
    /// The oldest first.
    pub notes: Vec<T>,
    /// There were more: only a look at everything shows what they said.
    pub has_lost: bool,
}

impl<T> Default for Notes<T> {
    fn default() -> Self {
        let waiting = Waiting { notes: Vec::new(), has_lost: false };
        Self { is_read: AtomicBool::new(false), waiting: Mutex::new(waiting), bell: Notify::new() }
    }
}

impl<T> Notes<T> {
    fn note(&self, note: impl FnOnce() -> T) {
        if !self.is_read.load(Ordering::Acquire) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.notes.len() >= MAX_NOTES {
            waiting.has_lost = true;
            return;
        }
        waiting.notes.push(note());
        let is_first = waiting.notes.len() == 1;
        drop(waiting);
        if is_first {
            self.bell.notify_one();
        }
    }

    /// From now on changes are noted. What was before is to be looked at after this.
    pub fn begin(&self) {
        self.is_read.store(true, Ordering::SeqCst);
    }

    /// From now on nothing is noted, and nothing waits.
    pub fn end(&self) {
        self.is_read.store(false, Ordering::SeqCst);
        drop(self.take());
    }

    /// Waits until something is noted. One reader at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn noted(&self) {
        self.bell.notified().await;
    }

    /// Takes what waits.
    pub fn take(&self) -> Taken<T> {
        let mut waiting = self.waiting.lock();
        let has_lost = std::mem::take(&mut waiting.has_lost);
        Taken { notes: std::mem::take(&mut waiting.notes), has_lost }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_noted_while_nobody_reads() {
        let notes = Notes::default();
        notes.note(|| -> u32 { unreachable!("it costs nothing") });
        notes.begin();
        notes.note(|| 7);
        assert_eq!(notes.take().notes, [7]);
        notes.note(|| 8);
        notes.end();
        notes.begin();
        assert_eq!(notes.take().notes, [0; 0]);
    }

    #[test]
    fn what_is_too_much_is_forgotten_and_known_to_be() {
        let notes = Notes::default();
        notes.begin();
        (0..=MAX_NOTES).for_each(|number| notes.note(|| number));
        let taken = notes.take();
        assert_eq!((taken.notes.len(), taken.has_lost), (MAX_NOTES, true));
        notes.note(|| 1);
        let taken = notes.take();
        assert_eq!((taken.notes.len(), taken.has_lost), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_reader_is_woken_once_for_all_that_waits() {
        let notes = Notes::default();
        notes.begin();
        (0..3).for_each(|number| notes.note(|| number));
        notes.noted().await;
        let again = tokio::time::timeout(Duration::from_secs(1), notes.noted()).await;
        assert!(again.is_err(), "it was woken once");
        assert_eq!(notes.take().notes, [0, 1, 2]);
    }
}
