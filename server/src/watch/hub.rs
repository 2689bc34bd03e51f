//! Looks at what has changed, for as long as somebody watches, and writes it into the feed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use hearth_providers::env::Env;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, Resource, Sighting};
use crate::metrics;

/// The shortest time between two looks: what changes within it is looked at once.
const PACE: Duration = Duration::from_millis(2);
/// How long a feed is kept that nobody watches, so that whoever lost its connection can go on.
const RESUMABLE_FOR: Duration = Duration::from_secs(60);
/// A look at everything is followed by a rest of so many times as long as it took.
const RESTS: u32 = 20;

/// Where resources of one kind are looked at.
pub(crate) trait Source: Send + Sync + 'static {
    /// What is seen.
    type Item: Resource;

    /// How often everything is looked at.
    const LOOK: Duration;

    /// From now on changes are noted.
    fn begin(&self);

    /// From now on they are not.
    fn end(&self);

    /// Waits until something is noted.
    fn noted(&self) -> impl Future<Output = ()> + Send;

    /// What was noted, looked at; and whether notes were lost.
    fn take_noted(&self) -> (Vec<Sighting<Self::Item>>, bool);

    /// Everything there is.
    fn all(&self) -> Vec<Self::Item>;

    /// The one of this key, if it is there.
    fn one(&self, key: &str) -> Option<Self::Item>;
}

/// What one kind of watch reads. See the module.
pub(crate) struct Hub<S: Source> {
    source: S,
    tasks: TaskGroup,
    env: Arc<dyn Env>,
    ending: CancellationToken,
    max_lag: usize,
    state: Mutex<State>,
    /// `None` until somebody watches and everything was looked at once.
    feed: Mutex<Option<Feed<S::Item>>>,
    /// Changes with the feed.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    subscribers: usize,
    is_running: bool,
    /// When the last one left.
    left: Option<Instant>,
}

/// Somebody who watches; dropped, it is gone.
pub(crate) struct Subscriber<S: Source> {
    hub: Arc<Hub<S>>,
    version: watch::Receiver<u64>,
}

impl<S: Source> Hub<S> {
    /// A hub at rest. Its work belongs to `tasks`; watches end at `ending`, and are cut off when they
    /// are more than `max_lag` changes behind.
    pub(crate) fn new(
        source: S,
        tasks: TaskGroup,
        env: Arc<dyn Env>,
        ending: CancellationToken,
        max_lag: usize,
    ) -> Arc<Self> {
        let (state, feed, version) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        Arc::new(Self { source, tasks, env, ending, max_lag, state, feed, version })
    }

    pub(crate) const fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Reads the feed, if there is one.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Feed<S::Item>) -> T) -> Option<T> {
        self.feed.lock().as_ref().map(read)
    }

    /// Begins to watch; returns when there is a feed. `None`: the server ends.
    pub(crate) async fn subscribe(self: &Arc<Self>) -> Option<Subscriber<S>> {
        let mut subscriber = self.add();
        while self.read(|_| ()).is_none() {
            tokio::select! {
                // Its sender is the hub's.
                _ = subscriber.version.changed() => {}
                () = self.ending.cancelled() => return None,
            }
        }
        Some(subscriber)
    }

    fn add(self: &Arc<Self>) -> Subscriber<S> {
        let version = self.version.subscribe();
        let mut state = self.state.lock();
        state.subscribers += 1;
        state.left = None;
        if !std::mem::replace(&mut state.is_running, true) {
            self.tasks.spawn(Arc::clone(self).run());
        }
        drop(state);
        metrics::watch_subscribers(1.0);
        Subscriber { hub: Arc::clone(self), version }
    }

    async fn run(self: Arc<Self>) {
        self.source.begin();
        let (all, mut looked, mut took) = self.look();
        let mut bits = [0; 8];
        self.env.fill(&mut bits);
        let feed = Feed::open(u64::from_le_bytes(bits), self.max_lag, all);
        *self.feed.lock() = Some(feed);
        self.version.send_modify(|version| *version += 1);
        let stopping = self.tasks.stopping().clone();
        while !self.has_ended() {
            let due = looked + S::LOOK.max(took * RESTS);
            tokio::select! {
                () = self.source.noted() => {}
                () = tokio::time::sleep_until(due) => {}
                () = stopping.cancelled() => {
                    self.close();
                    return;
                }
            }
            let (seen, has_lost) = self.source.take_noted();
            self.write(seen);
            if has_lost || Instant::now() >= due {
                let (all, at, long) = self.look();
                (looked, took) = (at, long);
                aside(|| self.compare(all));
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Everything, when that was, and how long it took.
    fn look(&self) -> (Vec<S::Item>, Instant, Duration) {
        let begun = Instant::now();
        let all = aside(|| self.source.all());
        (all, Instant::now(), begun.elapsed())
    }

    /// Writes what differs from what is known. What is in neither of two lists made one after the other
    /// may have passed from the one to the other, so what seems to be gone is looked at by itself.
    fn compare(&self, all: Vec<S::Item>) {
        let mut known = self.read(Feed::keys).unwrap_or_default();
        let there: std::collections::HashSet<_> = all.iter().map(Resource::key).collect();
        known.retain(|key| !there.contains(key));
        let absent = known.into_iter().map(|key| match self.source.one(&key) {
            Some(item) => Sighting::Is(item),
            None => Sighting::Gone(key),
        });
        let absent: Vec<_> = absent.collect();
        self.write(all.into_iter().map(Sighting::Is).chain(absent));
    }

    fn write(&self, seen: impl IntoIterator<Item = Sighting<S::Item>>) {
        let mut feed = self.feed.lock();
        let Some(feed) = feed.as_mut() else { return };
        let before = feed.last();
        seen.into_iter().for_each(|sighting| feed.see(sighting));
        if feed.last() != before {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Nobody has watched for so long that nobody will go on where it stood; then nothing is kept.
    fn has_ended(&self) -> bool {
        let mut state = self.state.lock();
        let is_over = state.left.is_some_and(|left| left.elapsed() >= RESUMABLE_FOR);
        if is_over {
            state.is_running = false;
            self.close();
        }
        is_over
    }

    fn close(&self) {
        self.source.end();
        *self.feed.lock() = None;
    }
}

/// Does `work`, which takes long where there is much, so that no call waits for its thread meanwhile. A runtime of
/// one thread, as tests and simulations have, does one thing after the other.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl<S: Source> Subscriber<S> {
    pub(crate) const fn hub(&self) -> &Arc<Hub<S>> {
        &self.hub
    }

    /// Waits until the feed has changed since it was last waited for.
    ///
    /// # Cancel safety
    /// Nothing is missed.
    pub(crate) async fn changed(&mut self) {
        // Its sender is the hub's.
        let _ = self.version.changed().await;
    }
}

impl<S: Source> Drop for Subscriber<S> {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.subscribers -= 1;
        if state.subscribers == 0 {
            state.left = Some(Instant::now());
        }
        drop(state);
        metrics::watch_subscribers(-1.0);
    }
}
