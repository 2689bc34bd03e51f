//! Whether acquires are taken, as every call asks: an atomic, so that they do not meet at a lock.
//!
//! Whoever joins a line looks at the phase afterwards, and whoever leaves Serving dismisses the
//! line afterwards: under the line's own lock one of the two finds the other, so that nobody waits
//! in a line that no one serves any more. `tests/model` shows it of this file, in every order.
//!
//! Ending is for ever, and nothing but the end of recovery leads out of Starting.

use crate::sync::{AtomicU8, Ordering};

/// Whether acquires are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Recovery has not finished.
    Starting,
    /// They are.
    Serving,
    /// No more, by the operator's wish: the pools are emptied.
    Draining,
    /// No more, because hearth is ending: VMs stay as they are.
    Ending,
}

/// What leads from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseEvent {
    /// Recovery has finished.
    Recovered {
        /// The operator's wish, as it was written down.
        drains: bool,
    },
    /// The operator wants no more acquires.
    Drained,
    /// The operator wants them again.
    Undrained,
    /// Hearth is ending.
    Ended,
}

impl Phase {
    /// The phase after `event`; `None` where it changes nothing. What an operator wishes while
    /// recovery goes on is written down, and read at its end.
    pub const fn next(self, event: PhaseEvent) -> Option<Self> {
        use {Phase as P, PhaseEvent as E};
        match (self, event) {
            (P::Starting, E::Recovered { drains: true }) => Some(P::Draining),
            (P::Starting, E::Recovered { drains: false }) => Some(P::Serving),
            (P::Serving, E::Drained) => Some(P::Draining),
            (P::Draining, E::Undrained) => Some(P::Serving),
            (P::Starting | P::Serving | P::Draining, E::Ended) => Some(P::Ending),
            (P::Starting, E::Drained | E::Undrained)
            | (P::Serving, E::Recovered { .. } | E::Undrained)
            | (P::Draining, E::Recovered { .. } | E::Drained) => None,
            (P::Ending, E::Recovered { .. } | E::Drained | E::Undrained | E::Ended) => None,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Serving,
            2 => Self::Draining,
            _ => Self::Ending,
        }
    }
}

/// The phase of one manager.
#[derive(Debug)]
pub(crate) struct PhaseCell(AtomicU8);

impl Default for PhaseCell {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }
}

impl PhaseCell {
    /// The phase now.
    pub(crate) fn get(&self) -> Phase {
        Phase::of(self.0.load(Ordering::Acquire))
    }

    /// Takes the transition that `event` is, if it is one; answers the phase then.
    pub(crate) fn advance(&self, event: PhaseEvent) -> Phase {
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let Some(next) = Phase::of(now).next(event) else { return Phase::of(now) };
            let (next, order) = (next as u8, Ordering::AcqRel);
            match self.0.compare_exchange_weak(now, next, order, Ordering::Acquire) {
                Ok(_) => return Phase::of(next),
                Err(other) => now = other,
            }
        }
    }
}
