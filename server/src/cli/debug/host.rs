//! What is collected of the machine, beside what the server answers.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::error::{Error, Result};
use super::{Node, kinds_of};

/// Of a log its end.
const MAX_LOG_BYTES: u64 = 4 << 20;
/// More is no scrape of ours.
const MAX_METRICS_BYTES: u64 = 64 << 20;
/// What tells hosts apart, and whether this one is in need.
const FILES: [&str; 9] = [
    "/etc/os-release",
    "/proc/version",
    "/proc/cmdline",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/cgroup",
];

/// This machine, and this program.
pub(super) fn describe() -> String {
    let program = format!("hearth {}\n", env!("CARGO_PKG_VERSION"));
    let files = FILES.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"));
        format!("\n== {path}\n{text}")
    });
    std::iter::once(program).chain(files).collect()
}

/// The kinds of providers to look at: the node's, or the default one's where it did not answer.
pub(super) fn kinds(node: Option<&Node>) -> Vec<String> {
    let mut kinds: Vec<_> =
        node.map_or_else(|| vec!["qemu".to_owned()], |node| kinds_of(node).collect());
    kinds.sort();
    kinds.dedup();
    kinds
}

/// What `hearth doctor` says of providers of that kind, on this machine.
pub(super) async fn doctor(kind: String) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::Failed(format!("doctor: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let (looked, waits) = tokio::sync::oneshot::channel();
    // Its own thread: one that is waited for no more must not hold up the end of this program.
    std::thread::spawn(move || {
        let mut command = std::process::Command::new(program);
        command.args(["doctor", "--output", "json", "--provider", &kind]);
        let _ = looked.send(command.stdin(std::process::Stdio::null()).output());
    });
    let output = waits.await.map_err(std::io::Error::other).and_then(|it| it).map_err(failed)?;
    // That a check fails is what is to be shown.
    match output.stdout.is_empty() {
        false => Ok(output.stdout),
        true => Err(Error::Failed(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// What is served at `url`, which is of an admin port: plain HTTP. Without a path it is that of the metrics.
pub(super) async fn metrics(url: &str) -> Result<Vec<u8>> {
    let rest = url.strip_prefix("http://").filter(|rest| !rest.contains('@'));
    // It may have a password in it, and this goes into the bundle.
    let rest =
        rest.ok_or_else(|| Error::Usage("--metrics: not http://HOST:PORT/PATH".to_owned()))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    let failed = |error: std::io::Error| Error::Failed(format!("{url}: {error}"));
    let mut stream = tokio::net::TcpStream::connect(host).await.map_err(failed)?;
    // By HTTP/1.0 the answer ends with the connection, and comes in one piece.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_METRICS_BYTES).read_to_end(&mut answer).await.map_err(failed)?;
    let is_given = answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200");
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n").filter(|_| is_given);
    match body {
        Some(body) => Ok(answer.split_off(body + 4)),
        None => {
            let first = answer.split(|it| *it == b'\r').next().unwrap_or_default();
            Err(Error::Failed(format!("{url}: {}", String::from_utf8_lossy(first))))
        }
    }
}

/// The end of the file at `path`.
pub(super) fn tail(path: &Path) -> Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_BYTES)))?;
        let mut end = Vec::new();
        file.take(MAX_LOG_BYTES).read_to_end(&mut end)?;
        Ok(end)
    };
    read().map_err(|error| Error::Failed(format!("{}: {error}", path.display())))
}
