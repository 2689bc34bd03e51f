//! What every call goes through: it is counted and timed, gets an id, is turned away while the
//! server starts, and has an error in our words where the transport itself refuses it.
//!
//! Names of methods come from the descriptors, so that a client cannot make up label values.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hearth_pool::error::Error;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message as _;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::call::CallId;
use crate::metrics::MethodMetrics;
use crate::status::{self, Refusal};

/// Puts [`Watched`] around the services.
#[derive(Clone, Debug)]
pub(crate) struct WatchLayer {
    methods: Arc<Methods>,
    /// Recovery is over: until then nothing is known that could be answered.
    is_open: Arc<AtomicBool>,
}

/// What can be asked of a server that starts.
const WHILE_STARTING: &str = "/hearth.v1.NodeService/GetNode";

#[derive(Debug)]
struct Methods {
    by_path: HashMap<String, Arc<MethodMetrics>>,
    /// Of whatever is called that there is not.
    unknown: Arc<MethodMetrics>,
}

impl WatchLayer {
    /// Knows the methods in these encoded descriptor sets; lets calls of ours in when `is_open`.
    ///
    /// # Errors
    /// When one cannot be decoded.
    pub(crate) fn new(
        descriptor_sets: &[&[u8]],
        is_open: Arc<AtomicBool>,
    ) -> Result<Self, prost::DecodeError> {
        let mut by_path = HashMap::new();
        for encoded in descriptor_sets {
            let set = prost_types::FileDescriptorSet::decode(*encoded)?;
            for file in set.file {
                for service in file.service {
                    let name =
                        format!("{}.{}", file.package.as_deref().unwrap_or(""), service.name());
                    for method in &service.method {
                        let metrics = MethodMetrics::new(&name, method.name());
                        by_path.insert(format!("/{name}/{}", method.name()), Arc::new(metrics));
                    }
                }
            }
        }
        let unknown = Arc::new(MethodMetrics::new("unknown", "unknown"));
        Ok(Self { methods: Arc::new(Methods { by_path, unknown }), is_open })
    }

    /// The same for another server of this process.
    pub(crate) fn opened_by(&self, is_open: Arc<AtomicBool>) -> Self {
        Self { methods: Arc::clone(&self.methods), is_open }
    }
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        let (methods, is_open) = (Arc::clone(&self.methods), Arc::clone(&self.is_open));
        Watched { inner, methods, is_open }
    }
}

/// Services whose calls are watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    methods: Arc<Methods>,
    is_open: Arc<AtomicBool>,
}

impl<S> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<WatchedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let metrics = self.methods.by_path.get(path).unwrap_or(&self.methods.unknown);
        let mut end = End::of(Arc::clone(metrics));
        let id = CallId::next();
        let span = tracing::debug_span!("call", %id, path);
        let is_ours = path.starts_with("/hearth.v1.") || path.starts_with("/google.longrunning.");
        let is_early = is_ours && path != WHILE_STARTING && !self.is_open.load(Ordering::Acquire);
        let refused = is_early.then(|| starting(path));
        request.extensions_mut().insert(id);
        let called = match refused {
            Some(refused) => Err(refused.into_status(id).into_http::<Body>()),
            None => Ok(self.inner.call(request)),
        };
        let watched = async move {
            let mut response = match called {
                Ok(called) => called.await?,
                Err(refused) => refused,
            };
            // An error without a body has its status here; otherwise it comes in the trailers.
            if response.headers().contains_key("grpc-status") {
                in_our_words(response.headers_mut());
                end.is(code_of(response.headers()));
            }
            Ok(response.map(|inner| WatchedBody { inner, end }))
        };
        Box::pin(watched.instrument(span))
    }
}

/// What a call gets that comes before recovery is over.
fn starting(path: &str) -> Refusal {
    match path {
        "/hearth.v1.VmService/AcquireVm" => {
            Refusal::Acquire { error: Error::Starting, allocated: false }
        }
        _ => Error::Starting.into(),
    }
}

/// A response's body; its end is the call's.
#[derive(Debug)]
pub(crate) struct WatchedBody {
    inner: Body,
    end: End,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            match frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.end.is(code_of(trailers));
                    }
                }
                Some(Err(status)) => self.end.is(status.code()),
                None => self.end.is(Code::Ok),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Notes how a call ended, once; dropped before that, its caller has left.
#[derive(Debug)]
struct End {
    metrics: Arc<MethodMetrics>,
    begun: Instant,
    has_ended: bool,
}

impl End {
    fn of(metrics: Arc<MethodMetrics>) -> Self {
        metrics.started();
        Self { metrics, begun: Instant::now(), has_ended: false }
    }

    fn is(&mut self, code: Code) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.metrics.handled(code, self.begun.elapsed());
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.is(Code::Cancelled);
    }
}

fn code_of(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// Gives an error of the transport's own the details that all of ours have.
fn in_our_words(headers: &mut HeaderMap) {
    if headers.contains_key("grpc-status-details-bin") || code_of(headers) == Code::Ok {
        return;
    }
    let Some(refused) = Status::from_header_map(headers) else { return };
    let Some(ours) = status::of_transport(refused.code(), refused.message()) else { return };
    // Only these headers: the content type is the response's already.
    let (parts, ()) = ours.into_http::<()>().into_parts();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_proto::StatusDetails;

    use super::*;

    #[test]
    fn a_message_that_is_too_long_is_a_wrong_request() {
        let refused = Status::out_of_range("message length too large: found 5000000 bytes");
        let (mut parts, ()) = refused.into_http::<()>().into_parts();
        in_our_words(&mut parts.headers);
        let status = Status::from_header_map(&parts.headers).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(StatusDetails::of(&status).reason.as_deref(), Some("INVALID_ARGUMENT"));
        assert!(status.message().contains("5000000"));
    }

    #[test]
    fn an_error_of_ours_is_left_as_it_is() {
        let (mut parts, ()) = status::method_unimplemented().into_http::<()>().into_parts();
        let before = parts.headers.clone();
        in_our_words(&mut parts.headers);
        assert_eq!(parts.headers, before);
    }
}
