//! Errors become `google.rpc.Status`, here and nowhere else.
//!
//! The code says whether to retry, `RetryInfo` when, `ErrorInfo.reason` why. The cause of a
//! failure is logged once, here, under the call's id, which the caller gets in `RequestInfo`;
//! what it gets of the cause itself has no paths of this host.

mod reasons;

use std::collections::HashMap;
use std::time::Duration;

use hearth_pool::error::{Error, Kind, Violation};
use hearth_pool::follow::Mark;
use hearth_proto::details::{ALLOCATED, ERROR_DOMAIN};
use hearth_proto::names;
use hearth_providers::VmRuntimeError;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::auth::guard::Denial;
use crate::call::CallId;
#[cfg(test)]
pub(crate) use reasons::REASONS;

/// When to come back to a node that drains or starts, or whose journal or backend is down.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The key of the delay that clients with a retry policy heed, by the protocol's own rules.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Why a call was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// By the pool, or by a check of the fields on the way to it.
    Pool(Error),
    /// As [`Self::Pool`], of an acquire: says whether a VM may be waiting for a retry.
    Acquire {
        /// Why.
        error: Error,
        /// A VM may be waiting.
        allocated: bool,
    },
    /// Before a service saw it, or because of who calls.
    Denied {
        /// Why.
        denial: Denial,
        /// An acquire says of each failure whether a VM was allocated: here none was.
        is_acquire: bool,
    },
    /// The page token is not of this list.
    PageToken,
    /// It was not done by the call's deadline.
    Late,
    /// By the transport, in the middle of a stream.
    Transport(Status),
    /// Nobody said anything over a connection to a guest.
    ConnectionIdle {
        /// For so long.
        after: Duration,
    },
    /// A watch cannot go on where the token says.
    ResumeTokenExpired,
    /// The reader of a watch fell too far behind.
    WatchTooSlow,
    /// The lease to be renewed, or of the VM that somebody is connected to, has ended.
    LeaseNotHeld {
        /// The VM's name.
        vm: String,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Pool(error)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial, is_acquire: false }
    }
}

impl From<VmRuntimeError> for Refusal {
    fn from(error: VmRuntimeError) -> Self {
        Self::Pool(error.into())
    }
}

impl Refusal {
    /// What the caller gets. Logs the cause where that is news to the operator.
    pub(crate) fn into_status(self, call: CallId) -> Status {
        match self {
            Self::Pool(error) => of_error(&error, call).into_status(call),
            Self::Acquire { error, allocated } => {
                let answer = of_error(&error, call);
                says_allocated(answer, allocated, |answer| answer.into_status(call))
            }
            Self::Denied { denial, is_acquire: true } => {
                let answer = answer_to(&denial, call);
                says_allocated(answer, false, |answer| answer.into_status(call))
            }
            Self::Denied { denial, is_acquire: false } => {
                answer_to(&denial, call).into_status(call)
            }
            Self::PageToken => {
                let why = "it is not a token of this list, or the filter has changed";
                let answer = Answer::new(Code::InvalidArgument, "PAGE_TOKEN_INVALID", why);
                answer.field("page_token", why).into_status(call)
            }
            Self::Late => {
                let message = "it is not done yet; a retry with the same request_id joins it";
                let answer = Answer::new(Code::DeadlineExceeded, "DEADLINE_TOO_SHORT", message);
                answer.retry(RETRY_AFTER).into_status(call)
            }
            Self::Transport(status) => {
                of_transport(status.code(), status.message(), false).unwrap_or(status)
            }
            Self::ConnectionIdle { after } => {
                let message = format!("nothing was said for {} s: connect again", after.as_secs());
                Answer::new(Code::Aborted, "CONNECTION_IDLE", message).into_status(call)
            }
            Self::ResumeTokenExpired => {
                let message = "the watch cannot go on there: begin it afresh, without a token";
                Answer::new(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", message).into_status(call)
            }
            Self::WatchTooSlow => {
                let message = "more has changed than is kept for a slow reader: begin afresh";
                let answer = Answer::new(Code::ResourceExhausted, "WATCH_TOO_SLOW", message);
                answer.quota("max_watch_lag").into_status(call)
            }
            Self::LeaseNotHeld { vm } => {
                let message = format!("the lease of VM {vm} has ended");
                let answer = Answer::new(Code::FailedPrecondition, "LEASE_NOT_HELD", message);
                answer.precondition(&names::VMS.name(&vm)).into_status(call)
            }
        }
    }
}

/// The status of what was turned away without a call's id.
pub(crate) fn of_denial(denial: &Denial) -> Status {
    answer_to(denial, CallId::next()).into_status_without_call()
}

fn answer_to(denial: &Denial, call: CallId) -> Answer {
    match denial {
        Denial::Unauthenticated(why) => {
            let message = format!("it is not known who calls: {why}");
            Answer::new(Code::Unauthenticated, "UNAUTHENTICATED", message)
        }
        Denial::Forbidden(takes) => {
            let message = format!("the caller may not: it takes {takes}");
            Answer::new(Code::PermissionDenied, "PERMISSION_DENIED", message)
        }
        Denial::Overloaded(why) => {
            Answer::new(Code::Unavailable, "NODE_OVERLOADED", *why).retry(RETRY_AFTER)
        }
        Denial::TooSlow => {
            let message = "the request did not arrive in time";
            Answer::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message)
        }
        Denial::RateLimited(error) => of_error(error, call),
    }
}

/// A failed acquire says twice whether a VM may be waiting: for whoever reads details, and for whoever does not.
fn says_allocated(
    mut answer: Answer,
    allocated: bool,
    into_status: impl FnOnce(Answer) -> Status,
) -> Status {
    answer.metadata.insert(ALLOCATED.to_owned(), allocated.to_string());
    let mut status = into_status(answer);
    let allocated = if allocated { "true" } else { "false" };
    status.metadata_mut().insert(ALLOCATED, MetadataValue::from_static(allocated));
    status
}

/// The `ErrorInfo.reason` that a call would be refused with for `error`.
pub(crate) fn reason(error: &Error, call: CallId) -> &'static str {
    of_error(error, call).reason
}

/// The `ErrorInfo.reason` of what the pool counts by [`Error::reason`].
pub(crate) fn reason_of_counted(kind: &str) -> String {
    match kind {
        "draining" | "pool_draining" => "NODE_DRAINING".to_owned(),
        "starting" => "NODE_STARTING".to_owned(),
        "quota_exceeded" => "TENANT_QUOTA_EXCEEDED".to_owned(),
        "storage" => "STORAGE_UNAVAILABLE".to_owned(),
        // The only thing that an acquire finds to be gone.
        "not_found" => "POOL_NOT_FOUND".to_owned(),
        kind => kind.to_uppercase(),
    }
}

/// The status of what an operation ended with.
pub(crate) fn of_operation(error: &Error) -> tonic_types::pb::Status {
    use prost::Message as _;
    let status = of_error(error, CallId::next()).into_status_without_call();
    let decoded = tonic_types::pb::Status::decode(status.details());
    decoded.unwrap_or_else(|_| tonic_types::pb::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// The status of a method that is not built yet.
pub(crate) fn method_unimplemented() -> Status {
    let message = "this method is not built yet";
    Answer::new(Code::Unimplemented, "METHOD_UNIMPLEMENTED", message).into_status_without_call()
}

/// What the transport refused by itself, in our words. `None` when there is nothing to add.
pub(crate) fn of_transport(code: Code, message: &str, is_acquire: bool) -> Option<Status> {
    let answer = match code {
        Code::OutOfRange | Code::ResourceExhausted => {
            let answer = Answer::new(Code::InvalidArgument, "INVALID_ARGUMENT", message);
            answer.field("request", message)
        }
        Code::Internal if message.contains("decode") => {
            let answer = Answer::new(Code::InvalidArgument, "INVALID_ARGUMENT", message);
            answer.field("request", message)
        }
        Code::Unimplemented => {
            let message = if message.is_empty() { "there is no such method" } else { message };
            Answer::new(Code::Unimplemented, "METHOD_UNIMPLEMENTED", message)
        }
        Code::Internal | Code::Unknown => Answer::new(Code::Internal, "INTERNAL", message),
        _ => return None,
    };
    Some(match is_acquire {
        // No handler saw it.
        true => says_allocated(answer, false, Answer::into_status_without_call),
        false => answer.into_status_without_call(),
    })
}

/// See [`crate::fuzzing::is_known_reason`].
pub(crate) fn is_known_reason(reason: &str, code: Code) -> bool {
    reasons::is_known(reason, code)
}

/// A status in the making.
struct Answer {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Answer {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(reasons::is_known(reason, code), "{reason} of {code:?} is not in the table");
        let (metadata, details) = (HashMap::new(), ErrorDetails::new());
        Self { code, reason, message: message.into(), metadata, details }
    }

    fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    fn field(mut self, field: &str, description: &str) -> Self {
        self.details.add_bad_request_violation(field, description);
        self
    }

    fn resource(mut self, kind: &str, name: &str) -> Self {
        self.details.set_resource_info(kind, name, "", self.message.clone());
        self
    }

    fn precondition(mut self, subject: &str) -> Self {
        let message = self.message.clone();
        self.details.add_precondition_failure_violation(self.reason, subject, message);
        self
    }

    fn quota(mut self, subject: &str) -> Self {
        let message = self.message.clone();
        self.details.add_quota_failure_violation(subject, message);
        self
    }

    fn into_status(mut self, call: CallId) -> Status {
        self.details.set_request_info(call.to_string(), "");
        self.into_status_without_call()
    }

    fn into_status_without_call(mut self) -> Status {
        self.details.set_error_info(self.reason, ERROR_DOMAIN, self.metadata);
        let pushback = pushback(self.code, self.details.retry_info().and_then(|it| it.retry_delay));
        let mut status = Status::with_error_details(self.code, self.message, self.details);
        if let Some(pushback) = pushback {
            status.metadata_mut().insert(PUSHBACK, pushback);
        }
        status
    }
}

/// What clients with a retry policy wait for before they try again, in milliseconds: what `RetryInfo` says
/// in a way that they all know. Negative: not at all, where waiting does not help although the code
/// would let them.
fn pushback(code: Code, after: Option<Duration>) -> Option<MetadataValue<Ascii>> {
    match (code, after) {
        (_, Some(after)) => MetadataValue::try_from(after.as_millis().to_string()).ok(),
        (Code::ResourceExhausted | Code::Unavailable, None) => {
            Some(MetadataValue::from_static("-1"))
        }
        _ => None,
    }
}

fn of_error(error: &Error, call: CallId) -> Answer {
    let message = error.to_string();
    match error {
        Error::InvalidArgument(violations) => bad_request(&message, violations),
        Error::NotFound { kind: Kind::Provider, name } => {
            let violation = Violation {
                field: "provider".to_owned(),
                description: format!("no provider named {name:?} is configured"),
            };
            bad_request(&violation.description.clone(), &[violation])
        }
        Error::NotFound { kind, name } => {
            let answer = Answer::new(Code::NotFound, not_found(*kind), message);
            answer.resource(resource_type(*kind), &resource_name(*kind, name))
        }
        Error::AlreadyExists { kind, name } => {
            let answer = Answer::new(Code::AlreadyExists, already_exists(*kind), message);
            answer.resource(resource_type(*kind), &resource_name(*kind, name))
        }
        Error::InUse { kind, name, by: _ } => {
            let answer = Answer::new(Code::FailedPrecondition, in_use(*kind), message);
            answer.precondition(&resource_name(*kind, name))
        }
        Error::PoolEmpty { pool, retry_after } => {
            let answer = Answer::new(Code::ResourceExhausted, "POOL_EMPTY", message);
            answer.with("pool", names::POOLS.name(pool)).retry(*retry_after)
        }
        Error::ColdPathSaturated { pool, retry_after } => {
            let answer = Answer::new(Code::ResourceExhausted, "COLD_PATH_SATURATED", message);
            answer.with("pool", names::POOLS.name(pool)).retry(*retry_after)
        }
        Error::DeadlineTooShort { pool, retry_after } => {
            let answer = Answer::new(Code::DeadlineExceeded, "DEADLINE_TOO_SHORT", message);
            answer.with("pool", names::POOLS.name(pool)).retry(*retry_after)
        }
        Error::QuotaExceeded { tenant, max_vms } => {
            let answer = Answer::new(Code::ResourceExhausted, "TENANT_QUOTA_EXCEEDED", message);
            let answer = answer.with("tenant", tenant).with("max_vms", max_vms.to_string());
            answer.quota(&format!("tenant:{tenant}"))
        }
        Error::RateLimited { tenant, retry_after } => {
            let answer = Answer::new(Code::ResourceExhausted, "RATE_LIMITED", message);
            answer.with("tenant", tenant).retry(*retry_after)
        }
        Error::CapacityExhausted { what: _, retry_after } => {
            let answer = Answer::new(Code::ResourceExhausted, "CAPACITY_EXHAUSTED", message);
            answer.quota("node").retry(*retry_after)
        }
        Error::PoolDraining { pool } => {
            let answer = Answer::new(Code::Unavailable, "NODE_DRAINING", message);
            answer.with("pool", names::POOLS.name(pool)).retry(RETRY_AFTER)
        }
        Error::Draining => {
            Answer::new(Code::Unavailable, "NODE_DRAINING", message).retry(RETRY_AFTER)
        }
        Error::Starting => {
            Answer::new(Code::Unavailable, "NODE_STARTING", message).retry(RETRY_AFTER)
        }
        Error::TemplateNotReady { template, reason: _, retry_after } => {
            let answer = Answer::new(Code::FailedPrecondition, "TEMPLATE_NOT_READY", message);
            let answer = answer.precondition(&names::TEMPLATES.name(template));
            retry_after.iter().fold(answer, |answer, after| answer.retry(*after))
        }
        Error::RequestIdReused { request_id } => {
            let answer = Answer::new(Code::AlreadyExists, "REQUEST_ID_REUSED", message);
            answer.resource("request_id", request_id)
        }
        Error::RequestLogFull => {
            let answer = Answer::new(Code::ResourceExhausted, "REQUEST_LOG_FULL", message);
            answer.quota("max_remembered_requests")
        }
        Error::LeaseExpired { vm } => {
            let answer = Answer::new(Code::FailedPrecondition, "LEASE_EXPIRED", message);
            answer.precondition(&names::VMS.name(vm))
        }
        Error::UidMismatch { vm, .. } => {
            let answer = Answer::new(Code::FailedPrecondition, "UID_MISMATCH", message);
            answer.precondition(&names::VMS.name(vm))
        }
        Error::VmInPool { vm } => {
            let answer = Answer::new(Code::FailedPrecondition, "VM_IN_POOL", message);
            answer.precondition(&names::VMS.name(vm))
        }
        Error::EtagMismatch { kind, name } => {
            let answer = Answer::new(Code::Aborted, "ETAG_MISMATCH", message);
            answer.resource(resource_type(*kind), &resource_name(*kind, name))
        }
        Error::RestoreFailed { pool, retry_after, source } => {
            log_cause(error, call);
            let answer = Answer::new(Code::Unavailable, "RESTORE_FAILED", message);
            let answer = answer.with("pool", names::POOLS.name(pool)).with("cause", source.kind());
            answer.retry(*retry_after)
        }
        Error::HandoverFailed { pool, source } => {
            log_cause(error, call);
            let answer = Answer::new(Code::Unavailable, "RENAME_FAILED", message);
            let answer = answer.with("pool", names::POOLS.name(pool)).with("cause", source.kind());
            answer.retry(RETRY_AFTER)
        }
        Error::Provider(error) => of_provider(error, call),
        Error::Storage { .. } => {
            log_cause(error, call);
            Answer::new(Code::Unavailable, "STORAGE_UNAVAILABLE", message).retry(RETRY_AFTER)
        }
        Error::Interrupted => Answer::new(Code::Aborted, "OPERATION_INTERRUPTED", message),
        Error::Cancelled => Answer::new(Code::Cancelled, "OPERATION_CANCELLED", message),
        Error::FailedBefore { .. } => {
            Answer::new(Code::Aborted, "OPERATION_FAILED", scrubbed(&message))
        }
        Error::Unimplemented { .. } => {
            Answer::new(Code::Unimplemented, "METHOD_UNIMPLEMENTED", message)
        }
        Error::Internal(_) => {
            log_cause(error, call);
            Answer::new(Code::Internal, "INTERNAL", "internal error: the log says more")
        }
    }
}

fn of_provider(error: &VmRuntimeError, call: CallId) -> Answer {
    use VmRuntimeError as E;
    let message = error.to_string();
    let precondition = |reason, subject: &str, message| {
        Answer::new(Code::FailedPrecondition, reason, message).precondition(subject)
    };
    match error {
        E::InvalidId(_) => bad_request(&message, &[violation("id", &message)]),
        E::InvalidSpec { field, reason } => bad_request(&message, &[violation(field, reason)]),
        E::NotFound { vm_id } => {
            let answer = Answer::new(Code::NotFound, "VM_NOT_FOUND", message);
            answer.resource(resource_type(Kind::Vm), &names::VMS.name(vm_id.as_str()))
        }
        E::AlreadyExists { vm_id } => {
            let answer = Answer::new(Code::AlreadyExists, "VM_ALREADY_EXISTS", message);
            answer.resource(resource_type(Kind::Vm), &names::VMS.name(vm_id.as_str()))
        }
        E::InvalidTransition { vm_id, status, .. } => {
            let subject = names::VMS.name(vm_id.as_str());
            let state = format!("{status:?}").to_uppercase();
            precondition("INVALID_TRANSITION", &subject, message).with("state", state)
        }
        E::StopRequired { vm_id } => {
            precondition("STOP_REQUIRED", &names::VMS.name(vm_id.as_str()), message)
        }
        E::SnapshotNotFound { vm, snapshot_id, reason: _ } => {
            // What is missing may be a file of ours, whose path is nobody's business.
            let message = scrubbed(&message);
            let answer = Answer::new(Code::NotFound, "SNAPSHOT_NOT_FOUND", message);
            let name = format!("vms/{vm}/snapshots/{snapshot_id}");
            answer.resource(resource_type(Kind::Snapshot), &name)
        }
        E::SnapshotAlreadyExists { vm_id, snapshot_id } => {
            let answer = Answer::new(Code::AlreadyExists, "SNAPSHOT_ALREADY_EXISTS", message);
            let name = names::snapshot_name(vm_id.as_str(), snapshot_id.as_str());
            answer.resource(resource_type(Kind::Snapshot), &name)
        }
        E::SnapshotInUse { snapshot_id, .. } => {
            precondition("SNAPSHOT_IN_USE", &format!("snapshots/{snapshot_id}"), message)
        }
        E::SnapshotIncompatible { snapshot_id, .. } => {
            precondition("SNAPSHOT_INCOMPATIBLE", &format!("snapshots/{snapshot_id}"), message)
        }
        E::Unsupported { .. } => Answer::new(Code::Unimplemented, "PROVIDER_UNSUPPORTED", message),
        E::Exhausted { what, retry_after } => {
            log_cause(error, call);
            let answer = Answer::new(Code::ResourceExhausted, "CAPACITY_EXHAUSTED", message);
            answer.quota(&scrubbed(what)).retry(retry_after.unwrap_or(RETRY_AFTER))
        }
        E::Timeout { .. } | E::Unavailable { .. } => {
            log_cause(error, call);
            let answer = Answer::new(Code::Unavailable, "PROVIDER_UNAVAILABLE", scrubbed(&message));
            answer.with("cause", error.kind()).retry(RETRY_AFTER)
        }
        E::Backend { .. } => {
            log_cause(error, call);
            let answer = Answer::new(Code::Internal, "INTERNAL", scrubbed(&message));
            answer.with("cause", error.kind())
        }
    }
}

fn bad_request(message: &str, violations: &[Violation]) -> Answer {
    let mut answer = Answer::new(Code::InvalidArgument, "INVALID_ARGUMENT", message);
    let each = violations.iter().map(|it| FieldViolation::new(&it.field, &it.description));
    answer.details.set_bad_request(each.collect::<Vec<_>>());
    answer
}

fn violation(field: &str, description: &str) -> Violation {
    Violation { field: field.to_owned(), description: description.to_owned() }
}

/// The chain of causes goes to the log, and only there.
fn log_cause(error: &dyn std::error::Error, call: CallId) {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    // What a stream does has no mark.
    let call = Mark::current().is_none().then_some(call).map(tracing::field::display);
    tracing::warn!(call, %error, causes = causes.join(": "), "a call failed");
}

/// `text` without the paths in it.
fn scrubbed(text: &str) -> String {
    let is_path = |word: &str| word.trim_start_matches(['"', '(', '\'']).starts_with('/');
    let words = text.split(' ').map(|word| if is_path(word) { "(a path)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

const fn resource_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Vm => "hearth.v1.Vm",
        Kind::Pool => "hearth.v1.Pool",
        Kind::Template => "hearth.v1.Template",
        Kind::Snapshot => "hearth.v1.Snapshot",
        Kind::Artifact => "hearth.v1.Artifact",
        Kind::Operation => "google.longrunning.Operation",
        Kind::Provider => "hearth.v1.Provider",
    }
}

fn resource_name(kind: Kind, name: &str) -> String {
    let collection = match kind {
        Kind::Vm => "vms",
        Kind::Pool => "pools",
        Kind::Template => "templates",
        Kind::Snapshot => "snapshots",
        Kind::Artifact => "artifacts",
        Kind::Operation => "operations",
        Kind::Provider => "providers",
    };
    format!("{collection}/{name}")
}

/// Of a kind that API.md has no reason for, `INVALID_ARGUMENT`: only requests name those.
macro_rules! reason_by_kind {
    ($name:ident, $suffix:literal) => {
        const fn $name(kind: Kind) -> &'static str {
            match kind {
                Kind::Vm => concat!("VM_", $suffix),
                Kind::Pool => concat!("POOL_", $suffix),
                Kind::Template => concat!("TEMPLATE_", $suffix),
                Kind::Snapshot => concat!("SNAPSHOT_", $suffix),
                Kind::Artifact => concat!("ARTIFACT_", $suffix),
                Kind::Operation => concat!("OPERATION_", $suffix),
                Kind::Provider => "INVALID_ARGUMENT",
            }
        }
    };
}
reason_by_kind!(not_found, "NOT_FOUND");
reason_by_kind!(already_exists, "ALREADY_EXISTS");
reason_by_kind!(in_use, "IN_USE");

#[cfg(test)]
mod tests;
