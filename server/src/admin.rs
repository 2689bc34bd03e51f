//! The admin port: `/metrics`, `/healthz` (the process lives) and `/readyz` (it takes work).
//! Plain HTTP, for scrapers and probes; whoever can reach it learns how much is going on here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_pool::tasks::TaskGroup;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::metrics;

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait when no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until `tasks` stops.
pub(crate) fn serve(listener: TcpListener, health: Arc<Health>, tasks: &TaskGroup) {
    let group = tasks.clone();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tasks.spawn_critical("admin", async move {
        let stopping = group.stopping().clone();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &connections) => accepted,
                () = stopping.cancelled() => return,
            };
            let (stream, place) = accepted;
            let (health, stopping) = (Arc::clone(&health), stopping.clone());
            group.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = converse(stream, health) => {}
                    () = tokio::time::sleep(CONNECTION_TIMEOUT) => {}
                    () = stopping.cancelled() => {}
                }
            });
        }
    });
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // It is never closed.
    let place = Arc::clone(connections).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin port was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, health: Arc<Health>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let health = Arc::clone(&health);
        async move { Ok::<_, Infallible>(answer(&request, &health).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin port has broken");
    }
}

async fn answer(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    let (method, path) = (request.method(), request.uri().path());
    let known = matches!(path, "/metrics" | "/healthz" | "/readyz");
    match (known, method == Method::GET || method == Method::HEAD) {
        (false, _) => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        (true, false) => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            let allowed = header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allowed);
            answer
        }
        (true, true) => match (path, health.not_ready()) {
            ("/metrics", _) => text(StatusCode::OK, metrics::render().await),
            ("/readyz", Some(why)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            _ => text(StatusCode::OK, "ok\n"),
        },
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
