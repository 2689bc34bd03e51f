//! Beginning again where a frozen VM stood.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::{Uid, VmId, VmRuntimeError, VmSpec};

use super::{Artifact, freezer_of};
use crate::acquire::Acquired;
use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, RequestId, TemplateId, Tenant};
use crate::manager::Manager;
use crate::requests::Fingerprint;
use crate::verbs::CreateRequest;

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
    pub request_id: Option<RequestId>,
}

impl Manager {
    /// Starts a VM from an artifact; from its template where the artifact's data is gone.
    ///
    /// # Errors
    /// `NotFound` when there is neither; `Unsupported` when it was made by a kind of provider that
    /// nothing is known of; as for [`Self::create_vm`].
    ///
    /// # Cancel safety
    /// As for [`Self::create_vm`].
    pub async fn resume_vm(self: &Arc<Self>, request: ResumeRequest) -> Result<Acquired> {
        let scope = (!request.is_operator).then_some(&request.tenant);
        let artifact = match &request.source {
            ResumeSource::Artifact(id) => self.artifact(id, scope)?,
            ResumeSource::Vm(vm_id, uid) => self.latest_artifact(vm_id, *uid, scope)?,
        };
        freezer_of(&artifact.kind)?;
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
}
