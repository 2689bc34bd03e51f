//! Tasks have owners: nothing is spawned that nobody stops and waits for.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use crate::follow::Trail;

/// Tasks that begin and end together.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task of the group. It must end by itself, or heed [`Self::stopping`].
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// As [`Self::spawn`], of what the call that is being answered goes on with: within `span`, and with the
    /// call's mark in the log.
    pub fn spawn_part<F>(&self, span: Span, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(Trail::within(span).carry(task));
    }

    /// Runs `work`, which may block, on a thread of its own; it is waited for as a task is. It must end
    /// by itself.
    pub fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.tracker.spawn_blocking(work);
    }

    /// Starts a task that the group cannot do without: should it end, or panic, before the group
    /// is told to stop, then the whole group stops.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // Dropped at the end and by a panic alike.
            let _ends_all = StopOnDrop { name, stop };
            task.await;
        });
    }

    /// Is cancelled when the group is told to stop.
    pub const fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tells every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every task has ended; false when some have not within `timeout`.
    pub async fn join(&self, timeout: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}

struct StopOnDrop {
    name: &'static str,
    stop: CancellationToken,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            tracing::error!(task = self.name, "a critical task has ended: stopping");
            self.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_critical_task_that_ends_takes_the_group_down() {
        let group = TaskGroup::new();
        let stopping = group.stopping().clone();
        group.spawn(async move { stopping.cancelled().await });
        group.spawn_critical("short", async {});
        assert!(group.join(Duration::from_secs(10)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn join_is_bounded() {
        let group = TaskGroup::new();
        group.spawn(std::future::pending());
        assert!(!group.join(Duration::from_secs(10)).await);
    }
}
