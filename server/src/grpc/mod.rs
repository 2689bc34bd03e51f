//! The services: protobuf in, one call of the pool, protobuf out. No decisions are made here.

mod acquire;
mod artifact;
mod connect;
mod console;
mod export;
mod node;
mod operations;
mod pool;
mod snapshots;
mod template;
mod vm;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_pool::error::Error;
use hearth_pool::manager::Manager;
use hearth_pool::tasks::TaskGroup;
use hearth_proto::google::longrunning::operations_server::OperationsServer;
use hearth_proto::v1::artifact_service_server::ArtifactServiceServer;
use hearth_proto::v1::node_service_server::NodeServiceServer;
use hearth_proto::v1::pool_service_server::PoolServiceServer;
use hearth_proto::v1::template_service_server::TemplateServiceServer;
use hearth_proto::v1::vm_service_server::VmServiceServer;
use hearth_providers::VmRuntimeError;
use hearth_providers::env::Env;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::auth::guard::Denial;
use crate::call::Call;
use crate::config::Streams;
use crate::replay::Replays;
use crate::telemetry::Levels;
use crate::watch::{Hub, PoolSource, VmSource};

/// Names of the services, as health knows them.
pub(crate) const SERVICES: [&str; 6] = [
    "hearth.v1.VmService",
    "hearth.v1.PoolService",
    "hearth.v1.TemplateService",
    "hearth.v1.ArtifactService",
    "hearth.v1.NodeService",
    "google.longrunning.Operations",
];

/// What lists can be filtered by.
pub(crate) const FILTERS: [&[crate::filter::Field]; 2] = [vm::FILTER, pool::FILTER];

/// When to come back for a place that others have.
const FULL_FOR: Duration = Duration::from_secs(1);

/// What every service has.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) manager: Arc<Manager>,
    pub(crate) tasks: TaskGroup,
    pub(crate) env: Arc<dyn Env>,
    replays: Arc<Replays>,
    levels: Levels,
    pub(crate) start_time: SystemTime,
    pub(crate) max_message_bytes: usize,
    pub(crate) streams: Streams,
    /// Places of consoles that are read, and of watches.
    consoles: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    /// Places of connections to guests.
    guests: Arc<Semaphore>,
    pub(crate) watched_vms: Arc<Hub<VmSource>>,
    watched_pools: Arc<Hub<PoolSource>>,
    /// Cancelled when the server ends: whatever waits for long heeds it.
    ending: CancellationToken,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Services {
    /// The services in front of `manager`; what they begin belongs to `tasks`,
    /// and what waits heeds `ending`.
    pub(crate) fn new(
        manager: Arc<Manager>,
        tasks: TaskGroup,
        env: Arc<dyn Env>,
        levels: Levels,
        (max_message_bytes, streams): (usize, Streams),
        ending: CancellationToken,
    ) -> Self {
        let capacity = manager.limits().max_remembered_requests;
        let keep = Arc::clone(&manager);
        let replays = Replays::new(Arc::clone(&env), tasks.clone(), capacity, keep);
        let start_time = env.now();
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let (consoles, watches) = (places(streams.max_consoles), places(streams.max_watches));
        let guests = places(streams.max_guest_connections);
        let (group, clock, lag) = (tasks.clone(), Arc::clone(&env), streams.max_watch_lag);
        let source = VmSource(Arc::clone(&manager));
        let watched_vms = Hub::new(source, group, clock, ending.clone(), lag);
        let (group, clock) = (tasks.clone(), Arc::clone(&env));
        let source = PoolSource { manager: Arc::clone(&manager), env: Arc::clone(&env) };
        let watched_pools = Hub::new(source, group, clock, ending.clone(), lag);
        Self {
            manager,
            tasks,
            env,
            replays,
            levels,
            start_time,
            max_message_bytes,
            streams,
            consoles,
            watches,
            guests,
            watched_vms,
            watched_pools,
            ending,
        }
    }

    /// All of them, to be served.
    pub(crate) fn routes(&self) -> Routes {
        macro_rules! server {
            ($server:ident) => {
                $server::new(self.clone()).max_decoding_message_size(self.max_message_bytes)
            };
        }
        Routes::new(server!(VmServiceServer))
            .add_service(server!(PoolServiceServer))
            .add_service(server!(TemplateServiceServer))
            .add_service(server!(ArtifactServiceServer))
            .add_service(server!(NodeServiceServer))
            .add_service(server!(OperationsServer))
    }
}

/// Whether who calls may name what is the host's, if it does.
///
/// # Errors
/// `Forbidden`.
fn may_name_host(call: &Call, names_host: bool) -> Result<(), Denial> {
    match !names_host || call.caller.may_name_host() {
        true => Ok(()),
        false => Err(Denial::Forbidden(
            "the role operator, or the grant host_names, to name files, images and devices of the host",
        )),
    }
}

/// A place of `places`, which are of `what`.
///
/// # Errors
/// `Exhausted` while others have all of them.
fn place(places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, VmRuntimeError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| VmRuntimeError::Exhausted {
        what: format!("the number of {what} at once"),
        retry_after: Some(FULL_FOR),
    })
}

/// A violation that names a field of the spec by its path in the request.
fn in_field(path: &str, error: Error) -> Error {
    match error {
        Error::Provider(VmRuntimeError::InvalidSpec { field, reason }) => {
            Error::invalid(format!("{path}.{field}"), reason)
        }
        error => error,
    }
}
