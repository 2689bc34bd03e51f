//! `WatchVms` and `WatchPools`: what `ListVms` and `ListPools` show, and what becomes of it.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::stream;
use hearth_pool::error::Error;
use hearth_pool::ids::PoolId;
use hearth_proto::{names, v1};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::{Services, place, pool, vm};
use crate::call::{Call, CallId};
use crate::convert;
use crate::filter::Filter;
use crate::status::Refusal;
use crate::watch::{Event, Hub, Source, View, Watching, list_id};

impl Services {
    pub(super) async fn vms_watched(
        &self,
        call: Call,
        request: v1::WatchVmsRequest,
    ) -> Result<BoxStream<v1::WatchVmsResponse>, Refusal> {
        let filter = Filter::parse(&request.filter, vm::FILTER)?;
        let scope = call.caller.scope().map(|tenant| tenant.as_str().to_owned());
        let list = list_id("vms", &request.filter, scope.as_deref());
        let sees = move |vm: &v1::Vm| {
            scope.as_ref().is_none_or(|tenant| vm.tenant == *tenant)
                && filter.matches(|field| vm_field(vm, field))
        };
        let is_operator = call.caller.is_operator();
        let watch = self.watch(&self.watched_vms, list, sees, &request.resume_token).await?;
        Ok(watch.told(call.id, move |told, vm, resume_token| {
            use v1::watch_vms_response::Type;
            let kind = match told {
                Told::Added => Type::Added,
                Told::Changed => Type::Changed,
                Told::Deleted => Type::Deleted,
                Told::Synced => Type::Synced,
                Told::Heartbeat => Type::Heartbeat,
            };
            let vm = vm.map(|mut vm| {
                vm.process = vm.process.filter(|_| is_operator);
                vm
            });
            v1::WatchVmsResponse { r#type: kind.into(), vm, resume_token }
        }))
    }

    pub(super) async fn pools_watched(
        &self,
        call: Call,
        request: v1::WatchPoolsRequest,
    ) -> Result<BoxStream<v1::WatchPoolsResponse>, Refusal> {
        let filter = Filter::parse(&request.filter, pool::FILTER)?;
        let scope = call.caller.scope().map(|tenant| tenant.as_str().to_owned());
        let list = list_id("pools", &request.filter, scope.as_deref());
        let caller = call.caller.clone();
        let sees = move |pool: &v1::Pool| {
            let id = names::POOLS.id(&pool.name).ok().and_then(|id| PoolId::parse(id).ok());
            id.is_some_and(|id| caller.may_use(&id))
                && filter.matches(|_| Some(Cow::Borrowed(pool.template.as_str())))
        };
        let watch = self.watch(&self.watched_pools, list, sees, &request.resume_token).await?;
        Ok(watch.told(call.id, move |told, pool, resume_token| {
            use v1::watch_pools_response::Type;
            let kind = match told {
                Told::Added => Type::Added,
                Told::Changed => Type::Changed,
                Told::Deleted => Type::Deleted,
                Told::Synced => Type::Synced,
                Told::Heartbeat => Type::Heartbeat,
            };
            v1::WatchPoolsResponse { r#type: kind.into(), pool, resume_token }
        }))
    }

    async fn watch<S: Source>(
        &self,
        hub: &Arc<Hub<S>>,
        list: u64,
        sees: impl Fn(&S::Item) -> bool + Send + Sync + 'static,
        resume_token: &str,
    ) -> Result<Watch<S>, Refusal> {
        let place = place(&self.watches, "watches")?;
        let heartbeat = self.streams.watch_heartbeat_interval;
        let view = View { list, sees: Box::new(sees), heartbeat };
        let watching = Watching::begin(hub, view, resume_token).await?;
        Ok(Watch { watching, _place: place })
    }
}

/// A watch that has begun.
struct Watch<S: Source> {
    watching: Watching<S>,
    _place: OwnedSemaphorePermit,
}

/// What a message tells, whatever it is of.
#[derive(Clone, Copy)]
enum Told {
    Added,
    Changed,
    Deleted,
    Synced,
    Heartbeat,
}

impl<S: Source> Watch<S> {
    /// Its messages, as `message` makes them; the last one is an error.
    fn told<M: Send + 'static>(
        self,
        call: CallId,
        message: impl Fn(Told, Option<S::Item>, String) -> M + Send + 'static,
    ) -> BoxStream<M> {
        let messages = stream::unfold((Some(self), message), move |(watch, message)| async move {
            let mut watch = watch?;
            let refusal = match watch.watching.next().await {
                Ok(Some((event, token))) => {
                    let item = |item: Arc<S::Item>| Some(Arc::unwrap_or_clone(item));
                    let (told, item) = match event {
                        Event::Added(it) => (Told::Added, item(it)),
                        Event::Changed(it) => (Told::Changed, item(it)),
                        Event::Deleted(it) => (Told::Deleted, item(it)),
                        Event::Synced => (Told::Synced, None),
                        Event::Heartbeat => (Told::Heartbeat, None),
                    };
                    let sent = message(told, item, token);
                    return Some((Ok(sent), (Some(watch), message)));
                }
                // Whoever wants more asks whoever serves next.
                Ok(None) => Error::Draining.into(),
                Err(refusal) => refusal,
            };
            let status: Status = refusal.into_status(call);
            Some((Err(status), (None, message)))
        });
        Box::pin(messages)
    }
}

/// A field of a VM as filters have it: the same as of one that is listed.
fn vm_field<'a>(vm: &'a v1::Vm, field: &str) -> Option<Cow<'a, str>> {
    match field {
        "state" => Some(convert::vm::wire_state_name(vm.state()).into()),
        "pool" => Some(vm.pool.as_str().into()),
        "tenant" => Some(vm.tenant.as_str().into()),
        field => {
            let key = field.strip_prefix("labels.")?;
            vm.labels.get(key).map(|value| value.as_str().into())
        }
    }
}
