//! `google.longrunning.Operations`.

use std::time::Duration;

use hearth_pool::operations::{Operation as Known, Target};
use hearth_proto::google::longrunning::operations_server::Operations;
use hearth_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::Services;
use crate::call::{Call, answer};
use crate::check::Fields;
use crate::convert::{self, operation};
use crate::filter::{Field, Filter};
use crate::paging::Page;
use crate::status::Refusal;

type Answer<T> = Result<Response<T>, Status>;

/// The longest wait of one call.
const MAX_WAIT: Duration = Duration::from_secs(60);

const FILTER: &[Field] = &[Field::OneOf("done", "", &["TRUE", "FALSE"])];

impl Services {
    pub(super) fn operation_to_wire(&self, known: &Known) -> Operation {
        operation::to_wire(known, || match &known.target {
            Target::Template(id) => {
                let template = self.manager.template(id).ok()?;
                Some(operation::any(&self.template_to_wire(&template)))
            }
            Target::Artifact(id) => {
                let artifact = self.manager.artifact(id, None).ok()?;
                Some(operation::any(&convert::vm::artifact(&artifact)))
            }
        })
    }

    async fn operations(
        &self,
        call: Call,
        request: ListOperationsRequest,
    ) -> Result<ListOperationsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let mut fields = Fields::default();
        if !matches!(request.name.as_str(), "" | "operations") {
            fields.wrong("name", "it must be \"operations\"");
        }
        fields.done()?;
        let (size, token) = (request.page_size, &request.page_token);
        let page = Page::of("operations", &request.filter, size, token)?;
        let is_done = |known: &Known| if known.outcome.is_some() { "TRUE" } else { "FALSE" };
        let known = self.manager.operations().list().into_iter();
        let known = known.filter(|it| it.is_seen_by(call.caller.scope()));
        let known = known.filter(|it| filter.matches(|_| Some(is_done(it).into())));
        let (known, next_page_token) = page.cut(known, |it| it.id.as_str());
        let operations = known.iter().map(|it| self.operation_to_wire(it)).collect();
        Ok(ListOperationsResponse { operations, next_page_token, ..Default::default() })
    }

    async fn operation(
        &self,
        call: Call,
        request: GetOperationRequest,
    ) -> Result<Operation, Refusal> {
        let mut fields = Fields::default();
        let id = fields.operation("name", &request.name);
        let id = fields.required(id)?;
        let known = self.manager.operations().get_seen_by(&id, call.caller.scope())?;
        Ok(self.operation_to_wire(&known))
    }

    async fn forget(&self, call: Call, request: DeleteOperationRequest) -> Result<(), Refusal> {
        call.is_about(&request.name, "", "");
        let mut fields = Fields::default();
        let id = fields.operation("name", &request.name);
        let id = fields.required(id)?;
        self.manager.operations().get_seen_by(&id, call.caller.scope())?;
        Ok(self.manager.operations().delete(&id)?)
    }

    async fn cancel(&self, call: Call, request: CancelOperationRequest) -> Result<(), Refusal> {
        let mut fields = Fields::default();
        let id = fields.operation("name", &request.name);
        let id = fields.required(id)?;
        self.manager.operations().get_seen_by(&id, call.caller.scope())?;
        Ok(self.manager.operations().cancel(&id)?)
    }

    async fn wait(&self, call: Call, request: WaitOperationRequest) -> Result<Operation, Refusal> {
        let mut fields = Fields::default();
        let id = fields.operation("name", &request.name);
        // Not to wait at all is fine.
        let asked = request.timeout.filter(|it| (it.seconds, it.nanos) != (0, 0));
        let timeout = match (asked, request.timeout) {
            (None, Some(_)) => Duration::ZERO,
            (asked, _) => fields.duration("timeout", asked).unwrap_or(MAX_WAIT).min(MAX_WAIT),
        };
        let id = fields.required(id)?;
        self.manager.operations().get_seen_by(&id, call.caller.scope())?;
        let left = call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(timeout, |left| left.min(timeout));
        // Waits end with the server, which else could not.
        let stopping = &self.ending;
        let known = tokio::select! {
            known = self.manager.operations().wait(&id, timeout) => known?,
            () = stopping.cancelled() => self.manager.operations().get(&id)?,
        };
        Ok(self.operation_to_wire(&known))
    }
}

#[tonic::async_trait]
impl Operations for Services {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Answer<ListOperationsResponse> {
        answer(request, |call, request| self.operations(call, request)).await
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Answer<Operation> {
        answer(request, |call, request| self.operation(call, request)).await
    }

    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Answer<()> {
        answer(request, |call, request| self.forget(call, request)).await
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Answer<()> {
        answer(request, |call, request| self.cancel(call, request)).await
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Answer<Operation> {
        answer(request, |call, request| self.wait(call, request)).await
    }
}
