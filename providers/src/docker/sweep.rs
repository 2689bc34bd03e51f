//! Removing what nobody will ask us to remove: images of snapshots that are gone, and whatever
//! carries our state's uuid and is in no record.
//!
//! The record is the directory: it is made before what it is of, and removed after it. So what is
//! seen first and has no directory then is in no record, whenever that is looked at. Still, but for a
//! start, it takes two looks in a row: a hand may have put a directory aside for a moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::labels;
use super::shared::{Answer, Shared, filter};
use crate::id::Uid;

/// How long the first look waits: a snapshot's directory goes right after its last holder.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// Past this nothing is tried again before something new happens.
const LAST_DELAY: Duration = Duration::from_secs(20);
/// How often everything is looked through when the engine may still be busy with what nobody
/// waits for any longer.
const SUSPICIOUS_ROUNDS: u32 = 9;

/// How often everything is looked through when nothing has happened.
const REPAIR_PERIOD: Duration = Duration::from_secs(60);

/// What is to be swept.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    work: Mutex<Work>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Work {
    /// Snapshots that somebody has let go of.
    images: BTreeSet<Uid>,
    /// How often everything is still to be looked through.
    rounds: u32,
    /// What had no directory at the last look through everything.
    absent: BTreeSet<Uid>,
}

/// What a look through everything removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Containers that carried our state's uuid and were in no record.
    pub containers: usize,
    /// Images of snapshots that were in no record.
    pub images: usize,
}

impl Sweep {
    /// The image of `snapshot` is to go as soon as its directory does.
    pub(super) fn expect(&self, snapshot: Uid) {
        self.work.lock().images.insert(snapshot);
        self.bell.notify_one();
    }

    /// The engine may have made, or may yet make, what nobody waits for.
    pub(super) fn suspect(&self) {
        self.work.lock().rounds = SUSPICIOUS_ROUNDS;
        self.bell.notify_one();
    }

    fn look_once(&self) {
        let mut work = self.work.lock();
        work.rounds = work.rounds.max(1);
    }

    fn has_work(&self) -> bool {
        let work = self.work.lock();
        work.rounds > 0 || !work.images.is_empty()
    }
}

/// Sweeps whenever there is something to, for the life of the backend.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.sweep.bell.notified() => {}
            // A commit can outlive hearth by long: what it makes is found then.
            () = tokio::time::sleep(REPAIR_PERIOD) => shared.sweep.look_once(),
        }
        let mut delay = FIRST_DELAY;
        while shared.sweep.has_work() && delay < LAST_DELAY {
            tokio::time::sleep(delay).await;
            delay = if shared.sweep_some().await { FIRST_DELAY } else { delay * 2 };
        }
        // Let go of, but kept on disk: nobody's to remove.
        let recorded = |uid: &Uid| shared.has_directory("snapshots", *uid);
        shared.sweep.work.lock().images.retain(|uid| !recorded(uid));
    }
}

impl Shared {
    fn has_directory(&self, kind: &str, uid: Uid) -> bool {
        self.state.join(kind).join(uid.to_string()).is_dir()
    }

    /// One round; whether it got on with what was expected.
    async fn sweep_some(&self) -> bool {
        let expected = self.sweep.work.lock().images.clone();
        let mut removed = BTreeSet::new();
        for uid in expected {
            if self.has_directory("snapshots", uid) {
                continue;
            }
            match self.remove_image(&labels::image(uid)).await {
                Ok(()) => {
                    removed.insert(uid);
                }
                Err(fault) => tracing::debug!(%uid, ?fault, "an image cannot be removed yet"),
            }
        }
        let thorough = self.sweep.work.lock().rounds > 0 && self.sweep_all(false).await.is_ok();
        let mut work = self.sweep.work.lock();
        work.images.retain(|uid| !removed.contains(uid));
        work.rounds -= u32::from(thorough && work.rounds > 0);
        !removed.is_empty()
    }

    /// Looks through everything that carries our state's uuid; `at_once` one look is enough.
    pub(super) async fn sweep_all(&self, at_once: bool) -> Answer<Swept> {
        let before = std::mem::take(&mut self.sweep.work.lock().absent);
        let is_orphan = |kind: &str, uid: Uid| {
            if self.has_directory(kind, uid) {
                return false;
            }
            self.sweep.work.lock().absent.insert(uid);
            at_once || before.contains(&uid)
        };
        let containers = self.sweep_containers(|uid| is_orphan("instances", uid)).await?;
        let images = self.sweep_images(|uid| is_orphan("snapshots", uid)).await?;
        Ok(Swept { containers, images })
    }

    async fn sweep_containers(&self, is_orphan: impl Fn(Uid) -> bool) -> Answer<usize> {
        let label = format!("{}={}", labels::STATE, self.config.state);
        let options =
            ListContainersOptionsBuilder::new().all(true).filters(&filter(&[("label", label)]));
        let list = self.client.list_containers(Some(options.build()));
        let mut count = 0;
        for found in self.ask(self.config.command_timeout, list).await? {
            let (carried, names) =
                (found.labels.unwrap_or_default(), found.names.unwrap_or_default());
            let uid = labels::uid_of_container(&self.config.state, &carried, &names);
            let (Some(uid), Some(id)) = (uid, found.id) else { continue };
            if is_orphan(uid) {
                tracing::warn!(%uid, "a container of ours is in no record and is reaped");
                self.remove(&id).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn sweep_images(&self, is_orphan: impl Fn(Uid) -> bool) -> Answer<usize> {
        let label = format!("{}={}", labels::SNAPSHOT_STATE, self.config.state);
        let options = ListImagesOptionsBuilder::new().filters(&filter(&[("label", label)])).build();
        let list = self.client.list_images(Some(options));
        let mut count = 0;
        for found in self.ask(self.config.command_timeout, list).await? {
            for tag in found.repo_tags {
                let Some(uid) = labels::uid_of_image(&tag) else { continue };
                if is_orphan(uid) {
                    self.remove_image(&tag).await?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}
