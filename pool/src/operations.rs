//! What takes longer than a call: its progress, and what came of it.
//!
//! Kept in memory, bounded in number and time; what an operation builds is journaled by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::env::Env;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, TemplateId};

/// The most operations that are kept.
const MAX_KEPT: usize = 1000;
/// For how long an ended one is.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// One operation, as it stands.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its name's last part.
    pub id: String,
    /// The method that began it, as `CreateTemplate`.
    pub verb: &'static str,
    /// What it makes.
    pub target: Target,
    /// What it is doing now.
    pub stage: &'static str,
    /// How much is done.
    pub percent: u32,
    /// When it began.
    pub create_time: SystemTime,
    /// When it last changed.
    pub update_time: SystemTime,
    /// How it ended.
    pub outcome: Option<Outcome>,
    ended_at: Option<Duration>,
}

/// What an operation makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A template.
    Template(TemplateId),
    /// An artifact.
    Artifact(ArtifactId),
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// What it makes is there.
    Done,
    /// It failed, for this reason.
    Failed(Arc<Error>),
}

/// Every operation.
pub struct Operations {
    env: Arc<dyn Env>,
    by_id: Mutex<BTreeMap<String, watch::Sender<Operation>>>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").field("len", &self.by_id.lock().len()).finish_non_exhaustive()
    }
}

impl Operations {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, by_id: Mutex::default() }
    }

    /// Begins one; answers its id.
    pub(crate) fn begin(&self, verb: &'static str, target: Target) -> String {
        let id = format!("{}-{}", verb.to_ascii_lowercase(), self.env.uid());
        let now = self.env.now();
        let operation = Operation {
            id: id.clone(),
            verb,
            target,
            stage: "queued",
            percent: 0,
            create_time: now,
            update_time: now,
            outcome: None,
            ended_at: None,
        };
        let mut by_id = self.by_id.lock();
        let boot = self.env.boot_time();
        by_id.retain(|_, kept| kept.borrow().ended_at.is_none_or(|at| at + KEPT_FOR > boot));
        if by_id.len() >= MAX_KEPT {
            let oldest = by_id.values().map(|kept| kept.borrow().clone());
            let oldest = oldest.filter(|it| it.outcome.is_some()).min_by_key(|it| it.update_time);
            oldest.inspect(|oldest| drop(by_id.remove(&oldest.id)));
        }
        by_id.insert(id.clone(), watch::channel(operation).0);
        id
    }

    pub(crate) fn progress(&self, id: &str, stage: &'static str, percent: u32) {
        self.change(id, |operation| {
            operation.stage = stage;
            operation.percent = percent;
        });
    }

    pub(crate) fn end(&self, id: &str, outcome: Outcome) {
        let at = self.env.boot_time();
        self.change(id, |operation| {
            if matches!(outcome, Outcome::Done) {
                operation.stage = "done";
                operation.percent = 100;
            }
            operation.outcome = Some(outcome);
            operation.ended_at = Some(at);
        });
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Operation)) {
        let now = self.env.now();
        if let Some(kept) = self.by_id.lock().get(id) {
            kept.send_modify(|operation| {
                change(operation);
                operation.update_time = now;
            });
        }
    }

    /// Something makes `target` now.
    pub(crate) fn is_under_way(&self, target: &Target) -> bool {
        let by_id = self.by_id.lock();
        let all = by_id.values().map(|kept| kept.borrow());
        all.into_iter().any(|it| it.outcome.is_none() && it.target == *target)
    }

    /// One operation.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &str) -> Result<Operation> {
        Ok(self.watch(id)?.borrow().clone())
    }

    /// Every operation, sorted by id.
    pub fn list(&self) -> Vec<Operation> {
        self.by_id.lock().values().map(|kept| kept.borrow().clone()).collect()
    }

    /// Waits until one has ended, or for `timeout`; answers how it stands then.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// A dropped future changes nothing.
    pub async fn wait(&self, id: &str, timeout: Duration) -> Result<Operation> {
        let mut watch = self.watch(id)?;
        let ended = watch.wait_for(|operation| operation.outcome.is_some());
        let _ = tokio::time::timeout(timeout, ended).await;
        self.get(id)
    }

    /// Forgets one that has ended.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while it is under way.
    pub fn delete(&self, id: &str) -> Result<()> {
        if self.get(id)?.outcome.is_none() {
            let (kind, name) = (Kind::Operation, id.to_owned());
            return Err(Error::InUse { kind, name, by: "the work under way".to_owned() });
        }
        self.by_id.lock().remove(id);
        Ok(())
    }

    fn watch(&self, id: &str) -> Result<watch::Receiver<Operation>> {
        let missing = || Error::NotFound { kind: Kind::Operation, name: id.to_owned() };
        self.by_id.lock().get(id).map(watch::Sender::subscribe).ok_or_else(missing)
    }
}
