//! The way to the service: the generated clients over its routes and layers, without a socket; and
//! what answers say, read as a stranger would read them.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use hearth_pool::ids::Tenant;
use hearth_proto::convert::{duration_to_wire, timestamp_to_system_time};
use hearth_proto::details::status_from_operation;
use hearth_proto::google::longrunning::operations_client::OperationsClient;
use hearth_proto::google::longrunning::{Operation, WaitOperationRequest, operation};
use hearth_proto::v1::artifact_service_client::ArtifactServiceClient;
use hearth_proto::v1::node_service_client::NodeServiceClient;
use hearth_proto::v1::pool_service_client::PoolServiceClient;
use hearth_proto::v1::template_service_client::TemplateServiceClient;
use hearth_proto::v1::vm_service_client::VmServiceClient;
use hearth_proto::{StatusDetails, names, v1};
use hearth_providers::VmId;
use hearth_server::auth::Caller;
use hearth_server::front::Front;
use http::{Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::history::{Answer, SeenArtifact, SeenVm, Who};

/// How long an operation is waited for.
const PATIENCE: Duration = Duration::from_secs(50);

/// One caller's way to the service: it says who calls, as a layer that authenticates would.
#[derive(Clone)]
pub(crate) struct Wire {
    front: Front,
    caller: Caller,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Front as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.front.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.caller.clone());
        self.front.call(request)
    }
}

impl Wire {
    pub(crate) fn new(front: &Front, who: Who) -> Self {
        let tenant = Tenant::new(&who.name());
        let caller = match who == Who::Operator {
            true => Caller::operator(tenant),
            false => Caller::tenant(tenant),
        };
        Self { front: front.clone(), caller }
    }

    pub(crate) fn vms(&self) -> VmServiceClient<Self> {
        VmServiceClient::new(self.clone())
    }

    pub(crate) fn artifacts(&self) -> ArtifactServiceClient<Self> {
        ArtifactServiceClient::new(self.clone())
    }

    pub(crate) fn pools(&self) -> PoolServiceClient<Self> {
        PoolServiceClient::new(self.clone())
    }

    pub(crate) fn templates(&self) -> TemplateServiceClient<Self> {
        TemplateServiceClient::new(self.clone())
    }

    pub(crate) fn node(&self) -> NodeServiceClient<Self> {
        NodeServiceClient::new(self.clone())
    }

    /// Every VM that the caller may see.
    pub(crate) async fn list(&self) -> Result<Vec<v1::Vm>, Status> {
        let request = v1::ListVmsRequest { page_size: 1000, ..Default::default() };
        Ok(self.vms().list_vms(request).await?.into_inner().vms)
    }

    /// Waits for an operation, and answers what it made.
    pub(crate) async fn made<M: prost::Message + Default>(
        &self,
        begun: Operation,
    ) -> Result<M, Status> {
        let request =
            WaitOperationRequest { name: begun.name, timeout: Some(duration_to_wire(PATIENCE)) };
        let waited = OperationsClient::new(self.clone()).wait_operation(request).await?;
        match waited.into_inner().result {
            Some(operation::Result::Response(made)) => M::decode(made.value.as_slice())
                .map_err(|error| Status::data_loss(error.to_string())),
            Some(operation::Result::Error(error)) => Err(status_from_operation(&error)),
            None => Err(Status::data_loss("the operation has not ended")),
        }
    }
}

/// A VM as it is shown.
fn vm(shown: &v1::Vm) -> Result<SeenVm, String> {
    let wrong = |what: &str| format!("{what}: {shown:?}");
    let lease = shown.lease.as_ref();
    let expires = lease.and_then(|lease| timestamp_to_system_time(&lease.expire_time?).ok());
    let since = |it: std::time::SystemTime| it.duration_since(std::time::UNIX_EPOCH).ok();
    let request_id = lease.map(|lease| lease.request_id.clone()).filter(|it| !it.is_empty());
    Ok(SeenVm {
        vm_id: VmId::parse(names::VMS.id(&shown.name).map_err(|_| wrong("no name"))?)
            .map_err(|_| wrong("no name"))?,
        uid: shown.uid.parse().map_err(|_| wrong("no uid"))?,
        state: shown.state(),
        tenant: shown.tenant.clone(),
        expires: expires.and_then(since).unwrap_or_default(),
        request_id,
    })
}

fn artifact(shown: &v1::Artifact) -> Result<SeenArtifact, String> {
    let wrong = |what: &str| format!("{what}: {shown:?}");
    let id = names::ARTIFACTS.id(&shown.name).map_err(|_| wrong("no name"))?;
    let uid = shown.uid.parse().map_err(|_| wrong("no uid"))?;
    Ok(SeenArtifact { id: id.to_owned(), uid, tenant: shown.tenant.clone() })
}

/// The history's word for an answer; `read` reads a good one.
pub(crate) fn answer<M>(
    answered: Result<M, Status>,
    read: impl FnOnce(M) -> Result<Answer, String>,
) -> Answer {
    match answered {
        Ok(message) => read(message).unwrap_or_else(Answer::Nonsense),
        Err(status) => {
            let details = StatusDetails::of(&status);
            match details.reason {
                Some(reason) if status.code() != Code::Internal => {
                    Answer::Refused { reason, allocated: details.allocated }
                }
                // The provider's own failures are ours to tell, and nobody's fault.
                Some(reason) if details.metadata.contains_key("cause") => {
                    Answer::Refused { reason, allocated: details.allocated }
                }
                _ => Answer::Nonsense(format!("{status:?}")),
            }
        }
    }
}

pub(crate) fn done<M>(_: M) -> Result<Answer, String> {
    Ok(Answer::Done)
}

pub(crate) fn got(message: v1::AcquireVmResponse) -> Result<Answer, String> {
    let is_cold = match message.source() {
        v1::acquire_vm_response::Source::Cold => true,
        v1::acquire_vm_response::Source::Warm => false,
        other => return Err(format!("a VM from {other:?}")),
    };
    let shown = message.vm.ok_or("no VM")?;
    Ok(Answer::Got { vm: vm(&shown)?, replayed: message.replayed, is_cold })
}

pub(crate) fn seen(message: v1::Vm) -> Result<Answer, String> {
    vm(&message).map(Answer::Seen)
}

pub(crate) fn resumed(message: v1::Vm) -> Result<Answer, String> {
    vm(&message).map(Answer::Resumed)
}

pub(crate) fn vms(message: Vec<v1::Vm>) -> Result<Answer, String> {
    message.iter().map(vm).collect::<Result<_, _>>().map(Answer::Vms)
}

pub(crate) fn frozen(message: v1::Artifact) -> Result<Answer, String> {
    artifact(&message).map(Answer::Frozen)
}

pub(crate) fn artifacts(message: v1::ListArtifactsResponse) -> Result<Answer, String> {
    message.artifacts.iter().map(artifact).collect::<Result<_, _>>().map(Answer::Artifacts)
}

pub(crate) fn status(message: v1::Pool) -> Result<Answer, String> {
    let status = message.status.ok_or("no status")?;
    let count = |it: i32| usize::try_from(it).map_err(|error| error.to_string());
    Ok(Answer::Status {
        waiting: count(status.waiting)?,
        restoring: count(status.restoring)?,
        warm: count(status.warm)?,
        target: count(status.target)?,
    })
}

/// A UUID that only `who`'s `number`th request has.
pub(crate) fn request_id(who: u64, number: u64) -> String {
    format!("{who:08x}-0000-4000-8000-{number:012x}")
}
