//! Every reason that an error can have: its code, when it comes, and what the client should do.
//!
//! `docs/api.md` shows this table, and a test compares. An answer whose reason or code is not in it does not
//! pass the tests.

use tonic::Code;

/// One reason.
#[cfg_attr(not(test), expect(dead_code, reason = "the page shows what the program does not need"))]
pub(crate) struct Reason {
    /// `ErrorInfo.reason`.
    pub(crate) name: &'static str,
    pub(crate) code: Code,
    /// What has happened.
    pub(crate) when: &'static str,
    /// What the client should do.
    pub(crate) then: &'static str,
}

macro_rules! reasons {
    ($($name:literal $code:ident: $when:literal => $then:literal;)*) => {
        /// All of them, as the page has them.
        pub(crate) const REASONS: &[Reason] =
            &[$(Reason { name: $name, code: Code::$code, when: $when, then: $then }),*];
    };
}

reasons! {
    "INVALID_ARGUMENT" InvalidArgument:
        "a field is wrong, or several; `BadRequest` names each with the reason" =>
        "mend the request";
    "PAGE_TOKEN_INVALID" InvalidArgument:
        "the page token is of another list or filter, or was made up" =>
        "list from the beginning";
    "UNAUTHENTICATED" Unauthenticated:
        "it is not known who calls: there is no token or certificate, or it is not good (any more)" =>
        "get a new one";
    "PERMISSION_DENIED" PermissionDenied:
        "whoever calls may not; the message says what it takes" =>
        "ask an operator for the role or the grant";
    "VM_NOT_FOUND" NotFound:
        "there is no such VM, or it is another tenant's" =>
        "acquire one; its lease may have ended";
    "POOL_NOT_FOUND" NotFound: "there is no such pool" => "mend the name, or make the pool";
    "TEMPLATE_NOT_FOUND" NotFound:
        "there is no such template, or that generation is not kept" =>
        "mend the name, or make the template";
    "SNAPSHOT_NOT_FOUND" NotFound:
        "there is no such snapshot, or its files are gone" =>
        "take another";
    "ARTIFACT_NOT_FOUND" NotFound:
        "there is no such artifact, or it is another tenant's, or it has expired" =>
        "freeze again";
    "OPERATION_NOT_FOUND" NotFound:
        "there is no such operation, or it ended so long ago that it is forgotten" =>
        "look at the resource itself";
    "VM_ALREADY_EXISTS" AlreadyExists:
        "the name is taken; no VM was touched" =>
        "choose another, or none and let the server choose";
    "POOL_ALREADY_EXISTS" AlreadyExists: "there is such a pool" => "update that one";
    "TEMPLATE_ALREADY_EXISTS" AlreadyExists: "there is such a template" => "update that one";
    "SNAPSHOT_ALREADY_EXISTS" AlreadyExists:
        "the VM has a snapshot of this name" =>
        "choose another, or none";
    "ARTIFACT_ALREADY_EXISTS" AlreadyExists:
        "there is such an artifact" =>
        "choose another name, or none";
    "OPERATION_ALREADY_EXISTS" AlreadyExists:
        "there is such an operation" =>
        "nothing: the server chooses their names";
    "REQUEST_ID_REUSED" AlreadyExists:
        "the `request_id` was sent before with another request" =>
        "make a new one for each request, and keep it for its retries only";
    "VM_IN_USE" FailedPrecondition: "something needs the VM" => "end that first";
    "POOL_IN_USE" FailedPrecondition:
        "tenants have VMs of the pool" =>
        "wait for their leases, or delete it with `force`";
    "TEMPLATE_IN_USE" FailedPrecondition:
        "a pool uses the template, or a build is under way" =>
        "delete or change the pool first";
    "SNAPSHOT_IN_USE" FailedPrecondition:
        "a template, an artifact or a VM needs the snapshot" =>
        "delete that first; `Snapshot.pinned_by` has it";
    "ARTIFACT_IN_USE" FailedPrecondition:
        "a VM runs from the artifact, or somebody reads it" =>
        "release the VM first";
    "OPERATION_IN_USE" FailedPrecondition:
        "the operation is under way" =>
        "wait for it";
    "INVALID_TRANSITION" FailedPrecondition:
        "the VM is in a state that the method does not lead out of; `state` in the metadata" =>
        "bring it into another, or acquire another VM";
    "STOP_REQUIRED" FailedPrecondition:
        "the provider cannot do it while the VM runs" =>
        "stop it first, or set `allow_stop`";
    "VM_IN_POOL" FailedPrecondition:
        "the VM waits in a pool and belongs to nobody" =>
        "acquire it";
    "UID_MISMATCH" FailedPrecondition:
        "the name has passed to another VM" =>
        "forget the VM: its lease has ended";
    "LEASE_EXPIRED" FailedPrecondition:
        "a retry of a call whose lease has ended" =>
        "acquire with a new `request_id`";
    "LEASE_NOT_HELD" FailedPrecondition:
        "the lease has ended: there is nothing to renew or to be connected to" =>
        "acquire again";
    "TEMPLATE_NOT_READY" FailedPrecondition:
        "the template is being built (then with `RetryInfo`) or its build failed" =>
        "wait for its operation; after a failure, update it";
    "SNAPSHOT_INCOMPATIBLE" FailedPrecondition:
        "the snapshot was made on another host, kernel or version than there is here" =>
        "take it anew, or restore it where it was made";
    "ETAG_MISMATCH" Aborted:
        "the resource has changed since it was read" =>
        "read it again, and decide anew";
    "OPERATION_INTERRUPTED" Aborted:
        "the server ended while the operation ran" =>
        "begin it again";
    "OPERATION_CANCELLED" Cancelled:
        "the operation was cancelled by `CancelOperation`, and has made nothing" =>
        "nothing, or begin it again";
    "OPERATION_FAILED" Aborted:
        "the operation failed in an earlier life of the server; its message is kept" =>
        "read the message";
    "CONNECTION_IDLE" Aborted:
        "neither side of a connection to a guest said anything for a long time" =>
        "connect again";
    "RESUME_TOKEN_EXPIRED" OutOfRange:
        "the watch cannot go on there: the server was restarted, or too much has changed since" =>
        "watch from the beginning";
    "POOL_EMPTY" ResourceExhausted:
        "nothing is warm, and the overflow policy is WARM_ONLY" =>
        "retry after `RetryInfo`, or allow a restore";
    "COLD_PATH_SATURATED" ResourceExhausted:
        "too many wait for restores already" =>
        "retry after `RetryInfo`";
    "RATE_LIMITED" ResourceExhausted:
        "the tenant calls more often than it may" =>
        "retry after `RetryInfo`";
    "TENANT_QUOTA_EXCEEDED" ResourceExhausted:
        "the tenant has as many VMs as it may" =>
        "release one; waiting does not help";
    "CAPACITY_EXHAUSTED" ResourceExhausted:
        "the node is full, or has no more places for such a call; `QuotaFailure` says of what" =>
        "retry after `RetryInfo`, or elsewhere";
    "REQUEST_LOG_FULL" ResourceExhausted:
        "more requests are under way than can be remembered" =>
        "wait for some of them";
    "WATCH_TOO_SLOW" ResourceExhausted:
        "the reader fell further behind than changes are kept" =>
        "watch from the beginning, and read faster";
    "DEADLINE_TOO_SHORT" DeadlineExceeded:
        "it is not expected to be done by the deadline, or was not done by it" =>
        "retry with a later deadline and the same `request_id`";
    "REQUEST_TOO_SLOW" DeadlineExceeded:
        "the request did not arrive in time; nothing was done" =>
        "send it faster";
    "NODE_STARTING" Unavailable:
        "the server recovers what it had; nothing was done" =>
        "retry after `RetryInfo`";
    "NODE_OVERLOADED" Unavailable:
        "more calls are under way than the node, or the tenant, may have; nothing was done" =>
        "retry after `RetryInfo`";
    "NODE_DRAINING" Unavailable:
        "the node, or the pool in the metadata, takes no more work; nothing was done" =>
        "retry after `RetryInfo`, better elsewhere";
    "RESTORE_FAILED" Unavailable:
        "restores of the template fail" =>
        "retry after `RetryInfo`; operators: `ExplainPool` has the cause";
    "RENAME_FAILED" Unavailable:
        "the handover failed with several VMs in turn" =>
        "retry after `RetryInfo`";
    "PROVIDER_UNAVAILABLE" Unavailable:
        "the backend does not answer, or not in time" =>
        "retry after `RetryInfo`";
    "STORAGE_UNAVAILABLE" Unavailable:
        "the journal cannot be written; nothing was promised" =>
        "retry after `RetryInfo`; operators: look at the disk";
    "PROVIDER_UNSUPPORTED" Unimplemented:
        "the provider cannot do it; `NodeService.GetNode` says what each can" =>
        "do without";
    "METHOD_UNIMPLEMENTED" Unimplemented:
        "there is no such method, or what the request asks for is not built" =>
        "do without";
    "INTERNAL" Internal:
        "a fault of ours, or the backend's; the log has the cause under the id in `RequestInfo`" =>
        "report it; a retry with the same `request_id` is safe";
}

/// Whether the table has this.
pub(super) fn is_known(name: &str, code: Code) -> bool {
    REASONS.iter().any(|reason| reason.name == name && reason.code == code)
}
