//! Makes templates: cold boot, ready, warm up, snapshot, and a throw-away VM that proves it.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::capabilities::RunningSnapshot;
use hearth_providers::model::{SnapshotRef, SnapshotSource, Tags};
use hearth_providers::readiness::{wait_ready, warm_up};
use hearth_providers::{SnapshotId, VmId, VmRuntimeError, VmSpec};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::jobs::Class;
use crate::manager::Manager;
use crate::operations::{Outcome, Target};
use crate::pool::Provider;
use crate::templates::{History, Template, TemplateSnapshot, TemplateState};

/// How long one warm-up request may take.
pub(crate) const WARM_UP_TIMEOUT: Duration = Duration::from_secs(30);

impl Manager {
    /// Makes a template, or its next generation when `id` exists and `replaces` is set. Answers
    /// the id of the operation; the template is there at once, BUILDING.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for its provider; those of its spec; `Storage`.
    pub async fn create_template(
        self: &Arc<Self>,
        template: Template,
        replaces: bool,
    ) -> Result<String> {
        self.check_template(&template)?;
        let _turn = self.turn_to_change().await?;
        match (self.history(&template.id), replaces) {
            (Ok(_), false) => {
                let (kind, name) = (Kind::Template, template.id.to_string());
                Err(Error::AlreadyExists { kind, name })
            }
            (Ok(former), true) => {
                // What is ready stays in use until the new generation is.
                if former.is_building() {
                    let (template, reason) = (template.id.to_string(), "it is being built");
                    let (reason, retry_after) = (reason.to_owned(), Some(Duration::from_secs(1)));
                    return Err(Error::TemplateNotReady { template, reason, retry_after });
                }
                self.check_generation(&template)?;
                self.begin_build(template, Some(former), "UpdateTemplate").await
            }
            (Err(error), true) => Err(error),
            (Err(_), false) => self.begin_build(template, None, "CreateTemplate").await,
        }
    }

    /// Begins to make a generation of what there is, or the first; answers the id of the operation. The
    /// caller has the turn.
    ///
    /// # Errors
    /// `NotFound` for its provider; `Storage`, and nothing has begun.
    pub(crate) async fn begin_build(
        self: &Arc<Self>,
        recipe: Template,
        former: Option<History>,
        verb: &'static str,
    ) -> Result<String> {
        let now = Some(self.env.now());
        let template = Template {
            provider: self.provider(&recipe.provider)?.name.to_string(),
            generation: former.as_ref().map_or(1, History::next_generation),
            state: TemplateState::Building,
            snapshot: None,
            etag: self.env.uid().to_string(),
            create_time: former.as_ref().map_or(now, |it| it.written().create_time),
            update_time: now,
            ..recipe
        };
        let target = Target::Template(template.id.clone());
        let id = self.operations().begin(verb, target, &template.etag, None)?;
        match former {
            None => {
                if let Err(error) = self.publish(History::new(template.clone())).await {
                    self.operations().discard(&id);
                    return Err(error);
                }
            }
            Some(former) => drop(self.show(former.begin(&template))),
        }
        let (manager, operation) = (Arc::clone(self), id.clone());
        let (name, generation) = (template.id.as_str(), template.generation);
        let span = tracing::debug_span!("build", template = name, generation);
        self.tasks.spawn_part(span, async move { manager.build(template, operation).await });
        Ok(id)
    }

    /// Refuses a template that could never be made.
    ///
    /// # Errors
    /// `NotFound` for its provider; `InvalidArgument`; those of its spec.
    pub fn check_template(&self, template: &Template) -> Result<()> {
        use hearth_providers::readiness::{MAX_MARKER_BYTES, Readiness};
        let provider = self.provider(&template.provider)?;
        let capabilities = provider.runtime.capabilities();
        template.spec.check()?;
        let refuse = |field: &str, why: &str| Err(Error::invalid(field, why));
        match &template.readiness {
            Readiness::ConsoleMarker(_) if !capabilities.console => {
                refuse("readiness", "this provider has no console")
            }
            Readiness::ConsoleMarker(marker)
                if marker.is_empty() || marker.len() > MAX_MARKER_BYTES =>
            {
                refuse("readiness.console_marker", "it must have 1 to 256 bytes")
            }
            Readiness::AgentAnswers if !capabilities.guest_channel => {
                refuse("readiness", "this provider has no guest channel")
            }
            _ if template.ready_timeout.is_zero()
                || template.ready_timeout > self.limits.build_timeout =>
            {
                refuse("readiness.timeout", "it must be positive, and within the build's bound")
            }
            _ if !template.warm_up.is_empty() && !capabilities.guest_channel => {
                refuse("warm_up", "this provider has no guest channel")
            }
            _ => Ok(()),
        }
    }

    /// Makes a template of a snapshot that there is already; ready at once.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for its provider; those of pinning the snapshot, and of
    /// [`hearth_providers::VmQuery::snapshot_fits`]; `Storage`.
    pub async fn import_template(
        self: &Arc<Self>,
        mut template: Template,
        source: SnapshotRef,
    ) -> Result<Arc<Template>> {
        let provider = Arc::clone(self.provider(&template.provider)?);
        template.provider = provider.name.to_string();
        let _turn = self.turn_to_change().await?;
        if self.template(&template.id).is_ok() {
            let (kind, name) = (Kind::Template, template.id.to_string());
            return Err(Error::AlreadyExists { kind, name });
        }
        template.generation = 1;
        template.imported = true;
        template.create_time = Some(self.env.now());
        template.update_time = template.create_time;
        template.state = TemplateState::Ready;
        template.etag = self.env.uid().to_string();
        let pin = template.pin();
        let call = move || {
            let view = provider.runtime.pin_snapshot(&source, &pin)?;
            let fits = provider.runtime.snapshot_fits(view.uid);
            fits.inspect_err(|_| drop(provider.runtime.unpin_snapshot(view.uid, &pin)))?;
            Ok(view)
        };
        let limit = self.limits.verb_timeout;
        let view = self.jobs.run(Class::Verb, "pin", limit, call, drop).await?;
        template.snapshot = Some(TemplateSnapshot {
            uid: view.uid,
            vm_uid: view.vm_uid,
            snapshot_id: view.snapshot_id,
            restore_time: None,
        });
        self.publish(History::new(template)).await
    }

    async fn build(self: Arc<Self>, template: Template, operation: String) {
        let made = self.make_snapshot(&template, &operation).await;
        let _turn = self.control.lock().await;
        let template = Template { update_time: Some(self.env.now()), ..template };
        let outcome = match made {
            Ok(snapshot) => match self.finish_build(template, snapshot).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(Arc::new(error)),
            },
            Err(error) => {
                self.note_failure(template, &error).await;
                Outcome::Failed(Arc::new(error))
            }
        };
        self.operations().end(&operation, outcome);
    }

    /// Makes what was built the current generation.
    async fn finish_build(&self, template: Template, snapshot: TemplateSnapshot) -> Result<()> {
        let history = self.history(&template.id)?;
        let pinned = (snapshot.uid, template.pin());
        let state = TemplateState::Ready;
        // A first one has none before it to go back to.
        let is_proven = history.written().not_ready().is_some();
        let mut template = Template { snapshot: Some(snapshot), state, is_proven, ..template };
        // Somebody went back to an earlier one meanwhile, and what was asked for before is newer still.
        let is_overtaken = history.has_overtaken(&template);
        if is_overtaken {
            template.generation = history.next_generation();
        }
        let written = match self.pin(&template).await {
            Ok(()) => self.publish(history.clone().succeed(template.clone())).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(made) => {
                let generation = made.generation;
                tracing::info!(template = %made.id, generation, "a template is ready");
                if is_overtaken {
                    self.let_go(&made.provider, [pinned].into()).await;
                }
                Ok(())
            }
            Err(error) => {
                // Whether it was written is not known: its snapshot stays until a start knows.
                let reason = format!("it was built, and that could not be written: {error}");
                self.show(history.abandon(&template, reason));
                Err(error)
            }
        }
    }

    /// Writes that a generation could not be made; the one before it stays in use.
    async fn note_failure(&self, template: Template, error: &Error) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let (id, generation) = (template.id.clone(), template.generation);
        tracing::warn!(template = %id, generation, %error, source, "a template could not be built");
        let reason = source.map_or_else(|| error.to_string(), |it| format!("{error}: {it}"));
        let Ok(history) = self.history(&id) else { return };
        let failed = history.clone().fail(template.clone(), reason.clone());
        if let Err(error) = self.publish(failed).await {
            tracing::error!(template = %id, %error, "its failure could not be written");
            self.show(history.abandon(&template, reason));
        }
    }

    /// Boots, waits, warms up, captures and pins; whatever happens no VM is left.
    async fn make_snapshot(
        self: &Arc<Self>,
        template: &Template,
        operation: &str,
    ) -> Result<TemplateSnapshot> {
        let provider = Arc::clone(self.provider(&template.provider)?);
        let (boot_id, prove_id) = (VmId::warm(self.env.uid()), VmId::warm(self.env.uid()));
        let mut spec = template.spec.clone();
        spec.tags = self.tags(None, None);
        let manager = Arc::clone(self);
        let (recipe, names) = (template.clone(), (boot_id.clone(), prove_id.clone()));
        let cancelled = self.operations().cancelled(operation);
        let (maker, operation) = (Arc::clone(&provider), operation.to_owned());
        let call = move || {
            let stage = |stage, percent| manager.operations().progress(&operation, stage, percent);
            capture(&maker, &recipe, &spec, &names.0, &stage).and_then(|snapshot| {
                stage("validate", 80);
                let took = prove(&maker, &recipe, &snapshot, &names.1, spec.tags)?;
                Ok(TemplateSnapshot { restore_time: Some(took), ..snapshot })
            })
        };
        let late = {
            let (manager, template) = (Arc::clone(self), template.clone());
            let (provider, names) = (Arc::clone(&provider), [boot_id.clone(), prove_id.clone()]);
            move |made: Result<TemplateSnapshot, VmRuntimeError>| {
                for vm_id in names {
                    manager.reaper.retire(&provider, vm_id, None);
                }
                if let Ok(snapshot) = made {
                    let unused = [(snapshot.uid, template.pin())].into();
                    let of = template.provider;
                    let letting_go = Arc::clone(&manager);
                    manager.tasks.spawn(async move { letting_go.let_go(&of, unused).await });
                }
            }
        };
        let limit = self.limits.build_timeout;
        let made = tokio::select! {
            // What is done is done.
            biased;
            made = self.jobs.run(Class::Build, "build", limit, call, late) => made.map_err(Error::from),
            // The end of its VMs ends what waits for them.
            () = cancelled.cancelled() => Err(Error::Cancelled),
        };
        // The template's VM has done its work, and the proof too; on failure there may be less.
        self.reaper.retire(&provider, boot_id, None);
        self.reaper.retire(&provider, prove_id, None);
        made
    }
}

/// Boots the template's VM and captures it when it is ready.
fn capture(
    provider: &Provider,
    template: &Template,
    spec: &VmSpec,
    vm_id: &VmId,
    stage: &dyn Fn(&'static str, u32),
) -> Result<TemplateSnapshot, VmRuntimeError> {
    let runtime = provider.runtime.as_ref();
    stage("boot", 5);
    runtime.create_vm_with_spec(vm_id, spec)?;
    runtime.start_vm(vm_id)?;
    stage("wait until ready", 20);
    wait_ready(runtime, vm_id, &template.readiness, template.ready_timeout)?;
    stage("warm up", 50);
    warm_up(runtime, vm_id, &template.warm_up, WARM_UP_TIMEOUT)?;
    stage("snapshot", 60);
    let snapshot_id = SnapshotId::parse(&format!("generation-{}", template.generation))?;
    if runtime.capabilities().snapshot_running == RunningSnapshot::StopRequired {
        runtime.stop_vm(vm_id)?;
    }
    runtime.snapshot_vm(vm_id, &snapshot_id)?;
    let taken = reference(SnapshotSource::Name(vm_id.clone()), &snapshot_id, false);
    let view = runtime.pin_snapshot(&taken, &template.pin())?;
    Ok(TemplateSnapshot { uid: view.uid, vm_uid: view.vm_uid, snapshot_id, restore_time: None })
}

/// Restores a throw-away VM: what cannot be restored is no template. Answers how long it took.
fn prove(
    provider: &Provider,
    template: &Template,
    snapshot: &TemplateSnapshot,
    vm_id: &VmId,
    tags: Tags,
) -> Result<Duration, VmRuntimeError> {
    let runtime = provider.runtime.as_ref();
    let begun = Instant::now();
    let source = SnapshotSource::VmUid(snapshot.vm_uid);
    let restore_from = Some(reference(source, &snapshot.snapshot_id, true));
    let spec = VmSpec { restore_from, tags, ..VmSpec::default() };
    let restored = runtime
        .create_vm_with_spec(vm_id, &spec)
        .and_then(|()| template.wait_restored(runtime, vm_id, template.ready_timeout));
    if let Err(error) = restored {
        let _ = runtime.unpin_snapshot(snapshot.uid, &template.pin());
        return Err(error);
    }
    Ok(begun.elapsed())
}

fn reference(source: SnapshotSource, snapshot_id: &SnapshotId, resume: bool) -> SnapshotRef {
    SnapshotRef {
        source,
        snapshot_id: snapshot_id.clone(),
        resume_immediately: resume,
        network_overrides: Vec::new(),
    }
}
