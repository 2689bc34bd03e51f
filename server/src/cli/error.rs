//! What went wrong, said so that the next step is clear, and as an exit code that scripts can act on.

use std::io::{self, IsTerminal as _, Write as _};

use hearth_proto::StatusDetails;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::{Format, Tone, err_has_colours};
use super::text::{printable, short_duration};

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Shown by `hearth --help`; [`Error::exit_code`] is the code to it.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the wrong state, a name that is taken, a fault; the message says which
  2  the command or the request was wrong; nothing was done
  3  there is no such thing
  4  not now: nothing warm, full, draining, out of time or out of reach; trying again can help
  130  interrupted; what the server had begun goes on";

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Error {
    /// The server's answer, with what else the caller should know.
    Server { status: Box<Status>, hint: Option<String> },
    /// No connection came about; `address` is with what says so.
    Unreachable { address: String, cause: String, hint: &'static str },
    /// The arguments, or a file that they name, are wrong.
    Usage(String),
    /// It took longer than the caller allowed.
    TimedOut(String),
    /// Anything else on this side.
    Failed(String),
    /// The reader of our output went away, as `head` does. Not worth a word.
    ReaderGone,
    /// By the user, who is told what goes on without the command.
    Interrupted(Option<String>),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Server { status: Box::new(status), hint: None }
    }
}

/// What mends a connection that did not come about, by a part of its cause.
const MENDS: &[(&str, &str)] = &[
    (
        "UnknownIssuer",
        "its certificate is from none of the authorities that --ca or HEARTH_CA names: take the server's own",
    ),
    ("not valid for name", "--server-name says what its certificate is for"),
    (
        "CaUsedAsEndEntity",
        "its certificate is an authority's: it needs one that an authority has signed",
    ),
    ("certificate: Expired", "its operator has to renew it"),
    ("HTTPS without TLS", "say which authorities its certificate comes from: --ca or HEARTH_CA"),
    ("CertificateRequired", "it wants a certificate of yours: --certificate and --key"),
    ("InvalidContentType", "it does not encrypt there: http:// in place of https://"),
    ("ermission denied", "its socket is for its own user and root"),
    (
        "failed to lookup",
        "is the name spelt as it should be? --address or HEARTH_ADDRESS says where",
    ),
    (
        "deadline has elapsed",
        "is it up, and does a firewall let you through? --address or HEARTH_ADDRESS says where",
    ),
];

/// What to do next from a shell, by the reason of a refusal.
const NEXT: &[(&str, &str)] = &[
    ("POOL_NOT_FOUND", "`hearth pools` lists those that there are"),
    ("VM_NOT_FOUND", "`hearth vms` lists those that you may see"),
    (
        "TEMPLATE_NOT_FOUND",
        "`hearth templates` lists them, `hearth templates generations NAME` what is kept of one",
    ),
    ("SNAPSHOT_NOT_FOUND", "`hearth snapshots list VM` lists those of a VM"),
    ("ARTIFACT_NOT_FOUND", "`hearth artifacts` lists those that you may see"),
    ("OPERATION_NOT_FOUND", "`hearth operations` lists those that are remembered"),
    ("VM_ALREADY_EXISTS", "another name will do, or none: the server chooses one then"),
    ("POOL_EMPTY", "`hearth pools explain POOL` says why"),
    ("COLD_PATH_SATURATED", "`hearth pools explain POOL` says why"),
    ("RESTORE_FAILED", "`hearth pools explain POOL` has the cause"),
    (
        "TEMPLATE_NOT_READY",
        "`hearth operations` has its build. One that failed is made again by `hearth apply`, and when the server \
         is started again",
    ),
    ("NODE_DRAINING", "`hearth pools undrain POOL`, or `hearth node undrain`, ends that"),
    ("TENANT_QUOTA_EXCEEDED", "`hearth vms` lists yours: release one"),
    (
        "CAPACITY_EXHAUSTED",
        "`hearth node` shows what room there is, `hearth usage` what the disk is taken by",
    ),
    ("STORAGE_UNAVAILABLE", "is its disk full? The server's log has the cause"),
];

/// What mends a connection that came about and broke.
const HUNG_UP: &str = "does it encrypt there (https:// and --ca), or want a certificate (--certificate and --key)? \
                       else its log says why it hung up";

impl Error {
    /// No connection to `address` came about because of `cause`.
    pub(crate) fn unreachable(address: String, cause: String) -> Self {
        let known = MENDS.iter().find(|(part, _)| cause.contains(part));
        let hint = known.map_or(
            "is `hearth serve` running? --address or HEARTH_ADDRESS says where",
            |(_, hint)| hint,
        );
        Self::Unreachable { address, cause, hint }
    }

    /// Adds where the call went, or who called, where that may be what is wrong.
    pub(crate) fn about(self, address: String, who: Option<String>) -> Self {
        match self {
            Self::Server { status, .. } if is_broken(&status) => Self::Unreachable {
                address,
                cause: format!("the connection broke: {}", status.message()),
                hint: HUNG_UP,
            },
            Self::Server { status, hint: None } if status.code() == Code::Unauthenticated => {
                let hint = match who {
                    Some(who) => format!("that was {who}: `hearth config` shows what is used"),
                    None => "say who calls: --token-file FILE, or --certificate FILE --key FILE"
                        .to_owned(),
                };
                Self::Server { status, hint: Some(hint) }
            }
            Self::Server { status, hint: None } if status.code() == Code::PermissionDenied => {
                let hint = who.map(|who| format!("that was {who}"));
                Self::Server { status, hint }
            }
            other => other,
        }
    }

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
            Self::Interrupted(_) => 130,
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
        match self {
            Self::ReaderGone => return,
            // The terminal stands behind the key that interrupted.
            Self::Interrupted(None) => {
                if io::stderr().is_terminal() {
                    let _ = writeln!(io::stderr());
                }
                return;
            }
            _ => {}
        }
        let report = self.to_report();
        let text = match format {
            Format::Json => serde_json::to_string_pretty(&Enveloped { error: &report })
                .unwrap_or_else(|_| report.message.clone()),
            Format::Table | Format::Wide | Format::Name => report.to_text(err_has_colours()),
        };
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// As [`Error::report`] writes it for people.
    pub(crate) fn to_text(&self) -> String {
        self.to_report().to_text(false)
    }

    fn to_report(&self) -> Report {
        let mut report = Report { exit_code: self.exit_code(), ..Report::default() };
        match self {
            Self::Server { status, hint } => report.fill(status, hint.clone()),
            Self::Unreachable { address, cause, hint } => {
                report.code = "UNAVAILABLE".to_owned();
                report.message = format!("no hearth answers at {address}: {cause}");
                report.hint = Some((*hint).to_owned());
            }
            Self::Interrupted(goes_on) => {
                report.code = "INTERRUPTED".to_owned();
                report.message = goes_on.clone().unwrap_or_default();
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
            // What the message says is not said twice.
            self.details.push(match it.description == self.message {
                true => it.subject.clone(),
                false => format!("{} {}: {}", it.r#type, it.subject, it.description),
            });
        }
        let quotas = all.quota_failure().map(|it| it.violations.as_slice());
        for it in quotas.unwrap_or_default().iter().filter(|it| it.description != self.message) {
            self.details.push(format!("{}: {}", it.subject, it.description));
        }
        if let Some(resource) = all.resource_info() {
            self.details.push(format!("{} {}", resource.resource_type, resource.resource_name));
        }
        self.details.retain(|detail| !detail.trim_matches([' ', ':']).is_empty());
        self.retry_after = details.retry_after.map(short_duration);
        self.allocated = details.allocated;
        let next = NEXT.iter().find(|(reason, _)| self.reason.as_deref() == Some(*reason));
        self.hint = hint.or_else(|| next.map(|(_, hint)| (*hint).to_owned()));
    }

    fn to_text(&self, colours: bool) -> String {
        let reason = self.reason.as_deref().unwrap_or(match self.code.as_str() {
            "FAILED" | "" => "error",
            code => code,
        });
        let reason = Tone::Bad.paint(reason, colours);
        let mut text = format!("hearth: {reason}: {}", printable(&self.message));
        let mut line = |line: String| {
            text.push_str("\n  ");
            text.push_str(&printable(&line));
        };
        for violation in &self.field_violations {
            let said = format!("{}: {}", violation.field, violation.description);
            // Of one alone it is the message.
            if said != self.message {
                line(said);
            }
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

/// Whether a call ended so because the server is away for now: asking again can help.
pub(crate) fn is_away(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_broken(status)
}

/// Whether a call ended so because its connection did. What the server itself says has no source here.
fn is_broken(status: &Status) -> bool {
    let codes = [Code::Unknown, Code::Internal, Code::Cancelled, Code::Unavailable];
    let is_own = std::error::Error::source(status).is_some();
    // A call that takes too long ends here, too, and its connection is well.
    is_own && codes.contains(&status.code()) && status.message() != "Timeout expired"
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
        let text = error.to_report().to_text(false);
        assert_eq!(
            text,
            "hearth: POOL_EMPTY: nothing is warm\n  no VM was allocated\n  try again in 30ms\n  \
             `hearth pools explain POOL` says why"
        );
    }

    #[test]
    fn the_next_step_is_for_reasons_that_there_are_unless_the_command_knows_better() {
        for (reason, _) in NEXT {
            assert!(hearth_proto::Reason::KNOWN.contains(reason), "{reason}");
        }
        let text = pool_empty().with_hint("do this").to_text();
        assert!(text.ends_with("\n  do this") && !text.contains("explain"), "{text}");
    }

    #[test]
    fn what_the_message_says_is_not_said_twice() {
        let message = "ttl: it must be positive";
        let mut details = ErrorDetails::with_bad_request_violation("ttl", "it must be positive");
        details
            .add_precondition_failure_violation("TEMPLATE_NOT_READY", "templates/a", message)
            .add_quota_failure_violation("disk space", message);
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let text = Error::from(status).to_text();
        assert_eq!(text, "hearth: INVALID_ARGUMENT: ttl: it must be positive\n  templates/a");
    }

    #[test]
    fn wrong_fields_are_named() {
        let details = ErrorDetails::with_bad_request_violation("ttl", "it must be positive");
        let status = Status::with_error_details(Code::InvalidArgument, "bad request", details);
        let error = Error::from(status);
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_report().to_text(false).ends_with("\n  ttl: it must be positive"));
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

    #[test]
    fn who_was_not_let_in_is_told_as_whom_they_called() {
        let refused = || Error::from(Status::new(Code::Unauthenticated, "the token has expired"));
        let known =
            refused().about("a".to_owned(), Some("the token in t (--token-file)".to_owned()));
        let known = known.to_text();
        assert!(known.ends_with(
            "that was the token in t (--token-file): `hearth config` shows what is used"
        ));
        assert!(
            refused()
                .about("a".to_owned(), None)
                .to_text()
                .ends_with("--certificate FILE --key FILE")
        );
        let other =
            Error::from(Status::new(Code::NotFound, "none")).about("a".to_owned(), None).to_text();
        assert!(!other.contains("token"), "{other}");
    }

    #[test]
    fn a_server_cannot_drive_the_terminal() {
        let error = Error::from(Status::new(Code::Internal, "a\u{1b}[2Jb"));
        assert!(error.to_text().contains("a\\u{1b}[2Jb"), "{}", error.to_text());
    }
}
