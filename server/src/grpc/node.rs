//! `NodeService`.

use hearth_pool::error::Error;
use hearth_proto::v1;
use hearth_proto::v1::node_service_server::NodeService;
use tonic::{Request, Response, Status};

use super::Services;
use crate::auth::guard::Denial;
use crate::auth::rules::Access;
use crate::call::{Call, answer};
use crate::check::Fields;
use crate::convert;
use crate::status::Refusal;

type Answer<T> = Result<Response<T>, Status>;

impl Services {
    fn node(&self) -> v1::Node {
        let bounds = (self.max_message_bytes, &self.streams);
        convert::node::node(&self.manager, self.start_time, bounds)
    }

    async fn described(&self, call: Call, with_usage: bool) -> Result<v1::Node, Refusal> {
        let mut node = self.node();
        if call.caller.scope().is_some() {
            if with_usage {
                return Err(Denial::Forbidden(Access::Inspect.takes()).into());
            }
            // What tenants have to know of it; the rest is about all of them.
            return Ok(v1::Node {
                hearth_version: node.hearth_version,
                draining: node.draining,
                bounds: node.bounds,
                start_time: node.start_time,
                ..Default::default()
            });
        }
        if with_usage {
            let used = self.manager.usage().await?;
            let of = |(provider, used): &(String, _)| convert::node::usage(provider, used);
            node.usage = used.iter().flat_map(of).collect();
        }
        Ok(node)
    }

    async fn set_draining(self, request_id: String, drains: bool) -> Result<v1::Node, Refusal> {
        let mut fields = Fields::default();
        fields.request_id(&request_id);
        fields.done()?;
        match drains {
            true => self.manager.drain().await?,
            false => self.manager.undrain().await?,
        }
        tracing::info!(drains, "an operator has changed whether acquires are taken");
        Ok(self.node())
    }

    async fn set_level(
        self,
        _: Call,
        request: v1::SetLogLevelRequest,
    ) -> Result<v1::SetLogLevelResponse, Refusal> {
        let mut fields = Fields::default();
        fields.request_id(&request.request_id);
        if request.level.is_empty() {
            fields.wrong("level", "it must be set");
        }
        fields.done()?;
        let set = self.levels.set(&request.level);
        let previous_level = set.map_err(|error| Error::invalid("level", error))?;
        Ok(v1::SetLogLevelResponse { previous_level })
    }
}

#[tonic::async_trait]
impl NodeService for Services {
    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Answer<v1::Node> {
        answer(request, |call, it| self.described(call, it.with_usage)).await
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Answer<v1::Node> {
        let services = self.clone();
        let handle = move |_, it: v1::DrainRequest| services.set_draining(it.request_id, true);
        self.replays.answer("Drain", request, handle).await
    }

    async fn undrain(&self, request: Request<v1::UndrainRequest>) -> Answer<v1::Node> {
        let services = self.clone();
        let handle = move |_, it: v1::UndrainRequest| services.set_draining(it.request_id, false);
        self.replays.answer("Undrain", request, handle).await
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Answer<v1::SetLogLevelResponse> {
        let services = self.clone();
        let handle = move |call, request| services.set_level(call, request);
        self.replays.answer("SetLogLevel", request, handle).await
    }
}
