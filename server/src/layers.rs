//! What every call goes through: it is counted and timed, gets an id, is held to the rule of its
//! method ([`crate::auth`]), is turned away while the server starts or has no place for it, and has an
//! error in our words where the transport itself refuses it.
//!
//! Names of methods come from the descriptors, so that a client cannot make up label values; a method
//! that is there and has no rule is an error.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hearth_pool::error::Error;
use hearth_proto::TraceContext;
use hearth_proto::details::ALLOCATED;
use hearth_providers::map::IdMap;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message as _;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use crate::audit::{Audit, Event, Note};
use crate::auth::Caller;
use crate::auth::guard::{Denial, Guard, Place};
use crate::auth::rules::{self, Rule};
use crate::call::CallId;
use crate::listen::arriving::Arriving;
use crate::listen::peer::Peer;
use crate::metrics::{self, MethodMetrics};
use crate::status::{self, Refusal};
use crate::telemetry;

/// Puts [`Watched`] around the services.
#[derive(Clone, Debug)]
pub(crate) struct WatchLayer {
    methods: Arc<Methods>,
    /// Recovery is over: until then nothing is known that could be answered.
    is_open: Arc<AtomicBool>,
    guard: Arc<Guard>,
    audit: Option<Arc<Audit>>,
}

/// What can be asked of a server that starts.
const WHILE_STARTING: &str = "/hearth.v1.NodeService/GetNode";
/// What says of each failure whether a VM was allocated.
const ACQUIRE: &str = "/hearth.v1.VmService/AcquireVm";

#[derive(Debug)]
struct Methods {
    by_path: IdMap<String, Known>,
    /// Of whatever is called that there is not.
    unknown: Known,
}

/// What is known of a method.
#[derive(Debug)]
struct Known {
    path: &'static str,
    metrics: Arc<MethodMetrics>,
    rule: Rule,
    /// Its request is one message.
    has_one_request: bool,
    has_one_answer: bool,
}

/// Why the methods cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLayer {
    /// The descriptors are none.
    #[error(transparent)]
    Descriptors(#[from] prost::DecodeError),
    /// A method has no line in the table of rules.
    #[error("{0} has no rule: say in the table of rules who may call it")]
    NoRule(String),
}

impl WatchLayer {
    /// Knows the methods in these encoded descriptor sets; lets calls of ours in when `is_open`, and
    /// those that `guard` lets in.
    ///
    /// # Errors
    /// When one cannot be decoded, or a method has no rule.
    pub(crate) fn new(
        descriptor_sets: &[&[u8]],
        is_open: Arc<AtomicBool>,
        guard: Arc<Guard>,
    ) -> Result<Self, NoLayer> {
        let mut by_path = IdMap::default();
        for encoded in descriptor_sets {
            let set = prost_types::FileDescriptorSet::decode(*encoded)?;
            for file in set.file {
                for service in file.service {
                    let name =
                        format!("{}.{}", file.package.as_deref().unwrap_or(""), service.name());
                    for method in &service.method {
                        let path = format!("/{name}/{}", method.name());
                        let rule = rules::rule(&path);
                        let (known, rule) = rule.ok_or_else(|| NoLayer::NoRule(path.clone()))?;
                        let metrics = Arc::new(MethodMetrics::new(&name, method.name()));
                        let known = Known {
                            path: known,
                            metrics,
                            rule,
                            has_one_request: !method.client_streaming(),
                            has_one_answer: !method.server_streaming(),
                        };
                        by_path.insert(path, known);
                    }
                }
            }
        }
        let metrics = Arc::new(MethodMetrics::new("unknown", "unknown"));
        let unknown = Known {
            path: "",
            metrics,
            rule: rules::UNKNOWN,
            has_one_request: true,
            has_one_answer: true,
        };
        let methods = Arc::new(Methods { by_path, unknown });
        Ok(Self { methods, is_open, guard, audit: None })
    }

    /// The same for another server of this process.
    pub(crate) fn opened_by(&self, is_open: Arc<AtomicBool>, guard: Arc<Guard>) -> Self {
        Self { methods: Arc::clone(&self.methods), is_open, guard, audit: None }
    }

    /// The same, and what is done is left in `audit`.
    pub(crate) fn kept_in(self, audit: Option<Arc<Audit>>) -> Self {
        Self { audit, ..self }
    }
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        let (methods, is_open) = (Arc::clone(&self.methods), Arc::clone(&self.is_open));
        let (guard, audit) = (Arc::clone(&self.guard), self.audit.clone());
        Watched { inner, methods, is_open, guard, audit }
    }
}

/// Services whose calls are watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    methods: Arc<Methods>,
    is_open: Arc<AtomicBool>,
    guard: Arc<Guard>,
    audit: Option<Arc<Audit>>,
}

impl<S> Watched<S> {
    /// What is left of a call in the audit, if anything is.
    fn record(&self, known: &Known, id: CallId, request: &mut Request<Body>) -> Option<Record> {
        let audit = self.audit.as_ref().filter(|_| known.rule.access.is_kept())?;
        let note = Arc::new(Note::default());
        request.extensions_mut().insert(Arc::clone(&note));
        Some(Record { audit: Arc::clone(audit), call: id, method: known.path, who: None, note })
    }

    /// Lets a call in, or says why not.
    fn admit(
        &self,
        known: &Known,
        request: &mut Request<Body>,
        record: Option<&mut Record>,
    ) -> Result<Place, Refusal> {
        let path = request.uri().path();
        let is_ours = path.starts_with("/hearth.v1.") || path.starts_with("/google.longrunning.");
        let is_early = is_ours && path != WHILE_STARTING && !self.is_open.load(Ordering::Acquire);
        let is_acquire = path == ACQUIRE;
        let refused = |denial| Refusal::Denied { denial, is_acquire };
        let checked = self.guard.check(known.rule.access, request);
        if let Some(record) = record
            && !matches!(checked, Err(Denial::Unauthenticated(_)))
        {
            let extensions = request.extensions();
            record.who = Some((Caller::of(extensions), extensions.get::<Arc<Peer>>().cloned()));
        }
        checked.map_err(refused)?;
        if is_early {
            let (error, allocated) = (Error::Starting, false);
            return Err(match is_acquire {
                true => Refusal::Acquire { error, allocated },
                false => error.into(),
            });
        }
        self.guard.place(request.extensions()).map_err(refused)
    }
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
        let known = self.methods.by_path.get(path).unwrap_or(&self.methods.unknown);
        let mut end = End::of(Arc::clone(&known.metrics));
        let id = CallId::next();
        let span = tracing::debug_span!(
            "call",
            %id,
            otel.name = known.path.strip_prefix('/').unwrap_or("unknown"),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.grpc.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let mark =
            id.mark(telemetry::join(&span, TraceContext::extract(request.headers()).as_ref()));
        end.span = span.clone();
        let is_acquire = path == ACQUIRE;
        request.extensions_mut().insert(id);
        end.record = self.record(known, id, &mut request);
        let opens = !known.has_one_answer;
        let called = match self.admit(known, &mut request, end.record.as_mut()) {
            Err(refused) => Err(refused.into_status(id).into_http::<Body>()),
            Ok(place) => {
                end.place = Some(place);
                let guard = &self.guard;
                let request = match known.has_one_request {
                    true => request.map(|body| Body::new(Arriving::new(body, Arc::clone(guard)))),
                    false => request,
                };
                Ok(self.inner.call(request))
            }
        };
        let watched = async move {
            let mut response = match called {
                Ok(called) => called.await?,
                Err(refused) => refused,
            };
            // An error without a body has its status here; otherwise it comes in the trailers.
            if response.headers().contains_key("grpc-status") {
                in_our_words(response.headers_mut(), is_acquire);
                end.is(code_of(response.headers()));
            } else if opens && let Some(record) = &end.record {
                record.leave("OPEN", end.begun.elapsed());
            }
            Ok(response.map(|inner| WatchedBody { inner, end }))
        };
        Box::pin(mark.scope(watched.instrument(span)))
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
    /// Held until its answer is sent, or dropped.
    place: Option<Place>,
    record: Option<Record>,
    span: Span,
}

/// What will be left of a call in the audit.
#[derive(Debug)]
struct Record {
    audit: Arc<Audit>,
    call: CallId,
    method: &'static str,
    /// Unset: nobody knows, and nothing is left.
    who: Option<(Caller, Option<Arc<Peer>>)>,
    note: Arc<Note>,
}

impl Record {
    fn leave(&self, result: &'static str, took: Duration) {
        let Some((caller, peer)) = self.who.clone() else { return };
        let (call, method, note) = (self.call, self.method, Arc::clone(&self.note));
        self.audit.leave(Event { call, method, caller, peer, note, result, took });
    }
}

impl End {
    fn of(metrics: Arc<MethodMetrics>) -> Self {
        metrics.started();
        let (begun, span) = (Instant::now(), Span::none());
        Self { metrics, begun, has_ended: false, place: None, record: None, span }
    }

    fn is(&mut self, code: Code) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let took = self.begun.elapsed();
            self.metrics.handled(code, took);
            if !self.span.is_disabled() {
                note_code(&self.span, code);
            }
            self.record.iter().for_each(|record| record.leave(metrics::code_name(code), took));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(place) = self.place.as_ref().filter(|_| !self.has_ended) {
            place.was_left();
        }
        self.is(Code::Cancelled);
    }
}

/// Says in the span of a call how it ended, which is now.
fn note_code(span: &Span, code: Code) {
    use Code as C;
    let _until_now = span.enter();
    span.record("rpc.grpc.status_code", code as i64);
    // Of the others the caller is the one to do something.
    if matches!(
        code,
        C::Unknown
            | C::DeadlineExceeded
            | C::Unimplemented
            | C::Internal
            | C::Unavailable
            | C::DataLoss
    ) {
        span.record("otel.status_code", "ERROR");
    }
}

fn code_of(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// Gives an error of the transport's own the details that all of ours have.
fn in_our_words(headers: &mut HeaderMap, is_acquire: bool) {
    if headers.contains_key("grpc-status-details-bin") || code_of(headers) == Code::Ok {
        return;
    }
    let Some(refused) = Status::from_header_map(headers) else { return };
    let ours = status::of_transport(refused.code(), refused.message(), is_acquire);
    let Some(ours) = ours else { return };
    // Only these headers: the content type is the response's already.
    let (parts, ()) = ours.into_http::<()>().into_parts();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", ALLOCATED] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_proto::StatusDetails;
    use hearth_providers::env::SystemEnv;
    use prost_types::{
        FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
    };

    use super::*;
    use crate::config::Config;
    use crate::listen::DESCRIPTOR_SETS;

    fn layer(descriptor_sets: &[&[u8]]) -> Result<WatchLayer, NoLayer> {
        let (env, settings) = (Arc::new(SystemEnv), Config::default().grpc);
        let guard = Guard::new(env, None, &Default::default(), &settings);
        WatchLayer::new(descriptor_sets, Arc::default(), guard)
    }

    #[test]
    fn every_method_that_is_served_has_a_rule_and_every_rule_its_method() {
        let layer = layer(&DESCRIPTOR_SETS).unwrap();
        assert_eq!(layer.methods.by_path.len(), rules::RULES.len());
    }

    #[test]
    fn a_method_without_a_rule_is_not_served() {
        let planted = |package: &str, service: &str, method: &str| {
            let method =
                MethodDescriptorProto { name: Some(method.to_owned()), ..Default::default() };
            let service = ServiceDescriptorProto {
                name: Some(service.to_owned()),
                method: vec![method],
                ..Default::default()
            };
            let file = FileDescriptorProto {
                package: Some(package.to_owned()),
                service: vec![service],
                ..Default::default()
            };
            FileDescriptorSet { file: vec![file] }.encode_to_vec()
        };
        let served = DESCRIPTOR_SETS[0];
        for (package, service, method) in [
            ("hearth.v1", "VmService", "TakeOverVm"),
            ("hearth.v1", "BackdoorService", "AcquireVm"),
            ("hearth.v2", "VmService", "AcquireVm"),
        ] {
            let planted = planted(package, service, method);
            let refused = layer(&[served, &planted]).unwrap_err().to_string();
            let path = format!("/{package}.{service}/{method}");
            assert!(refused.contains(&path), "{refused}");
        }
        assert!(layer(&[served, &planted("hearth.v1", "VmService", "AcquireVm")]).is_ok());
    }

    #[test]
    fn a_message_that_is_too_long_is_a_wrong_request() {
        let refused = Status::out_of_range("message length too large: found 5000000 bytes");
        let (mut parts, ()) = refused.into_http::<()>().into_parts();
        in_our_words(&mut parts.headers, false);
        let status = Status::from_header_map(&parts.headers).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(StatusDetails::of(&status).reason.as_deref(), Some("INVALID_ARGUMENT"));
        assert!(status.message().contains("5000000"));
    }

    #[test]
    fn an_acquire_that_the_transport_refused_took_nothing() {
        let (mut parts, ()) = Status::internal("failed to decode").into_http::<()>().into_parts();
        in_our_words(&mut parts.headers, true);
        let status = Status::from_header_map(&parts.headers).unwrap();
        assert_eq!(StatusDetails::of(&status).allocated, Some(false));
        assert_eq!(parts.headers.get(ALLOCATED).unwrap(), "false");
    }

    #[test]
    fn an_error_of_ours_is_left_as_it_is() {
        let (mut parts, ()) = status::method_unimplemented().into_http::<()>().into_parts();
        let before = parts.headers.clone();
        in_our_words(&mut parts.headers, false);
        assert_eq!(parts.headers, before);
    }
}
