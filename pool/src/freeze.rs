//! Frozen VMs: artifacts, how they are made, kept and resumed.
//!
//! Invariants:
//! - An artifact is what the journal says is one: its record is written last. What a provider
//!   pins for an artifact that no record has is undone at the next start, so that a crash leaves
//!   a whole artifact or none.
//! - An artifact goes in the opposite order: first its record, then what the provider keeps.
//! - The tenant's VM goes on while it is frozen, and is none the worse when that fails.

mod artifacts;
mod export;
mod resume;
mod settle;
mod subject;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::freeze::{self, Freezer, Frozen};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::{Uid, VmId, VmRuntimeError};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, TemplateId, Tenant};
use crate::jobs::Class;
use crate::manager::Manager;
use crate::operations::{Outcome, Target};
use crate::pool::Provider;
use crate::templates::TemplateSnapshot;
pub(crate) use artifacts::Artifacts;
pub use resume::{ResumeRequest, ResumeSource};
use subject::Subject;

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

/// What a freeze under way makes.
struct Plan {
    id: ArtifactId,
    uid: Uid,
    freezer: Freezer,
    allow_stop: bool,
    ttl: Duration,
}

impl Manager {
    /// Begins to freeze a VM, and answers the id of the operation: one that a tenant has or, asked by
    /// an operator, one that a provider has and no record of ours mentions. What a record would have
    /// said of that is blank in its artifact.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; `AlreadyExists` for the artifact; `StopRequired`
    /// where the provider has to stop the VM and may not; `Exhausted` past the quota.
    ///
    /// # Cancel safety
    /// A dropped future has changed nothing, or leaves the operation to run to its end.
    pub async fn freeze_vm(self: &Arc<Self>, request: FreezeRequest) -> Result<String> {
        self.check_serving()?;
        let subject = self.subject(&request)?;
        let freezer = freezer_of(&subject.provider().kind)?;
        if subject.must_stop() && !request.allow_stop {
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
        let is_taken = || self.artifacts.read().has(&id);
        if is_taken() || self.operations().is_under_way(&Target::Artifact(id.clone())) {
            return Err(Error::AlreadyExists { kind: Kind::Artifact, name: id.to_string() });
        }
        self.check_artifact_bytes(0)?;
        let target = Target::Artifact(id.clone());
        let owner = Some(subject.tenant());
        let operation = self.operations().begin("FreezeVm", target, uid.to_string(), owner)?;
        let (manager, begun) = (Arc::clone(self), operation.clone());
        let plan = Plan { id, uid, freezer, allow_stop: request.allow_stop, ttl };
        let span = tracing::debug_span!("freeze", artifact = plan.id.as_str());
        self.tasks.spawn_part(span, async move {
            let outcome = match manager.freeze(&subject, plan, &begun).await {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    tracing::warn!(vm = %subject.vm_id(), %error, "a VM could not be frozen");
                    Outcome::Failed(Arc::new(error))
                }
            };
            manager.operations().end(&begun, outcome);
        });
        Ok(operation)
    }

    async fn freeze(&self, subject: &Subject, plan: Plan, operation: &str) -> Result<()> {
        self.operations().progress(operation, "capture", 10);
        let Plan { id, uid, freezer, allow_stop, ttl } = plan;
        let snapshot_id = freeze::snapshot_id(uid)?;
        let (held, artifact) = (subject.clone(), id.clone());
        let call = move || {
            let (runtime, vm_id) = (&*held.provider().runtime, held.vm_id());
            freezer.freeze(runtime, &vm_id, &snapshot_id, artifact.as_str(), allow_stop)
        };
        // An answer that comes too late is of an artifact that nobody will know.
        let (late_provider, late_id) = (Arc::clone(subject.provider()), id.clone());
        let late = move |frozen: Result<Frozen, VmRuntimeError>| {
            if let Ok(frozen) = frozen {
                undo(&late_provider, &frozen, late_id.as_str());
            }
        };
        let limit = self.limits.freeze_timeout;
        // A capture goes on to its end, for the VM's sake; then it is undone if nobody wants it.
        let cancelled = self.operations().cancelled(operation);
        if cancelled.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let frozen = self.jobs.run(Class::Build, "freeze", limit, call, late).await?;
        self.operations().progress(operation, "record", 90);
        let now = self.env.now();
        let record = Artifact {
            uid,
            provider: subject.provider().name.to_string(),
            kind: freezer.kind().to_owned(),
            reference: frozen.reference.clone(),
            snapshot: TemplateSnapshot {
                restore_time: None,
                uid: frozen.snapshot.uid,
                vm_uid: frozen.snapshot.vm_uid,
                snapshot_id: frozen.snapshot.snapshot_id.clone(),
            },
            vm_id: subject.vm_id(),
            tenant: subject.tenant(),
            template: subject.template(),
            has_memory: frozen.snapshot.has_memory,
            size_bytes: frozen.snapshot.size_bytes,
            resume_hint: freezer.resume_hint(id.as_str()),
            export_hint: freezer.export_hint(&frozen, id.as_str()),
            create_time: now,
            expire_time: now + ttl,
            id: id.clone(),
        };
        let _turn = self.control.lock().await;
        let kept = match self.check_artifact_bytes(record.size_bytes) {
            Ok(()) if cancelled.is_cancelled() => Err(Error::Cancelled),
            Ok(()) => self.keep_artifact(record).await,
            refused => refused,
        };
        if kept.is_err() {
            let (provider, artifact) = (Arc::clone(subject.provider()), id.to_string());
            let call = move || {
                undo(&provider, &frozen, &artifact);
                Ok(())
            };
            let limit = self.limits.verb_timeout;
            let _ = self.jobs.run(Class::Verb, "undo a freeze", limit, call, drop).await;
        }
        kept
    }
}

fn freezer_of(kind: &str) -> Result<Freezer> {
    Freezer::of(kind).map_err(|unknown| {
        Error::Provider(VmRuntimeError::Unsupported { what: unknown.to_string() })
    })
}

fn undo(provider: &Provider, frozen: &Frozen, artifact: &str) {
    let snapshot = &frozen.snapshot;
    let of = (snapshot.uid, &snapshot.snapshot_id);
    if let Err(error) = freeze::undo(&*provider.runtime, of, snapshot.vm_uid, artifact) {
        tracing::warn!(artifact, %error, "a freeze that failed could not be undone");
    }
}
