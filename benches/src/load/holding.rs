//! What becomes of what a call was given: it is asked something, held, perhaps renewed, and given back.
//!
//! Invariant: everything that was given is given back, also when the run is over before the hold
//! is. The calls that do it count as calls on their connection like any other.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::drive::Target;
use super::tally::Tally;

/// How long things are held, and which are renewed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Holding {
    /// How long to hold what was given. What is held when the last call is answered is given back
    /// then.
    pub hold: Duration,
    /// Share of what is held that is renewed, once, in the middle of its hold; from 0 to 1.
    pub renew_ratio: f64,
}

impl Holding {
    /// All is held until the last call is answered. Costs the calls before nothing.
    pub const UNTIL_THE_END: Self = Self { hold: Duration::MAX, renew_ratio: 0.0 };

    /// The same for a run whose calls are due within `duration`.
    #[must_use]
    pub fn within(self, duration: Duration) -> Self {
        match self.hold >= duration && self.renew_ratio == 0.0 && !self.hold.is_zero() {
            true => Self::UNTIL_THE_END,
            false => self,
        }
    }

    /// Whether what this call was given is renewed: evenly spread, and the same in each run.
    fn renews(&self, number: u64) -> bool {
        let ratio = self.renew_ratio.clamp(0.0, 1.0);
        let until = |number: u64| (number as f64 * ratio).floor();
        !self.hold.is_zero() && until(number + 1) > until(number)
    }
}

/// How many calls may be under way at once on each connection.
#[derive(Clone, Debug, Default)]
pub struct Streams(Option<Arc<[Arc<Semaphore>]>>);

impl Streams {
    /// At most `per_connection` on each of `connections`, which are used in turn.
    pub fn at_most(per_connection: usize, connections: usize) -> Self {
        let permits = per_connection.clamp(1, Semaphore::MAX_PERMITS);
        Self(Some((0..connections.max(1)).map(|_| Arc::new(Semaphore::new(permits))).collect()))
    }

    /// Waits until the call with this number may begin; it has ended when the answer is dropped.
    pub(super) async fn enter(&self, number: u64) -> Option<OwnedSemaphorePermit> {
        let connections = self.0.as_ref()?;
        let semaphore = &connections[number as usize % connections.len()];
        // It is never closed.
        Arc::clone(semaphore).acquire_owned().await.ok()
    }
}

/// How a call that ends something, or makes it last, has gone.
#[derive(Debug)]
struct Outcome {
    result: Result<(), String>,
    took: Duration,
}

/// What became of one thing that was held.
#[derive(Debug)]
pub(super) struct Returned {
    asked: Option<Outcome>,
    renewed: Option<Outcome>,
    returned: Outcome,
}

/// All that is held, or being given back.
#[derive(Debug)]
pub(super) struct Held<T: Target> {
    tasks: JoinSet<Returned>,
    /// By the numbers of their calls; until the end nothing is done about them.
    kept: Vec<(u64, T::Held)>,
}

impl<T: Target> Default for Held<T> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), kept: Vec::new() }
    }
}

impl<T: Target> Held<T> {
    /// Holds what the call with this number was given, whose answer came `waited` after the call was
    /// due.
    pub(super) fn take(
        &mut self,
        target: &T,
        (number, waited): (u64, Duration),
        held: T::Held,
        (holding, streams): (Holding, &Streams),
        let_go: &CancellationToken,
    ) {
        if holding == Holding::UNTIL_THE_END && !target.asks() {
            self.kept.push((number, held));
            return;
        }
        let (target, streams, let_go) = (target.clone(), streams.clone(), let_go.clone());
        self.tasks.spawn(async move {
            let begun = Instant::now();
            // What it says is waited for on the call's account: it is part of being given something.
            let asked = target.ask(number, &held).await;
            let asked = asked.map(|result| Outcome { result, took: waited + begun.elapsed() });
            let mut renewed = None;
            // Whoever lets go in the first half has it given back as it is.
            if holding.renews(number)
                && tokio::time::timeout(holding.hold / 2, let_go.cancelled()).await.is_err()
            {
                renewed = Some(timed(&streams, number, target.renew(&held)).await);
            }
            if !holding.hold.is_zero() {
                // Either way it is given back now.
                let left = holding.hold.saturating_sub(begun.elapsed());
                let _ = tokio::time::timeout(left, let_go.cancelled()).await;
            }
            let returned = timed(&streams, number, target.give_back(held)).await;
            Returned { asked, renewed, returned }
        });
    }

    /// Begins to give back what was kept until now. What else is held is let go by its token.
    pub(super) fn let_go(&mut self, target: &T, streams: &Streams) {
        for (number, held) in self.kept.drain(..) {
            let (target, streams) = (target.clone(), streams.clone());
            self.tasks.spawn(async move {
                let returned = timed(&streams, number, target.give_back(held)).await;
                Returned { asked: None, renewed: None, returned }
            });
        }
    }

    /// Nothing is held, and nothing being given back.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.kept.is_empty()
    }

    /// Waits for the next that was given back; `None` when nothing is, or is about to be.
    ///
    /// # Cancel safety
    /// A dropped future has lost nothing.
    pub(super) async fn next(&mut self) -> Option<Returned> {
        self.tasks.join_next().await.map(finished)
    }

    /// The next that was given back already.
    pub(super) fn next_now(&mut self) -> Option<Returned> {
        self.tasks.try_join_next().map(finished)
    }
}

impl Returned {
    /// Counts it.
    pub(super) fn count(self, tally: &mut Tally) {
        if let Some(Outcome { result, took }) = self.asked {
            tally.asked(result, took);
        }
        if let Some(Outcome { result, took }) = self.renewed {
            tally.renewed(result, took);
        }
        tally.returned(self.returned.result, self.returned.took);
    }
}

/// From when it could not be sent for other calls.
async fn timed(
    streams: &Streams,
    number: u64,
    call: impl Future<Output = Result<(), String>>,
) -> Outcome {
    let begun = Instant::now();
    let _stream = streams.enter(number).await;
    Outcome { result: call.await, took: begun.elapsed() }
}

/// What a task answered. Tasks are never aborted: one that has no answer has panicked.
pub(super) fn finished<R>(joined: Result<R, JoinError>) -> R {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_renewed_is_spread_evenly() {
        let holding = |renew_ratio| Holding { hold: Duration::from_secs(1), renew_ratio };
        let renewed = |ratio| (0..1000).filter(|it| holding(ratio).renews(*it)).count();
        assert_eq!([0.0, 0.25, 1.0, 7.0].map(renewed), [0, 250, 1000, 1000]);
        let first: Vec<_> = (0..8).filter(|it| holding(0.25).renews(*it)).collect();
        assert_eq!(first, [3, 7]);
        assert!(!Holding { hold: Duration::ZERO, renew_ratio: 1.0 }.renews(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_takes_so_many_and_the_others_are_not_held_up() {
        let streams = Streams::at_most(1, 2);
        let first = streams.enter(0).await;
        assert!(streams.enter(1).await.is_some());
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, streams.enter(2)).await.is_err());
        drop(first);
        assert!(streams.enter(2).await.is_some());
        assert!(Streams::default().enter(0).await.is_none());
    }
}
