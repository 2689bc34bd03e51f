//! Makes templates: cold boot, ready, warm up, snapshot, and a throw-away VM that proves it.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::capabilities::RunningSnapshot;
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::readiness::{wait_ready, warm_up};
use hearth_providers::{SnapshotId, Uid, VmId, VmRuntimeError, VmSpec};

use crate::error::{Error, Kind, Result};
use crate::ids::TemplateId;
use crate::jobs::Class;
use crate::journal::Control;
use crate::manager::{Manager, UNTIL_KNOWN};
use crate::operations::{Outcome, Target};
use crate::pool::Provider;
use crate::templates::{Template, TemplateSnapshot, TemplateState};

/// How long one warm-up request may take.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(30);

impl Manager {
    /// Makes a template, or its next generation when `id` exists and `replaces` is set. Answers
    /// the id of the operation; the template is there at once, BUILDING.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for its provider; those of its spec; `Storage`.
    pub async fn create_template(
        self: &Arc<Self>,
        mut template: Template,
        replaces: bool,
    ) -> Result<String> {
        self.check_template(&template)?;
        let _turn = self.control.lock().await;
        match (self.template(&template.id), replaces) {
            (Ok(_), false) => {
                let (kind, name) = (Kind::Template, template.id.to_string());
                return Err(Error::AlreadyExists { kind, name });
            }
            (Ok(former), true) => {
                // What is ready stays in use until the new generation is.
                if former.state == TemplateState::Building {
                    return Err(former.refusal().unwrap_or(Error::Starting));
                }
                self.check_generation(&template)?;
                template.generation = former.generation + 1;
            }
            (Err(error), true) => return Err(error),
            (Err(_), false) => template.generation = 1,
        }
        template.state = TemplateState::Building;
        template.snapshot = None;
        template.etag = self.env.uid().to_string();
        let verb = if replaces { "UpdateTemplate" } else { "CreateTemplate" };
        let target = Target::Template(template.id.clone());
        let id = self.operations().begin(verb, target, &template.etag)?;
        if template.generation == 1
            && let Err(error) = self.publish_template(template.clone()).await
        {
            self.operations().discard(&id);
            return Err(error);
        }
        let (manager, operation) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move { manager.build(template, operation).await });
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
    /// `AlreadyExists`; `NotFound` for its provider; those of pinning the snapshot; `Storage`.
    pub async fn import_template(
        self: &Arc<Self>,
        mut template: Template,
        source: SnapshotRef,
    ) -> Result<Arc<Template>> {
        let provider = Arc::clone(self.provider(&template.provider)?);
        template.provider.clone_from(&provider.name);
        let _turn = self.control.lock().await;
        if self.template(&template.id).is_ok() {
            let (kind, name) = (Kind::Template, template.id.to_string());
            return Err(Error::AlreadyExists { kind, name });
        }
        template.generation = 1;
        template.imported = true;
        template.state = TemplateState::Ready;
        template.etag = self.env.uid().to_string();
        let pin = template.pin();
        let call = move || provider.runtime.pin_snapshot(&source, &pin);
        let limit = self.limits.verb_timeout;
        let view = self.jobs.run(Class::Verb, "pin", limit, call, drop).await?;
        template.snapshot = Some(TemplateSnapshot {
            uid: view.uid,
            vm_uid: view.vm_uid,
            snapshot_id: view.snapshot_id,
        });
        self.publish_template(template).await
    }

    async fn build(self: Arc<Self>, mut template: Template, operation: String) {
        template.provider = match self.provider(&template.provider) {
            Ok(provider) => provider.name.clone(),
            Err(_) => template.provider,
        };
        let made = self.make_snapshot(&template, &operation).await;
        let _turn = self.control.lock().await;
        let outcome = match made {
            Ok(snapshot) => {
                template.snapshot = Some(snapshot);
                template.state = TemplateState::Ready;
                let (id, generation) = (template.id.clone(), template.generation);
                tracing::info!(template = %id, generation, "a template is ready");
                match self.publish_template(template).await {
                    Ok(_) => Outcome::Done,
                    Err(error) => Outcome::Failed(Arc::new(error)),
                }
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let id = template.id.clone();
                tracing::warn!(template = %id, %error, source, "a template could not be built");
                let reason =
                    source.map_or_else(|| error.to_string(), |it| format!("{error}: {it}"));
                // A generation that failed leaves the one before it in use.
                if template.generation == 1 {
                    template.state = TemplateState::Failed(reason);
                    if let Err(error) = self.publish_template(template).await {
                        tracing::error!(template = %id, %error, "its failure could not be written");
                    }
                }
                Outcome::Failed(Arc::new(error))
            }
        };
        self.operations().end(&operation, outcome);
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
        let (maker, operation) = (Arc::clone(&provider), operation.to_owned());
        let call = move || {
            let stage = |stage, percent| manager.operations().progress(&operation, stage, percent);
            capture(&maker, &recipe, &spec, &names.0, &stage).and_then(|snapshot| {
                stage("validate", 80);
                prove(&maker, &recipe, &snapshot, &names.1, spec.tags)?;
                Ok(snapshot)
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
                    let unused = Template { snapshot: Some(snapshot), ..template };
                    Arc::clone(&manager).tasks.spawn(async move { manager.unpin(&unused).await });
                }
            }
        };
        let limit = self.limits.build_timeout;
        let made = self.jobs.run(Class::Build, "build", limit, call, late).await;
        // The template's VM has done its work, and the proof too; on failure there may be less.
        self.reaper.retire(&provider, boot_id, None);
        self.reaper.retire(&provider, prove_id, None);
        Ok(made?)
    }

    /// Journals a template and lets everybody see it; pools that restore from it follow.
    pub(crate) async fn publish_template(&self, template: Template) -> Result<Arc<Template>> {
        let former = self.template(&template.id).ok();
        let journal = Arc::clone(&self.journal);
        let written = template.clone();
        let call =
            move || Ok(journal.write_control(Control::Template, written.id.as_str(), &written));
        self.jobs.run(Class::Verb, "journal", UNTIL_KNOWN, call, drop).await??;
        let template = Arc::new(template);
        self.templates.write().insert(template.id.clone(), Arc::clone(&template));
        for pool in self.pools_of(&template.id) {
            pool.set_template(Arc::clone(&template));
        }
        if let Some(former) = former.filter(|former| former.generation != template.generation) {
            self.unpin(&former).await;
        }
        Ok(template)
    }

    /// Lets go of the snapshot of a generation that is not used any more.
    pub(crate) async fn unpin(&self, former: &Template) {
        let Some(snapshot) = former.snapshot.clone() else { return };
        let Ok(provider) = self.provider(&former.provider).cloned() else { return };
        let pin = former.pin();
        let call = move || provider.runtime.unpin_snapshot(snapshot.uid, &pin);
        let limit = self.limits.verb_timeout;
        if let Err(error) = self.jobs.run(Class::Verb, "unpin", limit, call, drop).await {
            tracing::warn!(template = %former.id, %error, "an old snapshot could not be let go");
        }
    }

    pub(crate) fn pools_of(&self, template: &TemplateId) -> Vec<Arc<crate::pool::Pool>> {
        self.pools().into_iter().filter(|pool| pool.config().template == *template).collect()
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
    stage("ready", 20);
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
    Ok(TemplateSnapshot { uid: view.uid, vm_uid: view.vm_uid, snapshot_id })
}

/// Restores a throw-away VM: what cannot be restored is no template.
fn prove(
    provider: &Provider,
    template: &Template,
    snapshot: &TemplateSnapshot,
    vm_id: &VmId,
    tags: std::collections::BTreeMap<String, String>,
) -> Result<Uid, VmRuntimeError> {
    let runtime = provider.runtime.as_ref();
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
    Ok(snapshot.uid)
}

fn reference(source: SnapshotSource, snapshot_id: &SnapshotId, resume: bool) -> SnapshotRef {
    SnapshotRef {
        source,
        snapshot_id: snapshot_id.clone(),
        resume_immediately: resume,
        network_overrides: Vec::new(),
    }
}
