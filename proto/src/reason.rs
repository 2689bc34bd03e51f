//! Errors by what programs match on.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use crate::details::StatusDetails;

macro_rules! reasons {
    ($($variant:ident $name:literal)*) => {
        /// Why a call failed: `ErrorInfo.reason`. What each means, and what to do, is in `docs/api.md`.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
            /// One that this version does not know.
            Other(String),
        }

        impl Reason {
            /// All that this version knows.
            pub const KNOWN: &[&str] = &[$($name),*];

            /// As the protocol has it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for Reason {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

reasons! {
    InvalidArgument "INVALID_ARGUMENT"
    PageTokenInvalid "PAGE_TOKEN_INVALID"
    Unauthenticated "UNAUTHENTICATED"
    PermissionDenied "PERMISSION_DENIED"
    VmNotFound "VM_NOT_FOUND"
    PoolNotFound "POOL_NOT_FOUND"
    TemplateNotFound "TEMPLATE_NOT_FOUND"
    SnapshotNotFound "SNAPSHOT_NOT_FOUND"
    ArtifactNotFound "ARTIFACT_NOT_FOUND"
    OperationNotFound "OPERATION_NOT_FOUND"
    VmAlreadyExists "VM_ALREADY_EXISTS"
    PoolAlreadyExists "POOL_ALREADY_EXISTS"
    TemplateAlreadyExists "TEMPLATE_ALREADY_EXISTS"
    SnapshotAlreadyExists "SNAPSHOT_ALREADY_EXISTS"
    ArtifactAlreadyExists "ARTIFACT_ALREADY_EXISTS"
    OperationAlreadyExists "OPERATION_ALREADY_EXISTS"
    RequestIdReused "REQUEST_ID_REUSED"
    VmInUse "VM_IN_USE"
    PoolInUse "POOL_IN_USE"
    TemplateInUse "TEMPLATE_IN_USE"
    SnapshotInUse "SNAPSHOT_IN_USE"
    ArtifactInUse "ARTIFACT_IN_USE"
    OperationInUse "OPERATION_IN_USE"
    InvalidTransition "INVALID_TRANSITION"
    StopRequired "STOP_REQUIRED"
    VmInPool "VM_IN_POOL"
    UidMismatch "UID_MISMATCH"
    LeaseExpired "LEASE_EXPIRED"
    LeaseNotHeld "LEASE_NOT_HELD"
    TemplateNotReady "TEMPLATE_NOT_READY"
    SnapshotIncompatible "SNAPSHOT_INCOMPATIBLE"
    EtagMismatch "ETAG_MISMATCH"
    OperationInterrupted "OPERATION_INTERRUPTED"
    OperationCancelled "OPERATION_CANCELLED"
    OperationFailed "OPERATION_FAILED"
    ConnectionIdle "CONNECTION_IDLE"
    ResumeTokenExpired "RESUME_TOKEN_EXPIRED"
    PoolEmpty "POOL_EMPTY"
    ColdPathSaturated "COLD_PATH_SATURATED"
    RateLimited "RATE_LIMITED"
    TenantQuotaExceeded "TENANT_QUOTA_EXCEEDED"
    CapacityExhausted "CAPACITY_EXHAUSTED"
    RequestLogFull "REQUEST_LOG_FULL"
    WatchTooSlow "WATCH_TOO_SLOW"
    DeadlineTooShort "DEADLINE_TOO_SHORT"
    RequestTooSlow "REQUEST_TOO_SLOW"
    NodeStarting "NODE_STARTING"
    NodeOverloaded "NODE_OVERLOADED"
    NodeDraining "NODE_DRAINING"
    RestoreFailed "RESTORE_FAILED"
    RenameFailed "RENAME_FAILED"
    ProviderUnavailable "PROVIDER_UNAVAILABLE"
    StorageUnavailable "STORAGE_UNAVAILABLE"
    ProviderUnsupported "PROVIDER_UNSUPPORTED"
    MethodUnimplemented "METHOD_UNIMPLEMENTED"
    Internal "INTERNAL"
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", .reason.as_ref().map_or_else(|| format!("{:?}", .status.code()), Reason::to_string), .status.message())]
pub struct ApiError {
    /// Why. `None` when the error is not of this API: of the transport, or of something between.
    pub reason: Option<Reason>,
    /// How long to wait before trying again. `None`: waiting does not help, or nobody knows.
    pub retry_after: Option<Duration>,
    /// Of a failed acquire: whether a VM may be waiting for a retry with the same `request_id`.
    pub allocated: Option<bool>,
    /// All that was said.
    pub status: Status,
}

impl ApiError {
    /// Whether it has this reason.
    #[must_use]
    pub fn is(&self, reason: &Reason) -> bool {
        self.reason.as_ref() == Some(reason)
    }

    /// The code that the call failed with.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let StatusDetails { reason, retry_after, allocated, metadata: _ } =
            StatusDetails::of(&status);
        let reason = reason.as_deref().map(Reason::from);
        Self { reason, retry_after, allocated, status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_as_itself_and_others_are_kept() {
        for name in Reason::KNOWN {
            let reason = Reason::from(*name);
            assert!(!matches!(reason, Reason::Other(_)), "{name}");
            assert_eq!(reason.as_str(), *name);
        }
        assert_eq!(Reason::from("NEWER").as_str(), "NEWER");
    }

    #[test]
    fn an_error_that_is_not_of_this_api_has_no_reason() {
        let error = ApiError::from(Status::unavailable("connection refused"));
        assert_eq!((error.reason.as_ref(), error.code()), (None, Code::Unavailable));
        assert_eq!(error.to_string(), "Unavailable: connection refused");
    }
}
