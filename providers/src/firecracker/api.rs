//! What is asked of Firecracker, and what its answers mean.
//!
//! Field names are those of its OpenAPI description, version 1.16.1. Fields that older versions
//! do not know are left out unless they are wanted: servers refuse what they do not know.

use std::path::PathBuf;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::{Answer, NoAnswer, exchange};
use crate::env::Deadline;

/// The API's socket, in the directory where the process works.
pub(super) const SOCKET: &str = "api.sock";

/// A Firecracker's API.
#[derive(Debug)]
pub(super) struct Api {
    /// Where its process works.
    home: PathBuf,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// It says why it did not do it.
    Refused {
        /// The status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// Its ten connections are taken.
    Busy,
    /// It did not say anything.
    None(NoAnswer),
}

impl From<NoAnswer> for ApiError {
    fn from(no_answer: NoAnswer) -> Self {
        Self::None(no_answer)
    }
}

/// Where a microVM stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum VmState {
    #[serde(rename = "Not started")]
    NotStarted,
    Running,
    Paused,
}

#[derive(Debug, Deserialize)]
struct InstanceInfo {
    state: VmState,
}

/// `PUT /snapshot/load`.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotLoad<'a> {
    pub(super) snapshot_path: &'a str,
    pub(super) mem_backend: MemBackend<'a>,
    pub(super) track_dirty_pages: bool,
    pub(super) resume_vm: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) network_overrides: Vec<NetworkOverride<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vsock_override: Option<VsockOverride<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clock_realtime: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct MemBackend<'a> {
    pub(super) backend_type: &'static str,
    pub(super) backend_path: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct NetworkOverride<'a> {
    pub(super) iface_id: &'a str,
    pub(super) host_dev_name: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct VsockOverride<'a> {
    pub(super) uds_path: &'a str,
}

impl Api {
    pub(super) const fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// Where the VM stands. Answered only once what was asked before is done.
    pub(super) fn state(&self, timeout: Duration) -> Result<VmState, ApiError> {
        state_in(self.call(Method::GET, "/", None, timeout)?)
    }

    pub(super) fn put(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        self.call(Method::PUT, path, Some(to_bytes(body)?), timeout).map(drop)
    }

    pub(super) fn patch(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        self.call(Method::PATCH, path, Some(to_bytes(body)?), timeout).map(drop)
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Value, ApiError> {
        let body = body.unwrap_or_default();
        read(&exchange(&self.home, SOCKET, method, path, body, timeout)?)
    }
}

/// What an answer says.
fn read(answer: &Answer) -> Result<Value, ApiError> {
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_err(|error| ApiError::None(NoAnswer::Broken(error.into()))),
        StatusCode::NO_CONTENT => Ok(Value::Null),
        StatusCode::SERVICE_UNAVAILABLE => Err(ApiError::Busy),
        status => {
            Err(ApiError::Refused { status: status.as_u16(), message: fault_message(&answer.body) })
        }
    }
}

fn state_in(body: Value) -> Result<VmState, ApiError> {
    let info: InstanceInfo = serde_json::from_value(body)
        .map_err(|error| ApiError::None(NoAnswer::Broken(error.into())))?;
    Ok(info.state)
}

/// Asks a server for its state that says `answer` whatever it hears, and then ends.
pub(super) fn fuzz(answer: &[u8]) {
    let Some(stream) = crate::fuzzing::peer(answer) else { return };
    let deadline = Deadline::after(crate::fuzzing::TIMEOUT);
    let _ = super::exchange::over(stream, Method::GET, "/", Vec::new(), deadline)
        .map_err(ApiError::None)
        .and_then(|answer| read(&answer))
        .and_then(state_in);
}

fn to_bytes(body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(|error| ApiError::None(NoAnswer::Broken(error.into())))
}

/// The words of a refusal. Errors of the transport have another field, and line breaks in their
/// text, which JSON does not allow: what cannot be read is shown as it is.
fn fault_message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Value> = serde_json::from_str(&text.replace('\n', " ")).ok();
    let words = parsed.as_ref().and_then(|it| it.get("fault_message").or_else(|| it.get("error")));
    words.and_then(Value::as_str).map_or_else(|| text.trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Answers one connection with `answer`, in two pieces, and returns what was asked. Keeps the
    /// connection open until the other side closes it, as Firecracker does.
    fn server(dir: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let mut count = 0;
            while !String::from_utf8_lossy(&asked[..count]).contains("\r\n\r\n") {
                count += stream.read(&mut asked[count..]).unwrap();
            }
            let (first, second) = answer.split_at(answer.len() / 2);
            stream.write_all(first.as_bytes()).unwrap();
            stream.write_all(second.as_bytes()).unwrap();
            if answer.is_empty() {
                return String::new();
            }
            while stream.read(&mut asked[count..]).is_ok_and(|more| more > 0) {}
            String::from_utf8_lossy(&asked[..count]).into_owned()
        })
    }

    fn ask(answer: &'static str) -> (Result<VmState, ApiError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), answer);
        let state = Api::new(dir.path().to_owned()).state(LONG);
        (state, server.join().unwrap())
    }

    #[test]
    fn an_answer_without_a_reason_phrase_is_one() {
        let (state, asked) = ask(concat!(
            "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n",
            "Content-Type: application/json\r\nContent-Length: 38\r\n\r\n",
            "{\"id\":\"cl1\",\"state\":\"Paused\",\"x\":null}",
        ));
        assert_eq!(state.unwrap(), VmState::Paused);
        assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
        assert!(!asked.to_lowercase().contains("transfer-encoding"), "{asked}");
    }

    #[test]
    fn refusals_are_told_whatever_their_form() {
        let (refused, _) = ask(concat!(
            "HTTP/1.1 400 \r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n",
            "{\"fault_message\":\"no\"}",
        ));
        assert!(
            matches!(refused, Err(ApiError::Refused { status: 400, message }) if message == "no")
        );
        let (refused, _) = ask(concat!(
            "HTTP/1.1 400 \r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n",
            "{ \"error\": \"bad.\nDropped\" }",
        ));
        assert!(
            matches!(refused, Err(ApiError::Refused { message, .. }) if message.contains("bad"))
        );
        let (busy, _) = ask("HTTP/1.1 503 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert!(matches!(busy, Err(ApiError::Busy)));
    }

    #[test]
    fn an_end_without_an_answer_is_an_error_and_so_is_silence() {
        let (ended, _) = ask("");
        assert!(matches!(ended, Err(ApiError::None(NoAnswer::Broken(_)))), "{ended:?}");
        let dir = tempfile::tempdir().unwrap();
        let api = Api::new(dir.path().to_owned());
        let absent = api.state(LONG);
        assert!(matches!(absent, Err(ApiError::None(NoAnswer::NotListening(_)))));
        let _silent = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let silent = api.state(Duration::from_millis(20));
        assert!(matches!(silent, Err(ApiError::None(NoAnswer::TimedOut))), "{silent:?}");
    }
}
