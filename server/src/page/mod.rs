//! The page for operators on the admin port: its files, and what they show as JSON below `/page/`.
//!
//! - It only reads: there is nothing here that changes anything, and no method but GET and HEAD.
//! - Where callers are told apart, data is for operators, by the token of each request; a console that is
//!   read is in the audit. Where they are not, data is for this machine alone, and asked for by an address or
//!   as `localhost`: another name may be another site's, that points here.
//! - At most [`RENDERINGS`] answers are made at once, on threads of their own, and a list is cut into parts;
//!   so whatever the page asks for holds up no call.
//! - Nothing comes from elsewhere, and no text becomes markup: the policy in each answer says so.

mod data;
mod doctor;
mod events;
mod files;
mod history;
mod view;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_pool::error::Error;
use hearth_pool::manager::Manager;
use hearth_pool::tasks::TaskGroup;
use hearth_proto::StatusDetails;
use hearth_providers::env::Env;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::admin::{Body, full};
use crate::audit::{self, Audit};
use crate::auth::Caller;
use crate::auth::guard::{Denial, Guard};
use crate::auth::rules::Access;
use crate::call::CallId;
use crate::config::Streams;
use crate::convert;
use crate::grpc::Services;
use crate::health::Health;
use crate::metrics;
use crate::status::Refusal;
use crate::watch::{Hub, VmSource};

use self::history::History;

pub(crate) use self::doctor::Doctor;

/// Answers that are made at once.
const RENDERINGS: usize = 2;
/// How long an answer may wait for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Streams of events at once: few of the port's connections, most of which are for scrapers and probes.
const STREAMS: usize = 16;
/// Bytes of what may be looked for.
const MAX_FIND_BYTES: usize = 256;

/// What a browser may do with what comes from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// See the module.
pub(crate) struct Page {
    manager: Arc<Manager>,
    env: Arc<dyn Env>,
    tasks: TaskGroup,
    health: Arc<Health>,
    guard: Arc<Guard>,
    audit: Option<Arc<Audit>>,
    history: Arc<History>,
    vms: Arc<Hub<VmSource>>,
    doctor: Arc<Doctor>,
    start_time: SystemTime,
    max_message_bytes: usize,
    streams: Streams,
    renderings: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").field("history", &self.history).finish_non_exhaustive()
    }
}

/// What is asked of data.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    /// Words that have to be there.
    find: String,
    /// Where the part before ended.
    after: String,
    uid: String,
}

/// Whether a token is wanted: all that strangers may know.
#[derive(Serialize)]
struct About {
    needs_token: bool,
}

/// Why something is refused.
struct Refused {
    status: StatusCode,
    reason: String,
    message: String,
}

/// A refusal, as it is written.
#[derive(Serialize)]
struct Wrong<'a> {
    reason: &'a str,
    message: &'a str,
}

impl Page {
    /// That of the server which `services` are of; its callers are those that `guard` knows.
    pub(crate) fn new(
        services: &Services,
        health: Arc<Health>,
        guard: Arc<Guard>,
        audit: Option<Arc<Audit>>,
        doctor: Arc<Doctor>,
    ) -> Arc<Self> {
        let (manager, tasks) = (Arc::clone(&services.manager), services.tasks.clone());
        Arc::new(Self {
            history: History::follow(&manager, &tasks),
            manager,
            env: Arc::clone(&services.env),
            tasks,
            health,
            guard,
            audit,
            vms: Arc::clone(&services.watched_vms),
            doctor,
            start_time: services.start_time,
            max_message_bytes: services.max_message_bytes,
            streams: services.streams.clone(),
            renderings: Arc::new(Semaphore::new(RENDERINGS)),
            places: Arc::new(Semaphore::new(STREAMS)),
        })
    }

    /// Answers a GET or HEAD from `peer`; `None` for what is not of the page.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: &mut Request<Incoming>,
        peer: SocketAddr,
    ) -> Option<Response<Body>> {
        let path = request.uri().path().to_owned();
        let mut answer = match files::file(&path, request.headers()) {
            Some(file) => file,
            None => {
                let what = path.strip_prefix("/page/")?;
                match self.data(what, request, peer).await {
                    Ok(answer) => answer,
                    Err(refused) => refused.into_response(),
                }
            }
        };
        protect(answer.headers_mut());
        Some(answer)
    }

    async fn data(
        self: &Arc<Self>,
        what: &str,
        request: &mut Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Refused> {
        if what == "about" {
            return Ok(json(&About { needs_token: self.guard.tells_apart() }));
        }
        self.let_in(request, peer)?;
        if self.health.not_ready() == Some("starting") {
            let message = "what there is is not known yet";
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "NODE_STARTING", message));
        }
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let page = Arc::clone(self);
        match what {
            "node" => self.render(move || Ok(json(&data::node(&page)))).await,
            "pools" => self.render(move || Ok(json(&data::pools(&page, &query)))).await,
            "templates" => {
                self.render(move || Ok(json(&data::templates(&page.manager, &query)))).await
            }
            "vms" => self.render(move || Ok(json(&data::vms(&page.manager, &query)))).await,
            "vm" => self.render(move || Ok(json(&data::vm(&page.manager, &query)?))).await,
            "console" => self.console(&query, &Caller::of(request.extensions())).await,
            "events" => self.events(&query).await,
            "doctor" => match self.doctor.ask().await {
                Some(report) => Ok(json(&*report)),
                None => {
                    let message = "it is still looking: ask again";
                    Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message))
                }
            },
            _ => Err(Refused::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such data")),
        }
    }

    /// Whether who asks may see data.
    fn let_in(&self, request: &mut Request<Incoming>, peer: SocketAddr) -> Result<(), Refused> {
        let forbidden = |reason, message| Refused::new(StatusCode::FORBIDDEN, reason, message);
        let site = request.headers().get("sec-fetch-site");
        if site.is_some_and(|site| site == "cross-site") {
            return Err(forbidden("FOREIGN_SITE", "it is asked for by another site's page"));
        }
        if !self.guard.tells_apart() {
            if !peer.ip().to_canonical().is_loopback() {
                let why =
                    "callers are not told apart, so this is for the machine itself: set auth.file";
                return Err(forbidden("NOT_LOCAL", why));
            }
            if !is_own_name(request.headers()) {
                let why = "it is asked for by a name that may be another site's: use the address, \
                           localhost, or set auth.file";
                return Err(forbidden("FOREIGN_HOST", why));
            }
        }
        self.guard.check(Access::Manage, request).map_err(Refused::from)
    }

    /// Makes an answer in its turn, on a thread that may be busy with it.
    async fn render(
        &self,
        make: impl FnOnce() -> Result<Response<Body>, Error> + Send + 'static,
    ) -> Result<Response<Body>, Refused> {
        let busy = || {
            let message = "as many answers are being made as may be";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message)
        };
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.renderings).acquire_owned()).await;
        // It is never closed.
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let (made, waits) = tokio::sync::oneshot::channel();
        self.tasks.spawn_blocking(move || {
            let _turn = turn;
            drop(made.send(make()));
        });
        let made = waits.await.map_err(|_| busy())?;
        made.map_err(|error| Refusal::from(error).into())
    }

    async fn console(&self, query: &Query, caller: &Caller) -> Result<Response<Body>, Refused> {
        let (call, begun) = (CallId::next(), Instant::now());
        let read = data::console(&self.manager, query).await;
        let about = match &read {
            Ok((_, vm_id, uid)) => (convert::vm::name(vm_id), uid.to_string()),
            Err(_) => (String::new(), query.uid.clone()),
        };
        let read = read.map(|(console, ..)| console).map_err(|error| {
            let status = Refusal::from(error).into_status(call);
            (status.code(), Refused::from(status))
        });
        let result = read.as_ref().map_or_else(|(code, _)| *code, |_| Code::Ok);
        if let Some(audit) = &self.audit {
            let note = Arc::new(audit::Note::default());
            note.is_about(&about.0, &about.1, "");
            audit.leave(audit::Event {
                call,
                method: "/page/console",
                caller: caller.clone(),
                peer: None,
                note,
                result: metrics::code_name(result),
                took: begun.elapsed(),
            });
        }
        read.map(|console| json(&console)).map_err(|(_, refused)| refused)
    }

    async fn events(&self, query: &Query) -> Result<Response<Body>, Refused> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = "as many streams of events are open as may be";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message)
        })?;
        let mut answer = Response::new(events::stream(&self.vms, &query.after, place).await?);
        let kind = HeaderValue::from_static("text/event-stream");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }
}

/// What every answer says of itself to a browser.
fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    // Plain data can be written.
    let mut answer = Response::new(full(serde_json::to_vec(value).unwrap_or_default()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The request names this server by an address or as `localhost`, and not by a name that anybody may have
/// point here.
fn is_own_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    without_port.eq_ignore_ascii_case("localhost") || without_port.parse::<IpAddr>().is_ok()
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refused> {
        let mut query = Self::default();
        for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let wrong = |why| Refused::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why);
            let value =
                decode(value).ok_or_else(|| wrong("the query is not encoded as it must be"))?;
            match key {
                "find" if value.len() > MAX_FIND_BYTES => {
                    return Err(wrong("what is looked for is too long"));
                }
                "find" => query.find = value,
                "after" => query.after = value,
                "uid" => query.uid = value,
                _ => return Err(wrong("there are find, after and uid")),
            }
        }
        Ok(query)
    }
}

/// A value of a query as it was before it was encoded.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Refused {
    fn new(status: StatusCode, reason: &str, message: &str) -> Self {
        Self { status, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn into_response(self) -> Response<Body> {
        let error = Wrong { reason: &self.reason, message: &self.message };
        let mut answer = json(&std::collections::BTreeMap::from([("error", error)]));
        *answer.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        answer
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Refusal::from(denial).into()
    }
}

/// As the same is refused over gRPC.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        refusal.into_status(CallId::next()).into()
    }
}

/// As over gRPC.
impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let reason = StatusDetails::of(&status).reason.unwrap_or_default();
        Self { status: code, reason, message: status.message().to_owned() }
    }
}

#[cfg(test)]
mod tests;
