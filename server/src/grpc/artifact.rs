//! `ArtifactService`, and the two methods of `VmService` that make and use artifacts.

use std::borrow::Cow;

use hearth_pool::freeze::{Artifact, FreezeRequest, ResumeRequest, ResumeSource};
use hearth_pool::ids::ArtifactId;
use hearth_proto::google::longrunning::Operation;
use hearth_proto::v1;
use hearth_proto::v1::artifact_service_server::ArtifactService;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Services;
use crate::call::{Call, answer};
use crate::check::Fields;
use crate::convert;
use crate::filter::{Field, Filter};
use crate::paging::Page;
use crate::status::Refusal;

type Answer<T> = Result<Response<T>, Status>;

const FILTER: &[Field] = &[Field::Text("vm"), Field::Text("provider"), Field::Text("tenant")];

impl Services {
    pub(super) async fn freeze(
        self,
        call: Call,
        request: v1::FreezeVmRequest,
    ) -> Result<Operation, Refusal> {
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        let ttl = fields.duration("ttl", request.ttl);
        fields.request_id(&request.request_id);
        let artifact_id = match request.artifact_id.as_str() {
            "" => None,
            id => fields.id("artifact_id", id, ArtifactId::parse),
        };
        let vm_id = fields.required(vm_id)?;
        let (tenant, allow_stop) = (call.caller.scope().cloned(), request.allow_stop);
        let request = FreezeRequest { vm_id, uid, tenant, artifact_id, allow_stop, ttl };
        let begun = self.manager.freeze_vm(request).await?;
        Ok(self.operation_to_wire(&self.manager.operations().get(&begun)?))
    }

    pub(super) async fn resume(
        &self,
        call: Call,
        request: v1::ResumeVmRequest,
    ) -> Result<v1::Vm, Refusal> {
        use v1::resume_vm_request::Source as Asked;
        let mut fields = Fields::default();
        let uid = fields.uid("uid", &request.uid);
        let from = match &request.source {
            Some(Asked::Artifact(name) | Asked::Name(name)) => name,
            None => "",
        };
        call.is_about(from, "", &request.request_id);
        let source = match &request.source {
            Some(Asked::Artifact(name)) => {
                fields.artifact("artifact", name).map(ResumeSource::Artifact)
            }
            Some(Asked::Name(name)) => {
                fields.vm("name", name).map(|vm_id| ResumeSource::Vm(vm_id, uid))
            }
            None => {
                fields.wrong("artifact", "an artifact, or the name of a frozen VM, must be given");
                None
            }
        };
        let vm_id = fields.new_vm_id("vm_id", &request.vm_id);
        let ttl = fields.duration("ttl", request.ttl);
        let request_id = fields.request_id(&request.request_id);
        fields.labels(&request.labels);
        let resumed = self.manager.resume_vm(ResumeRequest {
            source: fields.required(source)?,
            tenant: call.caller.tenant.clone(),
            is_operator: call.caller.scope().is_none(),
            vm_id,
            ttl,
            labels: request.labels,
            request_id,
        });
        let lease = resumed.await?.lease;
        let vm = convert::vm::vm(&self.manager.leased_info(&lease), &call.caller);
        call.is_about(&vm.name, &vm.uid, "");
        Ok(vm)
    }

    async fn artifact(
        &self,
        call: Call,
        request: v1::GetArtifactRequest,
    ) -> Result<v1::Artifact, Refusal> {
        let mut fields = Fields::default();
        let id = fields.artifact("name", &request.name);
        let id = fields.required(id)?;
        Ok(convert::vm::artifact(&*self.manager.artifact(&id, call.caller.scope())?))
    }

    async fn artifacts(
        &self,
        call: Call,
        request: v1::ListArtifactsRequest,
    ) -> Result<v1::ListArtifactsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let page = Page::of("artifacts", &request.filter, request.page_size, &request.page_token)?;
        let artifacts = self.manager.artifacts(call.caller.scope()).into_iter();
        let artifacts = artifacts.filter(|it| filter.matches(|field| field_of(it, field)));
        let (artifacts, next_page_token) = page.cut(artifacts, |it| it.id.as_str());
        let artifacts = artifacts.iter().map(|it| convert::vm::artifact(it)).collect();
        Ok(v1::ListArtifactsResponse { artifacts, next_page_token })
    }

    async fn remove_artifact(
        self,
        call: Call,
        request: v1::DeleteArtifactRequest,
    ) -> Result<(), Refusal> {
        let mut fields = Fields::default();
        let id = fields.artifact("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let id = fields.required(id)?;
        Ok(self.manager.delete_artifact(&id, uid, call.caller.scope()).await?)
    }
}

fn field_of<'a>(artifact: &'a Artifact, field: &str) -> Option<Cow<'a, str>> {
    match field {
        "vm" => Some(convert::vm::name(&artifact.vm_id).into()),
        "provider" => Some(artifact.provider.as_str().into()),
        _ => Some(artifact.tenant.as_str().into()),
    }
}

#[tonic::async_trait]
impl ArtifactService for Services {
    async fn get_artifact(&self, request: Request<v1::GetArtifactRequest>) -> Answer<v1::Artifact> {
        answer(request, |call, request| self.artifact(call, request)).await
    }

    async fn list_artifacts(
        &self,
        request: Request<v1::ListArtifactsRequest>,
    ) -> Answer<v1::ListArtifactsResponse> {
        answer(request, |call, request| self.artifacts(call, request)).await
    }

    async fn delete_artifact(&self, request: Request<v1::DeleteArtifactRequest>) -> Answer<()> {
        let services = self.clone();
        let handle = move |call, request| services.remove_artifact(call, request);
        self.replays.answer("DeleteArtifact", request, handle).await
    }

    type ExportArtifactStream = BoxStream<v1::ExportArtifactResponse>;

    async fn export_artifact(
        &self,
        request: Request<v1::ExportArtifactRequest>,
    ) -> Answer<Self::ExportArtifactStream> {
        let services = self.clone();
        answer(request, |call, request| services.export(call, request)).await
    }
}
