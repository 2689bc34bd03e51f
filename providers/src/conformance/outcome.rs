//! How a case says that a provider breaks the contract.

use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::Location;

use crate::error::{Result, VmRuntimeError};

/// What a case, or a step of it, ends with.
pub type Outcome<T = ()> = std::result::Result<T, Broken>;

/// The contract is broken: how, and where that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(String);

impl Broken {
    /// Notes the place that calls this.
    #[track_caller]
    pub fn new(how: impl fmt::Display) -> Self {
        let place = Location::caller();
        Self(format!("{how} ({}:{})", place.file(), place.line()))
    }

    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self(format!("it panicked: {}", text.unwrap_or_default()))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A call that had to succeed was refused.
impl From<VmRuntimeError> for Broken {
    #[track_caller]
    fn from(error: VmRuntimeError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Self::new(format!("{} error: {error}{}", error.kind(), cause.unwrap_or_default()))
    }
}

/// Ends the case unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($how:tt)+) => {
        if !$holds {
            return Err($crate::conformance::Broken::new(format!($($how)+)));
        }
    };
}
pub(super) use ensure;

/// `seen` has to be `wanted`.
#[track_caller]
pub(super) fn same<T: PartialEq + Debug>(what: &str, seen: T, wanted: T) -> Outcome {
    if seen == wanted {
        return Ok(());
    }
    Err(Broken::new(format!("{what} is {seen:?} and should be {wanted:?}")))
}

/// A call had to be refused with an error of `kind`.
#[track_caller]
pub(super) fn refused<T>(call: Result<T>, kind: &str) -> Outcome<VmRuntimeError> {
    match call {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Broken::new(format!(
            "refused as {} and should be as {kind}: {error}",
            error.kind()
        ))),
        Ok(_) => Err(Broken::new(format!("it succeeded and should be refused as {kind}"))),
    }
}

/// How many of several calls succeeded, where the others may only be refused as `kind`.
#[track_caller]
pub(super) fn winners<T>(calls: Vec<Result<T>>, kind: &str) -> Outcome<usize> {
    let mut winners = 0;
    for call in calls {
        match call {
            Ok(_) => winners += 1,
            Err(error) if error.kind() == kind => {}
            Err(error) => {
                let how = format!("refused as {}, not as {kind}: {error}", error.kind());
                return Err(Broken::new(how));
            }
        }
    }
    Ok(winners)
}
