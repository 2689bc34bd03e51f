//! The admin port: `/metrics`, `/healthz` (the process lives), `/readyz` (it takes work), and the page for
//! operators ([`crate::page`]). Plain HTTP; whoever can reach it learns how much is going on here, and by the
//! page only what that lets them see.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_pool::tasks::TaskGroup;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::metrics;
use crate::page::Page;

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last until no more requests are taken on it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what was asked by then may take, streams of events among it.
const GRACE: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait when no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What an answer has in it.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is there as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Answers on `listener` until `tasks` stops.
pub(crate) fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    page: Arc<Page>,
    tasks: &TaskGroup,
) {
    let group = tasks.clone();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tasks.spawn_critical("admin", async move {
        let stopping = group.stopping().clone();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &connections) => accepted,
                () = stopping.cancelled() => return,
            };
            let (stream, peer, place) = accepted;
            let (health, page, stopping) =
                (Arc::clone(&health), Arc::clone(&page), stopping.clone());
            group.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = converse(stream, peer, health, page) => {}
                    () = stopping.cancelled() => {}
                }
            });
        }
    });
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>) {
    // It is never closed.
    let place = Arc::clone(connections).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin port was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, health: Arc<Health>, page: Arc<Page>) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (health, page) = (Arc::clone(&health), Arc::clone(&page));
        async move { Ok::<_, Infallible>(answer(&mut request, peer, &health, &page).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut served = tokio::time::timeout(CONNECTION_TIMEOUT, connection.as_mut()).await;
    if served.is_err() {
        connection.as_mut().graceful_shutdown();
        served = tokio::time::timeout(GRACE, connection).await;
    }
    if let Ok(Err(error)) = served {
        tracing::debug!(%error, "a connection to the admin port has broken");
    }
}

async fn answer(
    request: &mut Request<Incoming>,
    peer: SocketAddr,
    health: &Health,
    page: &Arc<Page>,
) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        let allowed = header::HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(header::ALLOW, allowed);
        return answer;
    }
    match (request.uri().path(), health.not_ready()) {
        ("/metrics", _) => text(StatusCode::OK, metrics::render().await),
        ("/readyz", Some(why)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        ("/healthz" | "/readyz", _) => text(StatusCode::OK, "ok\n"),
        _ => page.answer(request, peer).await.unwrap_or_else(|| {
            text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n")
        }),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(full(text));
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
