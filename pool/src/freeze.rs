//! Frozen VMs: artifacts, how they are made, kept and resumed.
//!
//! Invariants:
//! - An artifact is what the journal says is one: its record is written last. What a provider
//!   pins for an artifact that no record has is undone at the next start, so that a crash leaves
//!   a whole artifact or none.
//! - An artifact goes in the opposite order: first its record, then what the provider keeps.
//! - The tenant's VM goes on while it is frozen, and is none the worse when that fails.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::capabilities::RunningSnapshot;
use hearth_providers::freeze::{self, Freezer, Frozen};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::{Uid, VmId, VmRuntimeError, VmSpec, VmStatus};
use serde::{Deserialize, Serialize};

use crate::acquire::Acquired;
use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, TemplateId, Tenant};
use crate::jobs::Class;
use crate::journal::Control;
use crate::lease::Lease;
use crate::manager::Manager;
use crate::operations::{Outcome, Target};
use crate::pool::Provider;
use crate::requests::Fingerprint;
use crate::templates::TemplateSnapshot;
use crate::verbs::CreateRequest;

/// How often it is looked whether an artifact's time is up.
const EXPIRY_PERIOD: Duration = Duration::from_secs(1);
/// The longest time that an artifact may be kept.
pub const MAX_ARTIFACT_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// A frozen VM, as it is journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub id: ArtifactId,
    /// Its identity for ever.
    pub uid: Uid,
    /// The configured provider that made it.
    pub provider: String,
    /// That provider's kind; empty in records of the first age, which means docker.
    #[serde(default)]
    pub kind: String,
    /// How the backend calls it.
    pub reference: String,
    /// The snapshot that holds it.
    pub snapshot: TemplateSnapshot,
    /// What the VM was called.
    pub vm_id: VmId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The template that a resume falls back to, and its generation.
    pub template: Option<(TemplateId, i64)>,
    /// Memory is in it.
    pub has_memory: bool,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// A command that resumes it.
    pub resume_hint: String,
    /// A command that takes it elsewhere; empty: none.
    pub export_hint: String,
    /// When it was made, by the wall clock.
    pub create_time: SystemTime,
    /// When it goes, by the wall clock.
    pub expire_time: SystemTime,
}

/// A VM to be frozen.
#[derive(Clone, Debug)]
pub struct FreezeRequest {
    /// Its name.
    pub vm_id: VmId,
    /// The uid that it must have.
    pub uid: Option<Uid>,
    /// Who asks; `None`: an operator.
    pub tenant: Option<Tenant>,
    /// What to call the artifact; unset: any.
    pub artifact_id: Option<ArtifactId>,
    /// The VM may be stopped for it.
    pub allow_stop: bool,
    /// How long to keep it.
    pub ttl: Option<Duration>,
}

/// What to resume.
#[derive(Clone, Debug)]
pub enum ResumeSource {
    /// This artifact.
    Artifact(ArtifactId),
    /// The latest artifact of a VM of this name, of this uid if it is given.
    Vm(VmId, Option<Uid>),
}

/// A VM to be resumed.
#[derive(Clone, Debug)]
pub struct ResumeRequest {
    /// From what.
    pub source: ResumeSource,
    /// Who asks.
    pub tenant: Tenant,
    /// Asked by an operator, who may resume anybody's.
    pub is_operator: bool,
    /// What to call it; unset: as it was called, if that name is free.
    pub vm_id: Option<VmId>,
    /// How long it may live.
    pub ttl: Option<Duration>,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// The caller's name for this request.
    pub request_id: Option<String>,
}

impl Artifact {
    fn reference(&self) -> SnapshotRef {
        SnapshotRef {
            source: SnapshotSource::VmUid(self.snapshot.vm_uid),
            snapshot_id: self.snapshot.snapshot_id.clone(),
            resume_immediately: true,
            network_overrides: Vec::new(),
        }
    }

    fn is_seen_by(&self, tenant: Option<&Tenant>) -> bool {
        tenant.is_none_or(|tenant| self.tenant == *tenant)
    }

    fn missing(id: &ArtifactId) -> Error {
        Error::NotFound { kind: Kind::Artifact, name: id.to_string() }
    }
}

/// Every artifact, found by its name, by the VM that it was made of and by its snapshot.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    by_id: BTreeMap<ArtifactId, Arc<Artifact>>,
    latest_by_vm: HashMap<Uid, ArtifactId>,
    by_snapshot: HashMap<Uid, ArtifactId>,
}

impl Artifacts {
    fn insert(&mut self, artifact: Artifact) {
        let (id, snapshot) = (artifact.id.clone(), artifact.snapshot.clone());
        self.by_id.insert(id.clone(), Arc::new(artifact));
        self.by_snapshot.insert(snapshot.uid, id);
        self.note_latest(snapshot.vm_uid);
    }

    fn remove(&mut self, id: &ArtifactId) {
        if let Some(artifact) = self.by_id.remove(id) {
            self.by_snapshot.remove(&artifact.snapshot.uid);
            self.note_latest(artifact.snapshot.vm_uid);
        }
    }

    fn note_latest(&mut self, vm_uid: Uid) {
        let of_it = self.by_id.values().filter(|artifact| artifact.snapshot.vm_uid == vm_uid);
        match of_it.max_by_key(|artifact| artifact.create_time) {
            Some(latest) => drop(self.latest_by_vm.insert(vm_uid, latest.id.clone())),
            None => drop(self.latest_by_vm.remove(&vm_uid)),
        }
    }
}

impl Manager {
    /// Begins to freeze a VM that a tenant has; answers the id of the operation.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; `AlreadyExists` for the artifact; `StopRequired`
    /// where the provider has to stop the VM and may not; `Exhausted` past the quota.
    ///
    /// # Cancel safety
    /// A dropped future has changed nothing, or leaves the operation to run to its end.
    pub async fn freeze_vm(self: &Arc<Self>, request: FreezeRequest) -> Result<String> {
        self.check_serving()?;
        let lease = self.lease_of(&request.vm_id, request.uid, request.tenant.as_ref())?;
        let freezer = Freezer::of(&lease.provider.kind)
            .map_err(|unknown| Error::Provider(unsupported(unknown.to_string())))?;
        let must_stop = lease.provider.runtime.capabilities().snapshot_running
            == RunningSnapshot::StopRequired
            && lease.provider.runtime.status(&request.vm_id) == Some(VmStatus::Running);
        if must_stop && !request.allow_stop {
            let vm_id = request.vm_id;
            return Err(Error::Provider(VmRuntimeError::StopRequired { vm_id }));
        }
        let ttl = request.ttl.unwrap_or(self.limits.artifact_ttl);
        if ttl.is_zero() || ttl > MAX_ARTIFACT_TTL {
            return Err(Error::invalid("ttl", "it must be positive and at most 365 days"));
        }
        let _turn = self.control.lock().await;
        let uid = self.env.uid();
        let fresh = || ArtifactId::parse(&uid.to_string()).ok();
        let id = request.artifact_id.or_else(fresh);
        let id = id.ok_or_else(|| Error::Internal("a uid is an id".to_owned()))?;
        let is_taken = || self.artifacts.read().by_id.contains_key(&id);
        if is_taken() || self.operations().is_under_way(&Target::Artifact(id.clone())) {
            return Err(Error::AlreadyExists { kind: Kind::Artifact, name: id.to_string() });
        }
        self.check_artifact_bytes(0)?;
        let operation = self.operations().begin("FreezeVm", Target::Artifact(id.clone()));
        let (manager, begun) = (Arc::clone(self), operation.clone());
        let allow_stop = request.allow_stop;
        self.tasks.spawn(async move {
            let frozen = manager.freeze(&lease, freezer, (id, uid), allow_stop, ttl, &begun).await;
            let outcome = match frozen {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    tracing::warn!(vm = %lease.held().vm_id, %error, "a VM could not be frozen");
                    Outcome::Failed(Arc::new(error))
                }
            };
            manager.operations().end(&begun, outcome);
        });
        Ok(operation)
    }

    async fn freeze(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        freezer: Freezer,
        (id, uid): (ArtifactId, Uid),
        allow_stop: bool,
        ttl: Duration,
        operation: &str,
    ) -> Result<()> {
        self.operations().progress(operation, "capture", 10);
        let snapshot_id = freeze::snapshot_id(uid)?;
        let (held, artifact) = (Arc::clone(lease), id.clone());
        let call = move || {
            let (runtime, vm_id) = (&*held.provider.runtime, held.held().vm_id);
            freezer.freeze(runtime, &vm_id, &snapshot_id, artifact.as_str(), allow_stop)
        };
        // An answer that comes too late is of an artifact that nobody will know.
        let (late_lease, late_id) = (Arc::clone(lease), id.clone());
        let late = move |frozen: Result<Frozen, VmRuntimeError>| {
            if let Ok(frozen) = frozen {
                undo(&late_lease.provider, &frozen, late_id.as_str());
            }
        };
        let limit = self.limits.freeze_timeout;
        let frozen = self.jobs.run(Class::Build, "freeze", limit, call, late).await?;
        self.operations().progress(operation, "record", 90);
        let now = self.env.now();
        let record = Artifact {
            uid,
            provider: lease.provider.name.clone(),
            kind: freezer.kind().to_owned(),
            reference: frozen.reference.clone(),
            snapshot: TemplateSnapshot {
                uid: frozen.snapshot.uid,
                vm_uid: frozen.snapshot.vm_uid,
                snapshot_id: frozen.snapshot.snapshot_id.clone(),
            },
            vm_id: lease.held().vm_id,
            tenant: lease.tenant.clone(),
            template: lease.template.clone(),
            has_memory: frozen.snapshot.has_memory,
            size_bytes: frozen.snapshot.size_bytes,
            resume_hint: freezer.resume_hint(id.as_str()),
            export_hint: freezer.export_hint(&frozen),
            create_time: now,
            expire_time: now + ttl,
            id: id.clone(),
        };
        let _turn = self.control.lock().await;
        let kept = match self.check_artifact_bytes(record.size_bytes) {
            Ok(()) => self.keep_artifact(record).await,
            refused => refused,
        };
        if kept.is_err() {
            let (provider, artifact) = (Arc::clone(&lease.provider), id.to_string());
            let call = move || {
                undo(&provider, &frozen, &artifact);
                Ok(())
            };
            let limit = self.limits.verb_timeout;
            let _ = self.jobs.run(Class::Verb, "undo a freeze", limit, call, drop).await;
        }
        kept
    }

    /// Journals an artifact and lets everybody see it.
    async fn keep_artifact(&self, artifact: Artifact) -> Result<()> {
        let (journal, written) = (Arc::clone(&self.journal), artifact.clone());
        let call =
            move || Ok(journal.write_control(Control::Artifact, written.id.as_str(), &written));
        self.jobs.run(Class::Verb, "journal", self.limits.verb_timeout, call, drop).await??;
        tracing::info!(artifact = %artifact.id, vm = %artifact.vm_id, "a VM is frozen");
        self.artifacts.write().insert(artifact);
        Ok(())
    }

    fn check_artifact_bytes(&self, more: u64) -> Result<()> {
        let used: u64 = self.artifacts.read().by_id.values().map(|it| it.size_bytes).sum();
        let most = self.limits.max_artifact_bytes;
        match used.saturating_add(more) > most || used >= most {
            false => Ok(()),
            true => Err(Error::Provider(VmRuntimeError::Exhausted {
                what: format!("the quota of {most} bytes for artifacts, of which {used} are used,"),
                retry_after: None,
            })),
        }
    }

    /// Every artifact that `tenant` may see, sorted by name.
    pub fn artifacts(&self, tenant: Option<&Tenant>) -> Vec<Arc<Artifact>> {
        let artifacts = self.artifacts.read();
        artifacts.by_id.values().filter(|artifact| artifact.is_seen_by(tenant)).cloned().collect()
    }

    /// One artifact.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn artifact(&self, id: &ArtifactId, tenant: Option<&Tenant>) -> Result<Arc<Artifact>> {
        let found = self.artifacts.read().by_id.get(id).cloned();
        let found = found.filter(|artifact| artifact.is_seen_by(tenant));
        found.ok_or_else(|| Artifact::missing(id))
    }

    /// The last artifact that was made of this instance.
    pub fn artifact_of(&self, vm_uid: Uid) -> Option<ArtifactId> {
        self.artifacts.read().latest_by_vm.get(&vm_uid).cloned()
    }

    /// The artifact that holds this snapshot, which VMs that run from it were restored from.
    pub fn artifact_by_snapshot(&self, snapshot: Uid) -> Option<ArtifactId> {
        self.artifacts.read().by_snapshot.get(&snapshot).cloned()
    }

    /// Deletes an artifact, and what the provider keeps for it.
    ///
    /// # Errors
    /// `NotFound`, also when it has another uid; `InUse` while a VM runs from it; `Storage`, and
    /// nothing has changed.
    pub async fn delete_artifact(
        &self,
        id: &ArtifactId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<()> {
        let _turn = self.control.lock().await;
        let artifact = self.artifact(id, tenant)?;
        if uid.is_some_and(|uid| uid != artifact.uid) {
            return Err(Artifact::missing(id));
        }
        if let Some(user) = self.user_of(&artifact) {
            let (kind, name) = (Kind::Artifact, id.to_string());
            return Err(Error::InUse { kind, name, by: user });
        }
        let (journal, forgotten) = (Arc::clone(&self.journal), id.clone());
        let call = move || Ok(journal.forget_control(Control::Artifact, forgotten.as_str()));
        self.jobs.run(Class::Verb, "journal", self.limits.verb_timeout, call, drop).await??;
        self.artifacts.write().remove(id);
        // Should this fail, the next start finds what no record has.
        let provider = self.provider(&artifact.provider).ok().cloned();
        let (ended, limit) = (Arc::clone(&artifact), self.limits.verb_timeout);
        let call = move || match provider {
            None => Ok(()),
            Some(provider) => freeze::undo(
                &*provider.runtime,
                (ended.snapshot.uid, &ended.snapshot.snapshot_id),
                ended.snapshot.vm_uid,
                ended.id.as_str(),
            ),
        };
        if let Err(error) = self.jobs.run(Class::Verb, "unpin", limit, call, drop).await {
            tracing::warn!(artifact = %id, %error, "what it keeps could not be let go");
        }
        Ok(())
    }

    /// A VM that runs from the artifact.
    fn user_of(&self, artifact: &Artifact) -> Option<String> {
        let provider = self.provider(&artifact.provider).ok()?;
        let snapshot = provider.runtime.snapshot(&artifact.reference()).ok()?;
        snapshot.pinned_by.iter().find(|pin| pin.starts_with("vm:")).cloned()
    }

    /// Starts a VM from an artifact; from its template where the artifact's data is gone.
    ///
    /// # Errors
    /// `NotFound` when there is neither; as for [`Self::create_vm`].
    ///
    /// # Cancel safety
    /// As for [`Self::create_vm`].
    pub async fn resume_vm(self: &Arc<Self>, request: ResumeRequest) -> Result<Acquired> {
        let scope = (!request.is_operator).then_some(&request.tenant);
        let artifact = match &request.source {
            ResumeSource::Artifact(id) => self.artifact(id, scope)?,
            ResumeSource::Vm(vm_id, uid) => self.latest_artifact(vm_id, *uid, scope)?,
        };
        let from_artifact =
            VmSpec { restore_from: Some(artifact.reference()), ..VmSpec::default() };
        let resumed = self.resume_from(&request, &artifact, from_artifact, None).await;
        let Err(Error::Provider(VmRuntimeError::SnapshotNotFound { reason, .. })) = &resumed else {
            return resumed;
        };
        let template = artifact.template.as_ref().and_then(|(id, _)| self.template(id).ok());
        let spec = template.as_ref().and_then(|template| template.restore_spec(true));
        let Some((template, spec)) = template.zip(spec) else { return resumed };
        tracing::warn!(
            artifact = %artifact.id, template = %template.id, reason,
            "an artifact's data is gone: its VM begins anew from its template"
        );
        let of = (template.id.clone(), template.generation);
        self.resume_from(&request, &artifact, spec, Some(of)).await
    }

    async fn resume_from(
        self: &Arc<Self>,
        request: &ResumeRequest,
        artifact: &Artifact,
        spec: VmSpec,
        template: Option<(TemplateId, i64)>,
    ) -> Result<Acquired> {
        // The same for every way in which it may be done: a retry finds what the first call made.
        let fingerprint = Fingerprint::default()
            .part(&"resume")
            .part(&request.source)
            .part(&request.vm_id)
            .part(&request.ttl)
            .part(&request.labels)
            .finish();
        let create = |vm_id: Option<VmId>| CreateRequest {
            tenant: request.tenant.clone(),
            vm_id,
            provider: artifact.provider.clone(),
            spec: spec.clone(),
            ttl: request.ttl,
            labels: request.labels.clone(),
            request_id: request.request_id.clone(),
            validate_only: false,
            template: template.clone(),
            fingerprint: Some(fingerprint),
        };
        let wanted = request.vm_id.clone().unwrap_or_else(|| artifact.vm_id.clone());
        let mut made = self.create_vm(create(Some(wanted))).await;
        let is_taken = matches!(&made, Err(Error::AlreadyExists { kind: Kind::Vm, .. }));
        if is_taken && request.vm_id.is_none() {
            made = self.create_vm(create(None)).await;
        }
        made?.ok_or_else(|| Error::Internal("it was to be made, not checked".to_owned()))
    }

    fn latest_artifact(
        &self,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<Arc<Artifact>> {
        let of_it = |artifact: &Arc<Artifact>| {
            artifact.vm_id == *vm_id && uid.is_none_or(|uid| uid == artifact.snapshot.vm_uid)
        };
        let found = self.artifacts(tenant).into_iter().filter(of_it);
        found.max_by_key(|artifact| artifact.create_time).ok_or_else(|| Error::NotFound {
            kind: Kind::Artifact,
            name: format!("of a VM named {vm_id}"),
        })
    }

    /// Deletes artifacts whose time is up, but for those that a VM runs from.
    pub(crate) async fn expire_artifacts(self: Arc<Self>) {
        while !self.tasks.stopping().is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(EXPIRY_PERIOD) => {}
                () = self.tasks.stopping().cancelled() => return,
            }
            let now = self.env.now();
            for artifact in self.artifacts(None) {
                if artifact.expire_time > now || self.user_of(&artifact).is_some() {
                    continue;
                }
                match self.delete_artifact(&artifact.id, Some(artifact.uid), None).await {
                    Ok(()) => tracing::info!(artifact = %artifact.id, "an artifact has expired"),
                    Err(error) => {
                        tracing::warn!(artifact = %artifact.id, %error, "it could not be deleted");
                    }
                }
            }
        }
    }

    /// Takes up the artifacts of the journal, finishes what a crash left of them, and undoes what
    /// was begun and never recorded.
    pub(crate) async fn recover_artifacts(self: &Arc<Self>) -> Result<()> {
        let (journal, providers) = (Arc::clone(&self.journal), self.providers().to_vec());
        let call = move || {
            let artifacts: Vec<Artifact> = match journal.control(Control::Artifact) {
                Ok(artifacts) => artifacts,
                Err(error) => return Ok(Err(error)),
            };
            providers.iter().for_each(|provider| settle(provider, &artifacts));
            Ok(Ok(artifacts))
        };
        let recovered = self.jobs.run(Class::Verb, "artifacts", Duration::MAX, call, drop);
        for artifact in recovered.await?? {
            self.artifacts.write().insert(artifact);
        }
        Ok(())
    }
}

/// Makes what a provider keeps for artifacts agree with what there is. Blocks.
fn settle(provider: &Provider, artifacts: &[Artifact]) {
    let ours = |artifact: &&Artifact| artifact.provider == provider.name;
    let known: BTreeSet<_> = artifacts
        .iter()
        .filter(ours)
        .map(|artifact| (artifact.snapshot.uid, artifact.id.as_str()))
        .collect();
    for artifact in artifacts.iter().filter(ours) {
        let marked = provider.runtime.preserve_vm(artifact.snapshot.vm_uid, artifact.id.as_str());
        if let Err(error) = marked {
            tracing::warn!(artifact = %artifact.id, %error, "its VM's directory is not marked");
        }
    }
    for snapshot in provider.runtime.all_snapshots() {
        let pinned = freeze::artifacts_of(&snapshot).map(Some);
        // Captured, and not yet pinned.
        let captured = freeze::is_reserved(&snapshot.snapshot_id).then_some(None);
        for artifact in pinned.chain(captured) {
            if known
                .iter()
                .any(|(uid, id)| *uid == snapshot.uid && artifact.is_none_or(|it| it == *id))
            {
                continue;
            }
            let artifact = artifact.unwrap_or_default();
            tracing::info!(artifact, snapshot = %snapshot.uid, "a freeze cut short is undone");
            let of = (snapshot.uid, &snapshot.snapshot_id);
            let undone = freeze::undo(&*provider.runtime, of, snapshot.vm_uid, artifact);
            if let Err(error) = undone {
                tracing::warn!(artifact, %error, "it could not be undone");
            }
        }
    }
}

fn undo(provider: &Provider, frozen: &Frozen, artifact: &str) {
    let snapshot = &frozen.snapshot;
    let of = (snapshot.uid, &snapshot.snapshot_id);
    if let Err(error) = freeze::undo(&*provider.runtime, of, snapshot.vm_uid, artifact) {
        tracing::warn!(artifact, %error, "a freeze that failed could not be undone");
    }
}

fn unsupported(what: String) -> VmRuntimeError {
    VmRuntimeError::Unsupported { what }
}
