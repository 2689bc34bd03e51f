//! `PoolService`.

use std::borrow::Cow;
use std::sync::Arc;

use hearth_pool::error::{Error, Kind};
use hearth_pool::ids::{PoolId, RequestId};
use hearth_pool::manager::Phase;
use hearth_pool::pool::Pool;
use hearth_proto::v1::pool_service_server::PoolService;
use hearth_proto::{names, v1};
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

pub(super) const FILTER: &[Field] = &[Field::Text("template")];

impl Services {
    fn pool_to_wire(&self, pool: &Pool) -> v1::Pool {
        let is_draining = self.manager.phase() == Phase::Draining;
        convert::pool::to_wire(pool, is_draining, self.env.now())
    }

    /// A pool that is there for who calls.
    pub(super) fn granted_pool(&self, call: &Call, id: &PoolId) -> Result<Arc<Pool>, Error> {
        let pool = self.manager.pool(id)?;
        let missing = || Error::NotFound { kind: Kind::Pool, name: id.to_string() };
        call.caller.may_use(id).then_some(pool).ok_or_else(missing)
    }

    async fn make_pool(self, _: Call, request: v1::CreatePoolRequest) -> Result<v1::Pool, Refusal> {
        let mut fields = Fields::default();
        let id = fields.id("pool_id", &request.pool_id, PoolId::parse);
        fields.request_id(&request.request_id);
        let asked = request.pool.unwrap_or_default();
        let settings = convert::pool::settings(&mut fields, &asked, &convert::pool::PATHS);
        let id = fields.required(id)?;
        let borne = self.manager.limits().max_parallel_restores;
        let config = fields.required(settings.into_config(id, borne))?;
        let planned = convert::pool::config_to_wire(&config);
        let made = self.manager.create_pool(config, request.validate_only).await;
        let made = made.map_err(|error| under("pool", error))?;
        Ok(made.map_or(planned, |pool| self.pool_to_wire(&pool)))
    }

    async fn get_one_pool(
        &self,
        call: Call,
        request: v1::GetPoolRequest,
    ) -> Result<v1::Pool, Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        let id = fields.required(id)?;
        Ok(self.pool_to_wire(&*self.granted_pool(&call, &id)?))
    }

    async fn pools(
        &self,
        call: Call,
        request: v1::ListPoolsRequest,
    ) -> Result<v1::ListPoolsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let page = Page::of("pools", &request.filter, request.page_size, &request.page_token)?;
        let template = |pool: &Pool| names::TEMPLATES.name(pool.config().template.as_str());
        let pools = self.manager.pools().into_iter();
        let pools = pools.filter(|pool| call.caller.may_use(&pool.id));
        let pools = pools.filter(|pool| filter.matches(|_| Some(Cow::Owned(template(pool)))));
        let (pools, next_page_token) = page.cut(pools, |pool| pool.id.as_str());
        let pools = pools.iter().map(|pool| self.pool_to_wire(pool)).collect();
        Ok(v1::ListPoolsResponse { pools, next_page_token })
    }

    async fn change_pool(
        self,
        _: Call,
        request: v1::UpdatePoolRequest,
    ) -> Result<v1::Pool, Refusal> {
        let mut fields = Fields::default();
        let asked = request.pool.unwrap_or_default();
        let id = fields.pool("pool.name", &asked.name);
        fields.request_id(&request.request_id);
        let paths = convert::pool::paths(&mut fields, request.update_mask.as_ref(), &asked);
        let settings = convert::pool::settings(&mut fields, &asked, &paths);
        let id = fields.required(id)?;
        let borne = self.manager.limits().max_parallel_restores;
        let (seen, planned) = std::sync::mpsc::sync_channel(1);
        let change = move |config: &mut hearth_pool::pool::PoolConfig| {
            settings.apply(config, &paths, borne);
            let _ = seen.try_send(convert::pool::config_to_wire(config));
            Ok(())
        };
        let validate_only = request.validate_only;
        let changed = self.manager.update_pool(&id, &asked.etag, validate_only, change).await;
        let pool = changed.map_err(|error| under("pool", error))?;
        Ok(match planned.try_recv() {
            Ok(planned) if validate_only => planned,
            _ => self.pool_to_wire(&pool),
        })
    }

    async fn remove_pool(self, _: Call, request: v1::DeletePoolRequest) -> Result<(), Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        fields.request_id(&request.request_id);
        let id = fields.required(id)?;
        Ok(self.manager.delete_pool(&id, &request.etag, request.force).await?)
    }
}

/// Announced demand, and its end.
impl Services {
    async fn announce(
        self,
        _: Call,
        request: v1::PrewarmPoolRequest,
    ) -> Result<v1::Prewarm, Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        let count = fields.count("count", request.count);
        let ttl = fields.duration("ttl", request.ttl);
        if request.ttl.is_none() {
            fields.wrong("ttl", "it must be set");
        }
        let request_id = fields.request_id(&request.request_id);
        let request_id = request_id.as_ref().map_or("", RequestId::as_str);
        let (id, ttl) = (fields.required(id)?, fields.required(ttl)?);
        // The pool is told the request id, too: it knows it again after a crash.
        let prewarm = self.manager.prewarm_pool(&id, count, ttl, request_id).await?;
        Ok(convert::pool::prewarm_to_wire(&id, &prewarm))
    }

    async fn take_back(
        self,
        _: Call,
        request: v1::CancelPrewarmRequest,
    ) -> Result<v1::Pool, Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        if request.prewarm_id.is_empty() {
            fields.wrong("prewarm_id", "it must be set");
        }
        fields.request_id(&request.request_id);
        let id = fields.required(id)?;
        let pool = self.manager.cancel_prewarm(&id, &request.prewarm_id).await?;
        Ok(self.pool_to_wire(&pool))
    }

    async fn set_pool_draining(
        self,
        _: Call,
        request: v1::DrainPoolRequest,
    ) -> Result<v1::Pool, Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        fields.request_id(&request.request_id);
        let id = fields.required(id)?;
        let pool = self.manager.drain_pool(&id, !request.undo).await?;
        tracing::info!(pool = %id, drains = !request.undo, "an operator has changed whether a pool is kept empty");
        Ok(self.pool_to_wire(&pool))
    }

    async fn explained(
        &self,
        call: Call,
        request: v1::ExplainPoolRequest,
    ) -> Result<v1::ExplainPoolResponse, Refusal> {
        let mut fields = Fields::default();
        let id = fields.pool("name", &request.name);
        let pool = self.granted_pool(&call, &fields.required(id)?)?;
        let node_drains = self.manager.phase() == Phase::Draining;
        Ok(convert::explain::explain(&pool, node_drains, self.env.now()))
    }

    async fn resolved(
        &self,
        call: Call,
        request: v1::ResolvePoolRequest,
    ) -> Result<v1::ResolvePoolResponse, Refusal> {
        let mut fields = Fields::default();
        fields.pool("name", &request.name);
        let mut asked = request.request.unwrap_or_default();
        if asked.pool.is_empty() {
            asked.pool.clone_from(&request.name);
        } else if asked.pool != request.name {
            fields.wrong("request.pool", "it is another pool than `name`");
        }
        fields.done()?;
        super::may_name_host(&call, !asked.network_overrides.is_empty())?;
        let asked = self.acquire_request(&call, asked).map_err(|error| under("request", error))?;
        let resolved = self.manager.resolve(&asked).map_err(|error| under("request", error))?;
        Ok(convert::pool::resolution_to_wire(resolved, call.id))
    }
}

/// The pool's own violations, by their path in the request.
fn under(path: &str, error: Error) -> Error {
    let Error::InvalidArgument(mut violations) = error else { return error };
    violations.iter_mut().for_each(|it| it.field = format!("{path}.{}", it.field));
    Error::InvalidArgument(violations)
}

#[tonic::async_trait]
impl PoolService for Services {
    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Answer<v1::Pool> {
        let services = self.clone();
        let handle = move |call, request| services.make_pool(call, request);
        self.replays.answer("CreatePool", request, handle).await
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Answer<v1::Pool> {
        answer(request, |call, request| self.get_one_pool(call, request)).await
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Answer<v1::ListPoolsResponse> {
        answer(request, |call, request| self.pools(call, request)).await
    }

    async fn update_pool(&self, request: Request<v1::UpdatePoolRequest>) -> Answer<v1::Pool> {
        let services = self.clone();
        let handle = move |call, request| services.change_pool(call, request);
        self.replays.answer("UpdatePool", request, handle).await
    }

    async fn delete_pool(&self, request: Request<v1::DeletePoolRequest>) -> Answer<()> {
        let services = self.clone();
        let handle = move |call, request| services.remove_pool(call, request);
        self.replays.answer("DeletePool", request, handle).await
    }

    async fn prewarm_pool(&self, request: Request<v1::PrewarmPoolRequest>) -> Answer<v1::Prewarm> {
        let services = self.clone();
        let handle = move |call, request| services.announce(call, request);
        self.replays.answer("PrewarmPool", request, handle).await
    }

    async fn cancel_prewarm(&self, request: Request<v1::CancelPrewarmRequest>) -> Answer<v1::Pool> {
        let services = self.clone();
        let handle = move |call, request| services.take_back(call, request);
        self.replays.answer("CancelPrewarm", request, handle).await
    }

    async fn explain_pool(
        &self,
        request: Request<v1::ExplainPoolRequest>,
    ) -> Answer<v1::ExplainPoolResponse> {
        answer(request, |call, request| self.explained(call, request)).await
    }

    async fn resolve_pool(
        &self,
        request: Request<v1::ResolvePoolRequest>,
    ) -> Answer<v1::ResolvePoolResponse> {
        answer(request, |call, request| self.resolved(call, request)).await
    }

    async fn drain_pool(&self, request: Request<v1::DrainPoolRequest>) -> Answer<v1::Pool> {
        let services = self.clone();
        let handle = move |call, request| services.set_pool_draining(call, request);
        self.replays.answer("DrainPool", request, handle).await
    }

    type WatchPoolsStream = BoxStream<v1::WatchPoolsResponse>;

    async fn watch_pools(
        &self,
        request: Request<v1::WatchPoolsRequest>,
    ) -> Answer<Self::WatchPoolsStream> {
        answer(request, |call, request| self.pools_watched(call, request)).await
    }
}
