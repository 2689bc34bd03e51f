//! Whose call work is done for, so that one call can be followed through tasks and threads.
//!
//! A call has a [`Mark`], which every line of the log about it carries, at whatever level; and *spans*, which
//! say what took how long. Spans are for traces and below the level of most logs: one that nobody wants costs
//! the load of an atomic. What a call has others do, in a task or as a job, takes both along by what is here.
//! Drivers, the reaper and recovery do nobody's call, and have no mark.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU128;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::task::futures::TaskLocalFuture;
use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span};

tokio::task_local! {
    static MARK: Option<Mark>;
}

/// What a call is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Tells the calls of this process from those of others.
    pub life: u32,
    /// Its number among the calls of this process.
    pub number: u64,
    /// The trace that it is a part of, if anybody said so.
    pub trace_id: Option<NonZeroU128>,
}

impl Mark {
    /// That of the call which work is being done for, if it is anybody's.
    pub fn current() -> Option<Self> {
        MARK.try_with(|mark| *mark).ok().flatten()
    }

    /// Does `work` for the call with this mark.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Option<Self>, F> {
        MARK.scope(Some(self), work)
    }
}

/// The id of the call.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.life, self.number)
    }
}

/// What a task or thread is given to go on with somebody's work.
#[derive(Debug)]
pub(crate) struct Trail {
    mark: Option<Mark>,
    span: Span,
}

impl Trail {
    /// Goes on within `span`.
    pub(crate) fn within(span: Span) -> Self {
        Self { mark: Mark::current(), span }
    }

    /// Goes on within a span of its own, called `what`; where nobody is followed it has none.
    pub(crate) fn step(what: &'static str) -> Self {
        let parent = Span::current();
        let span = match parent.is_disabled() {
            true => Span::none(),
            false => tracing::debug_span!(parent: &parent, "job", otel.name = what),
        };
        Self::within(span)
    }

    /// Goes on in a task.
    pub(crate) fn carry<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        let work: Instrumented<F> = work.instrument(self.span);
        MARK.scope(self.mark, work)
    }

    /// Goes on on a thread. The span has ended when this returns.
    pub(crate) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        let Self { mark, span } = self;
        MARK.sync_scope(mark, || span.in_scope(work))
    }
}

/// The spans of callers that wait for a VM and for whom no restore has begun yet. While nobody is followed it
/// is empty.
#[derive(Debug, Default)]
pub(crate) struct Causes(Mutex<VecDeque<Weak<Span>>>);

impl Causes {
    /// Whoever waits within the current span is a cause until the answer is dropped.
    pub(crate) fn join(&self) -> Option<Arc<Span>> {
        let span = Some(Span::current()).filter(|span| !span.is_disabled()).map(Arc::new)?;
        let mut causes = self.0.lock();
        // No longer than the line.
        causes.retain(|cause| cause.strong_count() > 0);
        causes.push_back(Arc::downgrade(&span));
        Some(span)
    }

    /// Whose waiting the next restore is due to, the longest first; nobody's is the pool's own.
    pub(crate) fn next(&self) -> Span {
        let mut causes = self.0.lock();
        let next = std::iter::from_fn(|| causes.pop_front()).find_map(|cause| cause.upgrade());
        next.map_or_else(Span::none, |span| Span::clone(&span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { life: 0x5f0c_1a2b, number: 17, trace_id: NonZeroU128::new(7) }
    }

    #[tokio::test]
    async fn tasks_and_threads_take_the_mark_along_and_others_have_none() {
        assert_eq!(Mark::current(), None);
        let trail = mark().scope(async { Trail::step("test") }).await;
        let seen = std::thread::spawn(|| trail.run(Mark::current)).join().unwrap();
        assert_eq!(seen, Some(mark()));
        let carry = || Trail::step("test").carry(async { Mark::current() });
        assert_eq!(MARK.sync_scope(Some(mark()), carry).await, Some(mark()));
        assert_eq!(Mark::current(), None);
        assert_eq!(mark().to_string(), "5f0c1a2b-17");
    }

    #[test]
    fn a_caller_that_has_left_causes_nothing() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let causes = Causes::default();
            assert!(causes.join().is_none(), "nobody is followed");
            let wait = |span: &Span| span.in_scope(|| causes.join());
            let [first, second] = ["first", "second"].map(|_| tracing::info_span!("waits"));
            let (left, waits) = (wait(&first), wait(&second));
            drop(left);
            assert_eq!(causes.next(), second);
            assert!(causes.next().is_disabled(), "one restore for one caller");
            drop(waits);
        });
    }
}
