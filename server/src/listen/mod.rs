//! The gRPC port: every service behind the layers, health and reflection beside them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use hearth_proto::FILE_DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTOR_SET;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::config::Grpc;
use crate::layers::WatchLayer;

/// Bytes of the headers of one request.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams that a client may reset in a row before its connection is closed.
const MAX_RESET_STREAMS: usize = 1024;

/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves `routes` on `listener` until `end`, and then what is under way; calls of ours are let in
/// when `is_open`.
///
/// # Errors
/// When our own descriptors cannot be read.
pub(crate) fn serve(
    listener: TcpListener,
    routes: Routes,
    reporter: HealthReporter,
    is_open: Arc<AtomicBool>,
    settings: &Grpc,
    end: impl Future<Output = ()> + Send + 'static,
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
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .layer(watch(is_open)?);
    let server = server.add_routes(routes);
    let incoming = no_delay(listener);
    Ok(async move { server.serve_with_incoming_shutdown(incoming, end).await })
}

/// What goes around the services, on a port and without one; lets calls of ours in when `is_open`.
///
/// # Errors
/// When our own descriptors cannot be read.
pub(crate) fn watch(is_open: Arc<AtomicBool>) -> Result<WatchLayer, Error> {
    Ok(WatchLayer::new(&[FILE_DESCRIPTOR_SET, HEALTH_DESCRIPTOR_SET], is_open)?)
}

/// What is accepted sends small answers at once; what is not holds up nothing else.
fn no_delay(
    listener: TcpListener,
) -> impl tokio_stream::Stream<Item = std::io::Result<tokio::net::TcpStream>> + Send + 'static {
    use tokio_stream::StreamExt as _;
    TcpListenerStream::new(listener).then(|accepted| async {
        match &accepted {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection delays small answers");
                }
            }
            Err(error) => {
                // Without file descriptors the next one would fail at once, too.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        accepted
    })
}

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
