//! `ArtifactService`: nothing freezes VMs yet, so there are no artifacts.

use hearth_proto::v1;
use hearth_proto::v1::artifact_service_server::ArtifactService;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Services;
use crate::status::method_unimplemented;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ArtifactService for Services {
    async fn get_artifact(&self, _: Request<v1::GetArtifactRequest>) -> Answer<v1::Artifact> {
        Err(method_unimplemented())
    }

    async fn list_artifacts(
        &self,
        _: Request<v1::ListArtifactsRequest>,
    ) -> Answer<v1::ListArtifactsResponse> {
        Err(method_unimplemented())
    }

    async fn delete_artifact(&self, _: Request<v1::DeleteArtifactRequest>) -> Answer<()> {
        Err(method_unimplemented())
    }

    type ExportArtifactStream = BoxStream<v1::ExportArtifactResponse>;

    async fn export_artifact(
        &self,
        _: Request<v1::ExportArtifactRequest>,
    ) -> Answer<Self::ExportArtifactStream> {
        Err(method_unimplemented())
    }
}
