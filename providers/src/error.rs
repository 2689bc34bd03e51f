//! What can go wrong, named by what the caller can do about it.

use std::time::Duration;

use crate::id::{InvalidId, SnapshotId, VmId};
use crate::model::VmStatus;
use crate::transition::Verb;

/// The result of every provider call.
pub type Result<T, E = VmRuntimeError> = std::result::Result<T, E>;

/// A cause that this crate did not make.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a provider call failed. `Display` leaves the cause to `source()`.
#[derive(Debug, thiserror::Error)]
pub enum VmRuntimeError {
    /// The id breaks the grammar. Mend the id.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// The spec asks for what cannot be. Mend the field.
    #[error("{field}: {reason}")]
    InvalidSpec {
        /// The field of [`crate::VmSpec`].
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No VM has this name.
    #[error("no VM is named {vm_id}")]
    NotFound {
        /// The name asked for.
        vm_id: VmId,
    },
    /// A VM has this name already. Choose another.
    #[error("a VM named {vm_id} exists already")]
    AlreadyExists {
        /// The name asked for.
        vm_id: VmId,
    },
    /// The VM is not in a state for this verb. Look at it, then decide.
    #[error("cannot {verb} VM {vm_id}: it is {status:?}")]
    InvalidTransition {
        /// The VM's name.
        vm_id: VmId,
        /// Its state.
        status: VmStatus,
        /// What was asked of it.
        verb: Verb,
    },
    /// This backend can do it to a stopped VM only. Stop it, or allow the stop.
    #[error("VM {vm_id} must be stopped for this")]
    StopRequired {
        /// The VM's name.
        vm_id: VmId,
    },
    /// There is no such snapshot, or its files are gone. Take or import one.
    #[error("VM {vm} has no snapshot {snapshot_id}: {reason}")]
    SnapshotNotFound {
        /// The VM's name or uid, as asked for.
        vm: String,
        /// The snapshot asked for.
        snapshot_id: SnapshotId,
        /// What is missing.
        reason: String,
    },
    /// The VM has a snapshot of this name. Choose another.
    #[error("VM {vm_id} has a snapshot {snapshot_id} already")]
    SnapshotAlreadyExists {
        /// The VM's name.
        vm_id: VmId,
        /// The snapshot's name.
        snapshot_id: SnapshotId,
    },
    /// The snapshot is in use. Release what pins it first.
    #[error("snapshot {snapshot_id} is pinned by {}", pinned_by.join(", "))]
    SnapshotInUse {
        /// The snapshot's name.
        snapshot_id: SnapshotId,
        /// Names of its pins.
        pinned_by: Vec<String>,
    },
    /// The snapshot does not fit this host. Rebuild it here.
    #[error("snapshot {snapshot_id} does not fit this host: {reason}")]
    SnapshotIncompatible {
        /// The snapshot's name.
        snapshot_id: SnapshotId,
        /// What differs, with both versions.
        reason: String,
    },
    /// This provider cannot do it, ever.
    #[error("not supported by this provider: {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// The host or a limit is full. Retry later or elsewhere.
    #[error("{what} is exhausted")]
    Exhausted {
        /// What there is no more of.
        what: String,
        /// When it may be worth another try, if known.
        retry_after: Option<Duration>,
    },
    /// The backend did not answer in time; what it did is unknown. Look, then retry.
    #[error("{what} did not answer within {after:?}")]
    Timeout {
        /// Who was asked for what.
        what: String,
        /// How long it was given.
        after: Duration,
    },
    /// The backend is out of reach or failed in passing. Retry.
    #[error("{what}")]
    Unavailable {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: Option<Cause>,
    },
    /// The backend failed and will fail again. Read the cause.
    #[error("{what}")]
    Backend {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: Option<Cause>,
    },
}

impl VmRuntimeError {
    /// A lasting failure of the backend, with its cause.
    pub fn backend(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Backend { what: what.into(), source: Some(source.into()) }
    }

    /// A passing failure of the backend, with its cause.
    pub fn unavailable(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Unavailable { what: what.into(), source: Some(source.into()) }
    }

    /// The kind as one word of a bounded set, for metrics and for tests that compare kinds.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::InvalidId(_) => "invalid_id",
            Self::InvalidSpec { .. } => "invalid_spec",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::InvalidTransition { .. } => "invalid_transition",
            Self::StopRequired { .. } => "stop_required",
            Self::SnapshotNotFound { .. } => "snapshot_not_found",
            Self::SnapshotAlreadyExists { .. } => "snapshot_already_exists",
            Self::SnapshotInUse { .. } => "snapshot_in_use",
            Self::SnapshotIncompatible { .. } => "snapshot_incompatible",
            Self::Unsupported { .. } => "unsupported",
            Self::Exhausted { .. } => "exhausted",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::Backend { .. } => "backend",
        }
    }

    /// Every word that [`Self::kind`] can answer.
    pub const KINDS: [&'static str; 15] = [
        "invalid_id",
        "invalid_spec",
        "not_found",
        "already_exists",
        "invalid_transition",
        "stop_required",
        "snapshot_not_found",
        "snapshot_already_exists",
        "snapshot_in_use",
        "snapshot_incompatible",
        "unsupported",
        "exhausted",
        "timeout",
        "unavailable",
        "backend",
    ];
}
