//! What an error of this API says beside its code and message.
//!
//! The code says whether to retry, the delay when, and the reason why; programs match on the reason, never
//! on the message. All of it is optional: an error may come from a proxy, or from the transport, which know
//! nothing of it.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{StatusExt as _, pb};

/// `ErrorInfo.domain` of every error of this API.
pub const ERROR_DOMAIN: &str = "hearth";

/// Key under which a failed acquire says whether a VM may have been allocated to it: in the metadata of its
/// `ErrorInfo`, and in the call's trailing metadata.
pub const ALLOCATED: &str = "allocated";

/// What a failed call says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusDetails {
    /// `ErrorInfo.reason`, such as `POOL_EMPTY`. `None` when the error is not of this API.
    pub reason: Option<String>,
    /// How long to wait before trying again. `None` when the server does not say.
    pub retry_after: Option<Duration>,
    /// Of a failed acquire: false when no VM was touched, true when one may be waiting for a retry with the
    /// same `request_id`. `None` when the server does not say; then assume true.
    pub allocated: Option<bool>,
    /// The other facts in `ErrorInfo.metadata`.
    pub metadata: HashMap<String, String>,
}

impl StatusDetails {
    /// Reads the details of `status`. Those that do not decode count as absent.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let in_info = info.and_then(|info| info.metadata.get(ALLOCATED)).map(String::as_str);
        let in_trailer = || status.metadata().get(ALLOCATED).and_then(|v| v.to_str().ok());
        let allocated = in_info.or_else(in_trailer).and_then(|value| value.parse().ok());
        Self {
            reason: info.map(|info| info.reason.clone()),
            retry_after,
            allocated,
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        }
    }
}

/// The status of a call as an operation's `error` has it, details included, as if the call itself had
/// failed with it.
#[must_use]
pub fn status_from_operation(error: &pb::Status) -> Status {
    let details = error.encode_to_vec().into();
    Status::with_details(Code::from(error.code), error.message.clone(), details)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn pool_empty() -> Status {
        let mut details = ErrorDetails::new();
        let metadata = [(ALLOCATED, "false"), ("pool", "pools/a")];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned()));
        details
            .set_error_info("POOL_EMPTY", ERROR_DOMAIN, metadata)
            .set_retry_info(Some(Duration::from_millis(30)));
        Status::with_error_details(Code::ResourceExhausted, "nothing is warm", details)
    }

    #[test]
    fn reason_delay_and_allocation_are_read() {
        let details = StatusDetails::of(&pool_empty());
        assert_eq!(details.reason.as_deref(), Some("POOL_EMPTY"));
        assert_eq!(details.retry_after, Some(Duration::from_millis(30)));
        assert_eq!(details.allocated, Some(false));
        assert_eq!(details.metadata.get("pool").map(String::as_str), Some("pools/a"));
    }

    #[test]
    fn allocation_is_read_from_the_trailer_too() {
        let mut status = Status::unavailable("gone");
        status
            .metadata_mut()
            .insert(ALLOCATED, tonic::metadata::MetadataValue::from_static("true"));
        assert_eq!(StatusDetails::of(&status).allocated, Some(true));
    }

    #[test]
    fn an_error_of_another_domain_has_no_reason() {
        let details = ErrorDetails::with_error_info("POOL_EMPTY", "example.com", []);
        let status = Status::with_error_details(Code::Internal, "", details);
        assert_eq!(StatusDetails::of(&status), StatusDetails::default());
        let garbage = Status::with_details(Code::Internal, "", bytes::Bytes::from_static(b"\xff"));
        assert_eq!(StatusDetails::of(&garbage), StatusDetails::default());
    }

    #[test]
    fn an_operations_error_reads_like_a_calls() {
        let status = pool_empty();
        let error = pb::Status::decode(status.details()).unwrap();
        let again = status_from_operation(&error);
        assert_eq!(again.code(), status.code());
        assert_eq!(again.message(), status.message());
        assert_eq!(StatusDetails::of(&again), StatusDetails::of(&status));
    }
}
