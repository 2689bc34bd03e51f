//! What takes longer than a call: its progress, and what came of it.
//!
//! Bounded in number and time. Its beginning and its end are journaled, so that whoever began it
//! learns after a restart what came of it; what it builds is journaled by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::env::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, TemplateId, Tenant};
use crate::jobs::Class;
use crate::journal::Journal;
use crate::manager::Manager;

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
    pub verb: Cow<'static, str>,
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
    /// Whose it is; unset: the node's.
    pub tenant: Option<Tenant>,
    /// Names what it makes, whatever else had the name of its target before.
    makes: String,
    ended_at: Option<Duration>,
    /// Somebody wants it to end.
    cancelled: CancellationToken,
}

/// What an operation makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// An operation, as it is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    id: String,
    verb: String,
    target: Target,
    makes: String,
    create_time: SystemTime,
    update_time: SystemTime,
    /// Unset: it was under way.
    ended: Option<Ended>,
    /// Unset: the node's, or of a version that told nobody apart.
    #[serde(default)]
    tenant: Option<Tenant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    Done,
    Failed(String),
}

impl Operation {
    /// Whether `tenant` sees it; an operator (`None`) sees all.
    pub fn is_seen_by(&self, tenant: Option<&Tenant>) -> bool {
        tenant.is_none() || self.tenant.as_ref() == tenant
    }

    fn record(&self) -> OperationRecord {
        let ended = self.outcome.as_ref().map(|outcome| match outcome {
            Outcome::Done => Ended::Done,
            Outcome::Failed(error) => Ended::Failed(error.to_string()),
        });
        OperationRecord {
            id: self.id.clone(),
            verb: self.verb.clone().into_owned(),
            target: self.target.clone(),
            makes: self.makes.clone(),
            create_time: self.create_time,
            update_time: self.update_time,
            ended,
            tenant: self.tenant.clone(),
        }
    }
}

/// Every operation.
pub struct Operations {
    env: Arc<dyn Env>,
    journal: Arc<Journal>,
    by_id: Mutex<BTreeMap<String, watch::Sender<Operation>>>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").field("len", &self.by_id.lock().len()).finish_non_exhaustive()
    }
}

impl Operations {
    pub(crate) fn new(env: Arc<dyn Env>, journal: Arc<Journal>) -> Self {
        Self { env, journal, by_id: Mutex::default() }
    }

    /// Takes up those of the journal. One that was under way has come to its end if `is_made` says that
    /// what it makes is there.
    fn recover(&self, records: Vec<OperationRecord>, is_made: impl Fn(&Target, &str) -> bool) {
        let (now, ended_at) = (self.env.now(), Some(self.env.boot_time()));
        let mut by_id = self.by_id.lock();
        for record in records {
            let was_open = record.ended.is_none();
            let outcome = match record.ended {
                Some(Ended::Done) => Outcome::Done,
                Some(Ended::Failed(message)) => {
                    Outcome::Failed(Arc::new(Error::FailedBefore { message }))
                }
                None if is_made(&record.target, &record.makes) => Outcome::Done,
                None => Outcome::Failed(Arc::new(Error::Interrupted)),
            };
            let is_done = matches!(outcome, Outcome::Done);
            let operation = Operation {
                id: record.id,
                verb: record.verb.into(),
                target: record.target,
                stage: if is_done { "done" } else { "interrupted" },
                percent: if is_done { 100 } else { 0 },
                create_time: record.create_time,
                update_time: if was_open { now } else { record.update_time },
                outcome: Some(outcome),
                tenant: record.tenant,
                makes: record.makes,
                ended_at,
                cancelled: CancellationToken::new(),
            };
            if was_open {
                self.write(&operation);
            }
            by_id.insert(operation.id.clone(), watch::channel(operation).0);
        }
    }

    /// Begins one of `tenant`'s, or of the node's, which makes what `makes` names for ever; answers
    /// its id.
    ///
    /// # Errors
    /// `Storage`, and nothing has begun.
    pub(crate) fn begin(
        &self,
        verb: &'static str,
        target: Target,
        makes: impl Into<String>,
        tenant: Option<Tenant>,
    ) -> Result<String> {
        let id = format!("{}-{}", verb.to_ascii_lowercase(), self.env.uid());
        let now = self.env.now();
        let operation = Operation {
            id: id.clone(),
            verb: verb.into(),
            target,
            stage: "queued",
            percent: 0,
            create_time: now,
            update_time: now,
            outcome: None,
            tenant,
            makes: makes.into(),
            ended_at: None,
            cancelled: CancellationToken::new(),
        };
        self.journal.write_operation(&id, &operation.record())?;
        let mut by_id = self.by_id.lock();
        let boot = self.env.boot_time();
        let is_old = |it: &Operation| it.ended_at.is_some_and(|at| at + KEPT_FOR <= boot);
        let ended = by_id.values().map(|kept| kept.borrow().clone());
        let mut ended: Vec<_> = ended.filter(|it| it.outcome.is_some()).collect();
        ended.sort_by_key(|it| it.update_time);
        let beyond = (by_id.len() + 1).saturating_sub(MAX_KEPT);
        let goes = |(place, it): &(usize, Operation)| *place < beyond || is_old(it);
        for (_, gone) in ended.into_iter().enumerate().filter(goes) {
            by_id.remove(&gone.id);
            self.forget(&gone.id);
        }
        by_id.insert(id.clone(), watch::channel(operation).0);
        Ok(id)
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
        // As whoever waits for it: it may be forgotten already.
        if let Ok(ended) = self.get(id) {
            self.write(&ended);
        }
    }

    fn write(&self, operation: &Operation) {
        if let Err(error) = self.journal.write_operation(&operation.id, &operation.record()) {
            let id = &operation.id;
            tracing::warn!(id, %error, "what came of an operation could not be written");
        }
    }

    fn forget(&self, id: &str) {
        if let Err(error) = self.journal.forget_operation(id) {
            tracing::warn!(id, %error, "an operation could not be forgotten");
        }
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

    /// One operation, as `tenant` or, without one, an operator sees it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_seen_by(&self, id: &str, tenant: Option<&Tenant>) -> Result<Operation> {
        let known = self.get(id)?;
        let missing = || Error::NotFound { kind: Kind::Operation, name: id.to_owned() };
        known.is_seen_by(tenant).then_some(known).ok_or_else(missing)
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

    /// Asks one under way to end before it has made anything; it may come to its end all the same. Of
    /// one that has ended nothing changes.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.get(id)?.cancelled.cancel();
        Ok(())
    }

    /// Is cancelled when somebody wants this one to end; never, of one that is not known.
    pub(crate) fn cancelled(&self, id: &str) -> CancellationToken {
        self.get(id).map_or_else(|_| CancellationToken::new(), |it| it.cancelled)
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
        self.discard(id);
        Ok(())
    }

    /// Forgets one, also when it has not ended.
    pub(crate) fn discard(&self, id: &str) {
        self.by_id.lock().remove(id);
        self.forget(id);
    }

    fn watch(&self, id: &str) -> Result<watch::Receiver<Operation>> {
        let missing = || Error::NotFound { kind: Kind::Operation, name: id.to_owned() };
        self.by_id.lock().get(id).map(watch::Sender::subscribe).ok_or_else(missing)
    }
}

impl Manager {
    /// Takes up the operations of the journal, once templates and artifacts are.
    pub(crate) async fn recover_operations(&self) -> Result<()> {
        let journal = Arc::clone(&self.journal);
        let call = move || Ok(journal.operations());
        let mut records: Vec<OperationRecord> =
            self.jobs.run(Class::Journal, "operations", Duration::MAX, call, drop).await??;
        // It is part of a name: a record that was damaged so is nobody's to find, and nothing else depends on it.
        records.retain(|record| {
            let checked = hearth_providers::id::check_id(&record.id);
            checked.inspect_err(|error| tracing::warn!(%error, "an operation is left out")).is_ok()
        });
        self.operations().recover(records, |target, makes| match target {
            Target::Template(id) => self.history(id).is_ok_and(|it| it.has_made(makes)),
            Target::Artifact(id) => {
                self.artifact(id, None).is_ok_and(|artifact| artifact.uid.to_string() == makes)
            }
        });
        Ok(())
    }
}
