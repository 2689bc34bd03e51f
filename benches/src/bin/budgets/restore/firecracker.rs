//! Firecracker by a bare driver: its socket is connected to as soon as it is there, and the load is
//! asked for in HTTP written by hand.
//!
//! It leaves out what the provider does besides: names, records and metadata, checks that the
//! snapshot is whole and fits this Firecracker, a session and a cgroup of the process's own, a
//! pidfd with somebody who watches it, bounds on the console and the log, deadlines, and any
//! understanding of a refusal but that it is one.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::bare::{Driver, Outcome, connect};

/// How long it waits between two looks for the socket, at first and at most: as the provider.
const PAUSE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));
const SOCKET: &str = "api.sock";

/// What every restore uses.
pub(crate) struct Firecracker {
    /// The program.
    pub(crate) program: PathBuf,
    /// Where the snapshot's files are.
    pub(crate) snapshot: PathBuf,
}

impl Driver for Firecracker {
    fn start(&self, dir: &Path) -> io::Result<Child> {
        File::create(dir.join("firecracker.log"))?;
        for entry in fs::read_dir(&self.snapshot)? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("drive-") {
                fs::copy(self.snapshot.join(&name), dir.join(&name))?;
            }
        }
        let console = File::create(dir.join("console"))?;
        Command::new(&self.program)
            .args(["--id", "bare", "--api-sock", SOCKET])
            .args(["--log-path", "firecracker.log", "--level", "Warn"])
            .current_dir(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
    }

    fn load(&self, dir: &Path) -> Outcome {
        let at = |name: &str| self.snapshot.join(name).display().to_string();
        let body = format!(
            concat!(
                r#"{{"snapshot_path":"{}","mem_backend":{{"backend_type":"File","#,
                r#""backend_path":"{}"}},"track_dirty_pages":false,"resume_vm":true}}"#
            ),
            at("state"),
            at("memory")
        );
        let answer = call(dir, "PUT /snapshot/load", &body)?;
        match answer.starts_with("HTTP/1.1 204 ") {
            true => Ok(()),
            false => Err(answer.into()),
        }
    }

    fn ask(&self, dir: &Path) -> Outcome {
        let answer = call(dir, "GET /", "")?;
        match answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"Running\"") {
            true => Ok(()),
            false => Err(answer.into()),
        }
    }
}

/// Asks for `what` on a connection of its own; answers the head of the answer, and its body.
fn call(dir: &Path, what: &str, body: &str) -> Outcome<String> {
    let mut stream = connect(&dir.join(SOCKET), PAUSE)?;
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes)? {
            0 => return Err("the connection ended without an answer".into()),
            count => answer.extend_from_slice(&bytes[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lengths = head.lines().filter_map(|line| line.split_once(':'));
    let length = lengths
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}
