//! Back to an earlier generation: under a new number, and nothing is built.
//!
//! The earlier one's snapshot is pinned once more and becomes the current one's. By an operator's wish,
//! or because the first VM of the current one could not be made.

use std::sync::Arc;

use hearth_providers::VmRuntimeError;

use super::{History, Template, TemplateState};
use crate::admin::check_etag;
use crate::error::{Error, Kind, Result};
use crate::ids::TemplateId;
use crate::jobs::Class;
use crate::manager::Manager;

impl Manager {
    /// Makes generation `generation` of a template the current one again, under a new number; 0 means the
    /// last before the current one that is ready. Blocks on the disk for a moment, and on the backend.
    ///
    /// # Errors
    /// `NotFound` when that generation is not kept; `TemplateNotReady` when it failed, is being built, or
    /// cannot be restored here any more; `EtagMismatch` unless `etag` is empty; `InvalidArgument` for the
    /// current one, and for one that a pool could not keep as it does; those of the provider; `Storage`.
    pub async fn roll_back_template(
        &self,
        id: &TemplateId,
        generation: i64,
        etag: &str,
    ) -> Result<Arc<Template>> {
        let _turn = self.control.lock().await;
        let history = self.history(id)?;
        let current = history.current();
        check_etag(Kind::Template, id.as_str(), etag, &current.etag)?;
        if generation == current.generation {
            return Err(Error::invalid("generation", "it is the current one"));
        }
        let target = match generation {
            0 => self.last_good(&history).await?,
            generation => {
                let target = self.generation(id, generation)?;
                self.check_restorable(&target).await?;
                target
            }
        };
        self.check_generation(&target)?;
        let again = self.make_again(&history, &target).await?;
        let made = self.publish(history.succeed(again)).await?;
        let (generation, as_was) = (made.generation, target.generation);
        tracing::info!(template = %id, generation, as_was, "a template was rolled back");
        Ok(made)
    }

    /// Goes back to the last good generation because the first VM of `failed_generation` could not be
    /// made, for this reason; that one is then listed as failed, and its snapshot let go of. Several pools
    /// may say so of one generation. Answers whether another one is current now: there may be none that
    /// is ready and has another snapshot, and then nothing changes. Blocks as
    /// [`Self::roll_back_template`].
    pub async fn roll_back_canary(
        &self,
        id: &TemplateId,
        failed_generation: i64,
        reason: String,
    ) -> bool {
        let _turn = self.control.lock().await;
        let Ok(history) = self.history(id) else { return false };
        let current = history.current();
        if current.generation != failed_generation {
            return current.generation > failed_generation;
        }
        let Some(target) = self.last_of_another_make(&history, &current).await else {
            tracing::warn!(
                template = %id, generation = failed_generation, reason,
                "no VM of a new generation can be made, and there is none to go back to"
            );
            return false;
        };
        let done = match self.make_again(&history, &target).await {
            Ok(again) => {
                self.publish(history.succeed(again).condemn(failed_generation, &reason)).await
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(made) => {
                let (generation, as_was) = (made.generation, target.generation);
                tracing::warn!(
                    template = %id, failed_generation, reason, generation, as_was,
                    "no VM of a new generation can be made: its template was rolled back"
                );
                true
            }
            Err(error) => {
                tracing::error!(template = %id, failed_generation, %error, "it cannot be rolled back");
                false
            }
        }
    }

    /// The newest before the current one that can be restored.
    async fn last_good(&self, history: &History) -> Result<Arc<Template>> {
        let mut why_not = None;
        for target in history.earlier() {
            match self.check_restorable(target).await {
                Ok(()) => return Ok(Arc::clone(target)),
                Err(error) => why_not = why_not.or(Some(error)),
            }
        }
        let current = history.written();
        let failed = || history.failures().find(|it| it.generation < current.generation);
        let failed = || failed().and_then(|it| it.refusal());
        Err(why_not.or_else(failed).unwrap_or_else(|| {
            let name = format!("{}@{}", current.id, current.generation - 1);
            Error::NotFound { kind: Kind::Template, name }
        }))
    }

    async fn last_of_another_make(
        &self,
        history: &History,
        current: &Template,
    ) -> Option<Arc<Template>> {
        let taken = |it: &Template| it.snapshot.as_ref().map(|snapshot| snapshot.uid);
        for target in history.earlier().filter(|it| taken(it) != taken(current)) {
            let fits = self.check_generation(target).is_ok();
            if fits && self.check_restorable(target).await.is_ok() {
                return Some(Arc::clone(target));
            }
        }
        None
    }

    /// Refuses a generation that VMs could not be restored from now.
    async fn check_restorable(&self, template: &Arc<Template>) -> Result<()> {
        if let Some(refusal) = template.refusal() {
            return Err(refusal);
        }
        match self.fits(template).await {
            Ok(()) => Ok(()),
            Err(
                error @ (VmRuntimeError::SnapshotIncompatible { .. }
                | VmRuntimeError::SnapshotNotFound { .. }),
            ) => {
                let (template, reason) = (template.id.to_string(), error.to_string());
                Err(Error::TemplateNotReady { template, reason, retry_after: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether its snapshot can be restored here and now.
    pub(super) async fn fits(&self, template: &Arc<Template>) -> Result<(), VmRuntimeError> {
        let Some(snapshot) = template.snapshot.as_ref().map(|it| it.uid) else { return Ok(()) };
        // Of a provider that is not configured nothing is known.
        let Ok(provider) = self.provider(&template.provider).cloned() else { return Ok(()) };
        let call = move || provider.runtime.snapshot_fits(snapshot);
        self.jobs.run(Class::Verb, "fits", self.limits.verb_timeout, call, drop).await
    }

    /// What `target` is under the next number, its snapshot pinned once more.
    async fn make_again(&self, history: &History, target: &Template) -> Result<Template> {
        let again = Template {
            generation: history.next_generation(),
            state: TemplateState::Ready,
            is_proven: true,
            etag: self.env.uid().to_string(),
            create_time: history.written().create_time,
            update_time: Some(self.env.now()),
            ..target.clone()
        };
        self.pin(&again).await?;
        Ok(again)
    }

    /// Pins the snapshot of a generation that is to be written.
    pub(crate) async fn pin(&self, template: &Template) -> Result<()> {
        let Some(snapshot) = template.snapshot.as_ref().map(|it| it.reference(false)) else {
            return Ok(());
        };
        let provider = Arc::clone(self.provider(&template.provider)?);
        let pin = template.pin();
        let call = move || provider.runtime.pin_snapshot(&snapshot, &pin).map(drop);
        let limit = self.limits.verb_timeout;
        Ok(self.jobs.run(Class::Verb, "pin", limit, call, drop).await?)
    }
}
