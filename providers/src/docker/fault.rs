//! What can go wrong between us and the engine, told apart by what to do next.

use std::time::Duration;

use bollard::errors::Error;

use crate::error::{Cause, VmRuntimeError};

/// Why a request has no answer that we can use.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine refused.
    Refused { status: u16, message: String },
    /// It did not answer in time; what it did is unknown.
    Late(Duration),
    /// The VM is being destroyed: nobody waits for the answer any longer.
    Interrupted,
    /// It is out of reach.
    Unreachable(Cause),
    /// What it said is not understood.
    Garbled(Cause),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, message }
            }
            Error::DockerStreamError { error } => Self::Refused { status: 500, message: error },
            Error::RequestTimeoutError
            | Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::SocketNotFoundError(_) => Self::Unreachable(error.into()),
            other => Self::Garbled(other.into()),
        }
    }
}

impl Fault {
    /// There is no such container, image or network.
    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// A layer that two images were to have in common, the image that both come from, or one that
    /// had no name yet, went with another one, under the hands of an engine that does not hold it:
    /// podman. The next try makes it anew.
    pub(super) fn is_lost_image(&self) -> bool {
        // The last is of one that goes while it is read.
        const WORDS: [&str; 4] =
            ["layer not known", "image not known", "no such image", "locating item named"];
        let is_said = |message: &str| {
            let message = message.to_ascii_lowercase();
            WORDS.iter().any(|words| message.contains(words))
        };
        matches!(self, Self::Refused { message, .. } if is_said(message))
    }

    /// Somebody else asked for the same removal, and it is under way.
    pub(super) fn is_in_progress(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("already in progress"))
    }

    /// Whatever was asked for may have been done, or may yet be.
    pub(super) const fn is_unsettled(&self) -> bool {
        matches!(self, Self::Late(_) | Self::Interrupted | Self::Unreachable(_) | Self::Garbled(_))
    }

    /// The error of the contract; `what` was asked of the engine.
    pub(super) fn into_error(self, what: impl Into<String>) -> VmRuntimeError {
        let what = what.into();
        match self {
            Self::Refused { message, .. } if is_full(&message) => VmRuntimeError::Exhausted {
                what: format!("disk space ({what})"),
                retry_after: None,
            },
            Self::Refused { status: 503, message } => VmRuntimeError::unavailable(what, message),
            Self::Refused { message, .. } => VmRuntimeError::backend(what, message),
            Self::Late(after) => {
                VmRuntimeError::Timeout { what: format!("the container engine ({what})"), after }
            }
            Self::Interrupted => {
                VmRuntimeError::unavailable(what, "the VM is being destroyed".to_owned())
            }
            Self::Unreachable(cause) => VmRuntimeError::unavailable(
                format!("the container engine is out of reach ({what})"),
                cause,
            ),
            Self::Garbled(cause) => VmRuntimeError::backend(what, cause),
        }
    }
}

/// Engines have no status for it: the words are the kernel's.
fn is_full(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["no space left on device", "disk quota exceeded"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(status_code: u16, message: &str) -> &'static str {
        let message = message.to_owned();
        let fault = Fault::from(Error::DockerResponseServerError { status_code, message });
        fault.into_error("commit").kind()
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        assert_eq!(kind_of(500, "write /layer.tar: No space left on device"), "exhausted");
        assert_eq!(kind_of(500, "something else"), "backend");
        assert_eq!(kind_of(503, "shutting down"), "unavailable");
    }

    #[test]
    fn what_went_with_another_image_is_told_from_other_refusals() {
        let is_lost = |message: &str| {
            Fault::Refused { status: 500, message: message.to_owned() }.is_lost_image()
        };
        assert!(is_lost("locating image with ID \"7c2c\": image not known"));
        assert!(is_lost("creating container: layer not known") && is_lost("No such image: a:b"));
        assert!(is_lost(
            "locating item named \"manifest\" for image with ID \"ea71\": file does not exist"
        ));
        assert!(!is_lost("no such container: a"));
    }

    #[test]
    fn an_engine_that_is_not_there_is_unavailable() {
        let fault = Fault::from(Error::SocketNotFoundError("/run/none".to_owned()));
        assert!(fault.is_unsettled());
        assert_eq!(fault.into_error("start").kind(), "unavailable");
        let late = Fault::Late(Duration::from_secs(1)).into_error("start");
        assert_eq!(late.kind(), "timeout");
    }
}
