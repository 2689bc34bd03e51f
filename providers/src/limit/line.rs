//! Places for calls, and the line of those who wait for one: first come, first served.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Bounds;
use crate::env::Deadline;
use crate::id::Uid;

/// The places and the line.
pub(super) struct Line {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Arc<Waiter>>,
}

/// One who stands in line.
struct Waiter {
    /// The VM it waits to do something to; `None` when it makes one.
    uid: Option<Uid>,
    verdict: Mutex<Verdict>,
    called: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Waits,
    MayGo,
    SentAway,
}

/// A place, given back when dropped.
pub(super) struct Place<'a>(&'a Line);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    LineFull,
    WaitedInVain,
    SentAway,
}

impl Line {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default() }
    }

    /// How many places are taken, and how many stand in line.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.taken, state.waiting.len())
    }

    /// Waits for a place; `uid` is asked for only if there is a line to stand in.
    pub(super) fn take(&self, uid: impl FnOnce() -> Option<Uid>) -> Result<Place<'_>, NoPlace> {
        if let Some(place) = self.free_place(&mut self.state.lock()) {
            return Ok(place);
        }
        let (verdict, called) = (Mutex::new(Verdict::Waits), Condvar::new());
        let waiter = Arc::new(Waiter { uid: uid(), verdict, called });
        {
            let mut state = self.state.lock();
            if let Some(place) = self.free_place(&mut state) {
                return Ok(place);
            }
            if state.waiting.len() >= self.bounds.waiting {
                return Err(NoPlace::LineFull);
            }
            state.waiting.push_back(Arc::clone(&waiter));
        }
        match self.wait(&waiter) {
            Verdict::MayGo => Ok(Place(self)),
            Verdict::Waits => Err(NoPlace::WaitedInVain),
            Verdict::SentAway => Err(NoPlace::SentAway),
        }
    }

    /// Sends away who stands in line for a VM that is gone.
    pub(super) fn send_away(&self, uid: Uid) {
        self.state.lock().waiting.retain(|waiter| {
            let stays = waiter.uid != Some(uid);
            if !stays {
                waiter.tell(Verdict::SentAway);
            }
            stays
        });
    }

    /// A place, if one is free and nobody stands in line for it.
    fn free_place(&self, state: &mut State) -> Option<Place<'_>> {
        let free = state.waiting.is_empty() && state.taken < self.bounds.concurrent.max(1);
        free.then(|| {
            state.taken += 1;
            Place(self)
        })
    }

    fn wait(&self, waiter: &Arc<Waiter>) -> Verdict {
        let deadline = Deadline::after(self.bounds.wait);
        {
            let mut verdict = waiter.verdict.lock();
            while *verdict == Verdict::Waits
                && let Some(left) = deadline.left()
            {
                waiter.called.wait_for(&mut verdict, left);
            }
        }
        // Too late only if nobody has called it meanwhile: who is called is no longer in line.
        self.state.lock().waiting.retain(|waiting| !Arc::ptr_eq(waiting, waiter));
        *waiter.verdict.lock()
    }
}

impl Waiter {
    fn tell(&self, verdict: Verdict) {
        *self.verdict.lock() = verdict;
        self.called.notify_one();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        match state.waiting.pop_front() {
            // The place passes on, so that no newcomer takes it in between.
            Some(next) => next.tell(Verdict::MayGo),
            None => state.taken -= 1,
        }
    }
}
