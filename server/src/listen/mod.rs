//! The gRPC port and the Unix socket: every service behind the layers, health and reflection beside
//! them, on connections that [`doors`] let in and [`conversation`] watches over.

pub(crate) mod arriving;
pub(crate) mod conduct;
pub(crate) mod conversation;
pub(crate) mod doors;
mod heads;
pub(crate) mod peer;
mod seats;
pub(crate) mod socket;
mod turn;

use std::future::Future;
use std::sync::Arc;

use hearth_pool::tasks::TaskGroup;
use hearth_proto::FILE_DESCRIPTOR_SET;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTOR_SET;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET as REFLECTION_DESCRIPTOR_SET;
use tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET as OLD_REFLECTION_DESCRIPTOR_SET;

use self::doors::Doors;
use crate::config::Grpc;
use crate::layers::WatchLayer;
use crate::tls::Tls;

/// Streams that a client may reset in a row before its connection is closed.
const MAX_RESET_STREAMS: usize = 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves `routes` to whoever comes in by `doors` until `end`, and then what is under way.
///
/// # Errors
/// When our own descriptors cannot be read.
pub(crate) fn serve(
    doors: Doors,
    tls: Option<Arc<Tls>>,
    (routes, reporter, layer): (Routes, HealthReporter, WatchLayer),
    settings: &Grpc,
    tasks: &TaskGroup,
    end: &CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(HEALTH_DESCRIPTOR_SET)
    };
    let routes = routes
        .add_service(HealthServer::new(HealthService::from_health_reporter(reporter)))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(settings.keepalive_interval))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_connection_age(settings.max_connection_age)
        .http2_max_header_list_size(settings.max_header_bytes)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .layer(layer);
    let server = server.add_routes(routes);
    let incoming = ReceiverStream::new(doors::open(doors, tls, settings, tasks, end));
    let end = end.clone().cancelled_owned();
    Ok(async move { server.serve_with_incoming_shutdown(incoming, end).await })
}

/// The descriptors of everything that is served.
pub(crate) const DESCRIPTOR_SETS: [&[u8]; 4] = [
    FILE_DESCRIPTOR_SET,
    HEALTH_DESCRIPTOR_SET,
    REFLECTION_DESCRIPTOR_SET,
    OLD_REFLECTION_DESCRIPTOR_SET,
];

/// Runs a server's future as a task of `tasks`, to its end or until `at_once`; answers when it
/// has ended.
pub(crate) fn spawn(
    tasks: &TaskGroup,
    serving: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    at_once: CancellationToken,
) -> tokio::sync::oneshot::Receiver<()> {
    let (ended, end) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        tokio::select! {
            served = serving => {
                if let Err(error) = served {
                    tracing::error!(%error, "the gRPC server has ended");
                }
            }
            () = at_once.cancelled() => {}
        }
        // Whoever waited may have given up.
        let _ = ended.send(());
    });
    end
}
