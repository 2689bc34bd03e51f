//! Runs the blocking calls of providers: off the request path, bounded, each with a record.
//!
//! A job always runs to its end, whatever becomes of whoever waits for it: a provider call is
//! never left half done. Past its deadline the waiter gets `Timeout`, and the job goes on
//! occupying its place, so that a backend that hangs costs a bounded number of threads.
//!
//! The simulated twin runs the calls inline after a delay of virtual time, so that a test that
//! pauses the clock controls them (tokio does not advance a paused clock while a thread works).

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmRuntimeError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::follow::Trail;
use crate::tasks::TaskGroup;

/// What a job is for; each class has places of its own, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Making VMs.
    Restore,
    /// Destroying them.
    Destroy,
    /// What tenants and operators ask of VMs: start, stop, snapshot, resume at handoff.
    Verb,
    /// Building templates, which takes seconds.
    Build,
    /// Reading out artifacts, which takes as long as their readers do.
    Export,
    /// What waits for the journal's disk: what operators decide, and keeping the log short. No backend that
    /// hangs has these places.
    Journal,
}

/// How many jobs of each class run at once.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Of [`Class::Restore`].
    pub restore: usize,
    /// Of [`Class::Destroy`].
    pub destroy: usize,
    /// Of [`Class::Verb`].
    pub verb: usize,
    /// Of [`Class::Build`].
    pub build: usize,
    /// Of [`Class::Export`].
    pub export: usize,
    /// Of [`Class::Journal`].
    pub journal: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { restore: 16, destroy: 16, verb: 32, build: 2, export: 4, journal: 4 }
    }
}

/// So many quick calls one thread makes at most before it gives its place back.
const MOST_IN_A_ROW: usize = 64;

/// The delay that the simulated twin gives a job of a class.
pub type Latency = Arc<dyn Fn(Class) -> Duration + Send + Sync>;

/// Runs jobs.
#[derive(Clone)]
pub struct Jobs {
    tasks: TaskGroup,
    counts: Places,
    restore: Arc<Semaphore>,
    destroy: Arc<Semaphore>,
    verb: Arc<Semaphore>,
    build: Arc<Semaphore>,
    export: Arc<Semaphore>,
    journal: Arc<Semaphore>,
    simulated: Option<Latency>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("simulated", &self.simulated.is_some()).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Runs jobs on threads; their tasks belong to `tasks`.
    pub fn on_threads(tasks: TaskGroup, places: Places) -> Self {
        Self::new(tasks, places, None)
    }

    /// Runs jobs inline, each after the virtual time that `latency` says.
    pub fn simulated(tasks: TaskGroup, places: Places, latency: Latency) -> Self {
        Self::new(tasks, places, Some(latency))
    }

    fn new(tasks: TaskGroup, places: Places, simulated: Option<Latency>) -> Self {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Self {
            tasks,
            counts: places,
            restore: semaphore(places.restore),
            destroy: semaphore(places.destroy),
            verb: semaphore(places.verb),
            build: semaphore(places.build),
            export: semaphore(places.export),
            journal: semaphore(places.journal),
            simulated,
        }
    }

    /// No job of this class runs or waits for a place.
    pub fn is_idle(&self, class: Class) -> bool {
        let (places, count) = self.places(class);
        places.available_permits() == count
    }

    /// How many quick calls one job may make one after another: the simulated twin gives each a time of
    /// its own.
    pub const fn most_in_a_row(&self) -> usize {
        if self.simulated.is_some() { 1 } else { MOST_IN_A_ROW }
    }

    const fn places(&self, class: Class) -> (&Arc<Semaphore>, usize) {
        match class {
            Class::Restore => (&self.restore, self.counts.restore),
            Class::Destroy => (&self.destroy, self.counts.destroy),
            Class::Verb => (&self.verb, self.counts.verb),
            Class::Build => (&self.build, self.counts.build),
            Class::Export => (&self.export, self.counts.export),
            Class::Journal => (&self.journal, self.counts.journal),
        }
    }

    /// Runs `call` to its end and answers what it answered, or `Timeout` when that takes longer
    /// than `deadline` from its start; what it answers after that goes to `late`.
    ///
    /// # Cancel safety
    /// Dropped before the job has a place, nothing happens; later, the job runs on and its
    /// answer goes to `late`.
    ///
    /// # Errors
    /// Those of `call`; `Timeout`; `Backend` when it panicked.
    pub async fn run<T, F, L>(
        &self,
        class: Class,
        what: &'static str,
        deadline: Duration,
        call: F,
        late: L,
    ) -> Result<T, VmRuntimeError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, VmRuntimeError> + Send + 'static,
        L: FnOnce(Result<T, VmRuntimeError>) + Send + 'static,
    {
        let (places, _) = self.places(class);
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(|_| VmRuntimeError::Unavailable {
            what: format!("{what}: the runner has ended"),
            source: None,
        })?;
        self.run_at(place, class, what, deadline, call, late).await
    }

    /// As [`Self::run`] where a place is free, without a deadline; `None` where all are taken.
    ///
    /// # Cancel safety
    /// Dropped, the job runs on and nobody hears its answer.
    ///
    /// # Errors
    /// Those of `call`; `Backend` when it panicked.
    pub async fn try_run<T: Send + 'static>(
        &self,
        class: Class,
        what: &'static str,
        call: impl FnOnce() -> Result<T, VmRuntimeError> + Send + 'static,
    ) -> Option<Result<T, VmRuntimeError>> {
        let place = Arc::clone(self.places(class).0).try_acquire_owned().ok()?;
        Some(self.run_at(place, class, what, Duration::MAX, call, drop).await)
    }

    async fn run_at<T, F, L>(
        &self,
        place: OwnedSemaphorePermit,
        class: Class,
        what: &'static str,
        deadline: Duration,
        call: F,
        late: L,
    ) -> Result<T, VmRuntimeError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, VmRuntimeError> + Send + 'static,
        L: FnOnce(Result<T, VmRuntimeError>) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let trail = Trail::step(what);
        // Dropped by a panic, it gives the place back and leaves who waits without an answer.
        let job = move || {
            let done = trail.run(call);
            drop(place);
            if let Err(unheard) = answer.send(done) {
                late(unheard);
            }
        };
        match self.simulated.clone() {
            Some(latency) => self.tasks.spawn(async move {
                tokio::time::sleep(latency(class)).await;
                job();
            }),
            // The thread answers who waits: a task between the two would be woken for nothing else.
            None => self.tasks.spawn_blocking(job),
        }
        // The receiver is dropped at the deadline, which sends the answer to `late`.
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(panicked(what)),
            Err(_) => Err(VmRuntimeError::Timeout { what: what.to_owned(), after: deadline }),
        }
    }
}

fn panicked(what: &str) -> VmRuntimeError {
    VmRuntimeError::Backend { what: format!("{what}: the call panicked"), source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated(latency: Duration) -> Jobs {
        let latency: Latency = Arc::new(move |_| latency);
        Jobs::simulated(TaskGroup::new(), Places { restore: 1, ..Places::default() }, latency)
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_not_lost() {
        let jobs = simulated(Duration::from_secs(5));
        let (late, heard) = oneshot::channel();
        let call = || Ok(7);
        let deadline = Duration::from_secs(1);
        let done = jobs.run(Class::Restore, "test", deadline, call, |it| drop(late.send(it)));
        assert!(matches!(done.await, Err(VmRuntimeError::Timeout { .. })));
        assert_eq!(heard.await.unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_has_its_own_bounded_places() {
        let jobs = simulated(Duration::from_secs(5));
        let start = tokio::time::Instant::now();
        let run = |class| jobs.run(class, "test", Duration::MAX, || Ok(()), drop);
        let (a, b, c) = tokio::join!(run(Class::Restore), run(Class::Restore), run(Class::Verb));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(start.elapsed(), Duration::from_secs(10), "one restore waited for the other");
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let jobs = Jobs::on_threads(TaskGroup::new(), Places::default());
        let call = || -> Result<(), _> { panic!("on purpose") };
        let done = jobs.run(Class::Verb, "test", Duration::from_secs(9), call, drop).await;
        assert_eq!(done.unwrap_err().kind(), "backend");
    }
}
