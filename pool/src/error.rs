//! What can go wrong, named by what the caller can do about it; free of transport.

use std::fmt;
use std::time::Duration;

use hearth_providers::VmRuntimeError;

/// The result of what the pool is asked for.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `vms/`
    Vm,
    /// `pools/`
    Pool,
    /// `templates/`
    Template,
    /// `vms/*/snapshots/`
    Snapshot,
    /// `artifacts/`
    Artifact,
    /// `operations/`
    Operation,
    /// A configured provider.
    Provider,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vm => "VM",
            Self::Pool => "pool",
            Self::Template => "template",
            Self::Snapshot => "snapshot",
            Self::Artifact => "artifact",
            Self::Operation => "operation",
            Self::Provider => "provider",
        })
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why the pool did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong. Mend the fields.
    #[error("{}", describe(.0))]
    InvalidArgument(Vec<Violation>),
    /// There is no such thing.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The name is taken. Choose another.
    #[error("{kind} {name} exists already")]
    AlreadyExists {
        /// What was to be made.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Something still uses it. End that first.
    #[error("{kind} {name} is in use by {by}")]
    InUse {
        /// What was to be removed or changed.
        kind: Kind,
        /// Its name.
        name: String,
        /// What uses it.
        by: String,
    },
    /// Nothing is warm, and the caller wanted nothing else. Retry later.
    #[error("pool {pool} has no warm VM")]
    PoolEmpty {
        /// The pool.
        pool: String,
        /// When one is expected.
        retry_after: Duration,
    },
    /// Too many wait already. Retry later.
    #[error("too many callers wait for pool {pool}")]
    ColdPathSaturated {
        /// The pool.
        pool: String,
        /// When there may be room.
        retry_after: Duration,
    },
    /// It cannot be done in the time given. Give more, or retry when it is warm.
    #[error("a VM of pool {pool} takes longer than the deadline allows")]
    DeadlineTooShort {
        /// The pool.
        pool: String,
        /// When one is expected.
        retry_after: Duration,
    },
    /// The tenant has as many VMs as it may have. Release one first.
    #[error("tenant {tenant} has the {max_vms} VMs that it may have")]
    QuotaExceeded {
        /// The tenant.
        tenant: String,
        /// How many it may have.
        max_vms: usize,
    },
    /// The tenant acquires more often than it may. Retry later.
    #[error("tenant {tenant} acquires more often than it may")]
    RateLimited {
        /// The tenant.
        tenant: String,
        /// When the next acquire is let through.
        retry_after: Duration,
    },
    /// Tenants have everything that the node may give. Go elsewhere, or retry later.
    #[error("the node has no room for another VM: {what}")]
    CapacityExhausted {
        /// What is exhausted.
        what: String,
        /// When another try may be worth it.
        retry_after: Duration,
    },
    /// The pool takes no acquires. Use another.
    #[error("pool {pool} is draining")]
    PoolDraining {
        /// The pool.
        pool: String,
    },
    /// The node takes no new work. Go elsewhere.
    #[error("this node is draining")]
    Draining,
    /// The node has not finished its recovery. Retry soon.
    #[error("this node is starting")]
    Starting,
    /// The template has nothing to restore from now.
    #[error("template {template} is not ready: {reason}")]
    TemplateNotReady {
        /// The template.
        template: String,
        /// Why, and what mends it.
        reason: String,
        /// When it may be, while it is being built.
        retry_after: Option<Duration>,
    },
    /// The request id was used for a different request.
    #[error("request_id {request_id} was used for a different request")]
    RequestIdReused {
        /// The request id.
        request_id: String,
    },
    /// Too many requests are remembered, all of them of live leases.
    #[error("no more request ids can be remembered")]
    RequestLogFull,
    /// The lease that the request id stands for has ended.
    #[error("the lease of VM {vm} has ended")]
    LeaseExpired {
        /// The VM.
        vm: String,
    },
    /// The name has another holder than the caller thinks.
    #[error("VM {vm} has uid {actual}, not {expected}")]
    UidMismatch {
        /// The VM.
        vm: String,
        /// What the caller said.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The VM is warm and the pool's: nobody's to touch.
    #[error("VM {vm} waits in a pool")]
    VmInPool {
        /// The VM.
        vm: String,
    },
    /// The thing has changed since it was read. Read it again.
    #[error("{kind} {name} has changed: the etag does not match")]
    EtagMismatch {
        /// What was to be changed.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// A VM could not be restored for the caller.
    #[error("no VM of pool {pool} could be restored")]
    RestoreFailed {
        /// The pool.
        pool: String,
        /// When the next try is due.
        retry_after: Duration,
        /// Why.
        #[source]
        source: VmRuntimeError,
    },
    /// Warm VMs were there and could not be given their new name.
    #[error("a warm VM of pool {pool} could not be handed over")]
    HandoverFailed {
        /// The pool.
        pool: String,
        /// Why.
        #[source]
        source: VmRuntimeError,
    },
    /// The provider refused or failed.
    #[error(transparent)]
    Provider(#[from] VmRuntimeError),
    /// The journal cannot be written: nothing is handed out until it can.
    #[error("the journal cannot be written")]
    Storage {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation was under way when hearth ended. Begin it again.
    #[error("hearth ended while this was under way: begin it again")]
    Interrupted,
    /// An operation was cancelled before it had made anything.
    #[error("it was cancelled, and has made nothing")]
    Cancelled,
    /// An operation had failed before hearth was started again.
    #[error("{message}")]
    FailedBefore {
        /// What it failed with, in words.
        message: String,
    },
    /// Asked for, and not built yet.
    #[error("not built yet: {what}")]
    Unimplemented {
        /// What was asked for.
        what: &'static str,
    },
    /// A mistake of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// One wrong field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        Self::InvalidArgument(vec![Violation { field, description }])
    }

    /// There is no such VM.
    pub fn no_vm(name: impl fmt::Display) -> Self {
        Self::NotFound { kind: Kind::Vm, name: name.to_string() }
    }

    /// The kind as one word of a bounded set, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "invalid_argument",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::InUse { .. } => "in_use",
            Self::PoolEmpty { .. } => "pool_empty",
            Self::ColdPathSaturated { .. } => "cold_path_saturated",
            Self::DeadlineTooShort { .. } => "deadline_too_short",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::RateLimited { .. } => "rate_limited",
            Self::CapacityExhausted { .. } => "capacity_exhausted",
            Self::PoolDraining { .. } => "pool_draining",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::TemplateNotReady { .. } => "template_not_ready",
            Self::RequestIdReused { .. } => "request_id_reused",
            Self::RequestLogFull => "request_log_full",
            Self::LeaseExpired { .. } => "lease_expired",
            Self::UidMismatch { .. } => "uid_mismatch",
            Self::VmInPool { .. } => "vm_in_pool",
            Self::EtagMismatch { .. } => "etag_mismatch",
            Self::RestoreFailed { .. } => "restore_failed",
            Self::HandoverFailed { .. } => "rename_failed",
            Self::Provider(error) => error.kind(),
            Self::Storage { .. } => "storage",
            Self::Interrupted => "operation_interrupted",
            Self::Cancelled => "operation_cancelled",
            Self::FailedBefore { .. } => "operation_failed",
            Self::Unimplemented { .. } => "unimplemented",
            Self::Internal(_) => "internal",
        }
    }
}

fn describe(violations: &[Violation]) -> String {
    let each = violations.iter().map(|it| format!("{}: {}", it.field, it.description));
    each.collect::<Vec<_>>().join("; ")
}
