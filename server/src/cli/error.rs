//! What went wrong, said so that the next step is clear, and as an exit code that scripts can act on.

use std::io::{self, Write as _};

use hearth_proto::StatusDetails;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::Format;
use super::text::short_duration;

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Shown by `hearth --help`; [`Error::exit_code`] is the code to it.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the wrong state, a name that is taken, a fault; the message says which
  2  the command or the request was wrong; nothing was done
  3  there is no such thing
  4  not now: nothing warm, full, draining, out of time or out of reach; trying again can help";

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Error {
    /// The server's answer, with what else the caller should know.
    Server { status: Box<Status>, hint: Option<String> },
    /// No connection came about.
    Unreachable { address: String, cause: String },
    /// The arguments, or a file that they name, are wrong.
    Usage(String),
    /// It took longer than the caller allowed.
    TimedOut(String),
    /// Anything else on this side.
    Failed(String),
    /// The reader of our output went away, as `head` does. Not worth a word.
    ReaderGone,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Server { status: Box::new(status), hint: None }
    }
}

impl Error {
    /// Adds what the caller should know when the server refused; other errors say it themselves.
    pub(crate) fn with_hint(self, more: impl Into<String>) -> Self {
        match self {
            Self::Server { status, .. } => Self::Server { status, hint: Some(more.into()) },
            other => other,
        }
    }

    /// Whether the server said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Server { status, .. } if status.code() == Code::NotFound)
    }

    /// As [`EXIT_CODES`] has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::TimedOut(_) => 4,
            Self::Server { status, .. } => match status.code() {
                Code::InvalidArgument => 2,
                Code::NotFound => 3,
                // What the client itself makes of a call that took too long is CANCELLED.
                Code::ResourceExhausted
                | Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled => 4,
                _ => 1,
            },
        }
    }

    /// Writes it to standard error: as text, or as one JSON object when the output is JSON.
    pub(crate) fn report(&self, format: Format) {
        if matches!(self, Self::ReaderGone) {
            return;
        }
        let report = self.to_report();
        let text = match format {
            Format::Json => serde_json::to_string_pretty(&Enveloped { error: &report })
                .unwrap_or_else(|_| report.message.clone()),
            Format::Table | Format::Name => report.to_text(),
        };
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// As [`Error::report`] writes it for people.
    pub(crate) fn to_text(&self) -> String {
        self.to_report().to_text()
    }

    fn to_report(&self) -> Report {
        let mut report = Report { exit_code: self.exit_code(), ..Report::default() };
        match self {
            Self::Server { status, hint } => report.fill(status, hint.clone()),
            Self::Unreachable { address, cause } => {
                report.code = "UNAVAILABLE".to_owned();
                report.message = format!("no hearth answers at {address}: {cause}");
                let hint = "is `hearth serve` running? --address or HEARTH_ADDRESS says where";
                report.hint = Some(hint.to_owned());
            }
            Self::TimedOut(message) => {
                report.code = "DEADLINE_EXCEEDED".to_owned();
                report.message.clone_from(message);
            }
            Self::Usage(message) => {
                report.code = "INVALID_ARGUMENT".to_owned();
                report.message.clone_from(message);
            }
            Self::Failed(message) => {
                report.code = "FAILED".to_owned();
                report.message.clone_from(message);
            }
            Self::ReaderGone => {}
        }
        report
    }
}

#[derive(Serialize)]
struct Enveloped<'a> {
    error: &'a Report,
}

/// An error as it is shown. Field names are stable.
#[derive(Debug, Default, Serialize)]
struct Report {
    code: String,
    reason: Option<String>,
    message: String,
    field_violations: Vec<FieldViolation>,
    /// What else the server said: preconditions, quotas, the resource.
    details: Vec<String>,
    retry_after: Option<String>,
    /// Whether a VM may be waiting for a retry; for failed acquires.
    allocated: Option<bool>,
    hint: Option<String>,
    exit_code: u8,
}

#[derive(Debug, Serialize)]
struct FieldViolation {
    field: String,
    description: String,
}

impl Report {
    fn fill(&mut self, status: &Status, hint: Option<String>) {
        let details = StatusDetails::of(status);
        let all = status.get_error_details();
        self.code = code_name(status.code()).to_owned();
        self.reason = details.reason;
        self.message = match status.message() {
            "" => format!("the server answered {}", self.code),
            message => message.to_owned(),
        };
        self.field_violations = all
            .bad_request()
            .map(|bad| bad.field_violations.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|it| FieldViolation {
                field: it.field.clone(),
                description: it.description.clone(),
            })
            .collect();
        let preconditions = all.precondition_failure().map(|it| it.violations.as_slice());
        for it in preconditions.unwrap_or_default() {
            self.details.push(format!("{} {}: {}", it.r#type, it.subject, it.description));
        }
        let quotas = all.quota_failure().map(|it| it.violations.as_slice());
        for it in quotas.unwrap_or_default() {
            self.details.push(format!("{}: {}", it.subject, it.description));
        }
        if let Some(resource) = all.resource_info() {
            self.details.push(format!("{} {}", resource.resource_type, resource.resource_name));
        }
        self.details.retain(|detail| !detail.trim_matches([' ', ':']).is_empty());
        self.retry_after = details.retry_after.map(short_duration);
        self.allocated = details.allocated;
        self.hint = hint;
    }

    fn to_text(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or(match self.code.as_str() {
            "FAILED" | "" => "error",
            code => code,
        });
        let mut text = format!("hearth: {reason}: {}", self.message);
        let mut line = |line: String| {
            text.push_str("\n  ");
            text.push_str(&line);
        };
        for violation in &self.field_violations {
            line(format!("{}: {}", violation.field, violation.description));
        }
        for detail in &self.details {
            line(detail.clone());
        }
        match self.allocated {
            Some(false) => line("no VM was allocated".to_owned()),
            Some(true) => line("a VM may have been allocated".to_owned()),
            None => {}
        }
        if let Some(after) = &self.retry_after {
            line(format!("try again in {after}"));
        }
        if let Some(hint) = &self.hint {
            line(hint.clone());
        }
        text
    }
}

/// The code as the protocol spells it.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    fn pool_empty() -> Error {
        let mut details = ErrorDetails::new();
        let allocated = [("allocated".to_owned(), "false".to_owned())];
        details
            .set_error_info("POOL_EMPTY", "hearth", allocated)
            .set_retry_info(Some(Duration::from_millis(30)));
        Status::with_error_details(Code::ResourceExhausted, "nothing is warm", details).into()
    }

    #[test]
    fn an_empty_pool_says_when_to_try_again_and_that_nothing_was_taken() {
        let error = pool_empty();
        assert_eq!(error.exit_code(), 4);
        let text = error.to_report().to_text();
        assert_eq!(
            text,
            "hearth: POOL_EMPTY: nothing is warm\n  no VM was allocated\n  try again in 30ms"
        );
    }

    #[test]
    fn wrong_fields_are_named() {
        let details = ErrorDetails::with_bad_request_violation("ttl", "it must be positive");
        let status = Status::with_error_details(Code::InvalidArgument, "bad request", details);
        let error = Error::from(status);
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_report().to_text().ends_with("\n  ttl: it must be positive"));
        let json = serde_json::to_value(error.to_report()).unwrap();
        assert_eq!(json["field_violations"][0]["field"], "ttl");
    }

    #[test]
    fn codes_tell_scripts_what_to_do() {
        let code_of = |code| Error::from(Status::new(code, "")).exit_code();
        assert_eq!(code_of(Code::NotFound), 3);
        assert_eq!(code_of(Code::Unavailable), 4);
        assert_eq!(code_of(Code::AlreadyExists), 1);
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::ReaderGone.exit_code(), 0);
    }
}
