//! Answers, and how they look on the wire.

use serde::Serialize;
use serde_json::json;

/// An answer, and what becomes of the process after it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<String>,
    /// The request used something that is deprecated.
    pub(super) deprecated: bool,
    pub(super) fate: Fate,
}

/// What becomes of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    #[default]
    Lives,
    /// It exits with 1 after the answer, and says this on its standard error.
    Exits(&'static str),
    /// It aborts, and the answer is not given.
    Aborts,
}

impl Answer {
    /// Done; there is nothing to say.
    pub(super) fn done() -> Self {
        Self { status: 204, body: None, deprecated: false, fate: Fate::Lives }
    }

    /// This, as JSON.
    pub(super) fn with(value: &impl Serialize) -> Self {
        let body = serde_json::to_string(value).expect("answers are JSON");
        Self { status: 200, body: Some(body), ..Self::done() }
    }

    /// Not done, for this reason.
    pub(super) fn refused(reason: &str) -> Self {
        let body = json!({ "fault_message": reason }).to_string();
        Self { status: 400, body: Some(body), ..Self::done() }
    }

    /// What could not be read as a request. The newline makes it invalid JSON.
    pub(super) fn unreadable(reason: &str) -> Self {
        let dropped = "All previous unanswered requests will be dropped.";
        let body = format!("{{ \"error\": \"{reason}\n{dropped}\" }}");
        Self { status: 400, body: Some(body), ..Self::done() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut text = head("HTTP/1.1", self.status);
        if self.deprecated {
            text.push_str("Deprecation: true\r\n");
        }
        if let Some(body) = &self.body {
            let length = body.len();
            text.push_str("Content-Type: application/json\r\n");
            text.push_str(&format!("Content-Length: {length}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }
}

/// The go-ahead for a body.
pub(super) fn go_ahead(version: &str) -> Vec<u8> {
    (head(version, 100) + "\r\n").into_bytes()
}

/// What the eleventh connection is told before it is closed.
pub(super) fn too_many_connections() -> Vec<u8> {
    let body = r#"{ "error": "Too many open connections" }"#;
    let head = "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The reason phrase is empty, but the space before it is there.
fn head(version: &str, status: u16) -> String {
    format!("{version} {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n")
}
