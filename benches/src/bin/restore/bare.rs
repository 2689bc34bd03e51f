//! A restore with nothing around it: what any driver in a compiled language has to do.
//!
//! It makes a directory with the log's and the console's file, copies the drives that the guest
//! may write to, starts the process by `posix_spawn`, connects to its API socket as soon as that
//! is there, and asks for the load in HTTP written by hand.
//!
//! It leaves out what the provider does besides: names, records and metadata, checks that the
//! snapshot is whole and fits this Firecracker, a session and a cgroup of the process's own, a
//! pidfd with somebody who watches it, bounds on the console and the log, deadlines, and any
//! understanding of a refusal but that it is one.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// How long it waits between two looks for the socket, at first and at most: as the provider.
const PAUSE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));
/// How often it looks: some seconds in all.
const MAX_LOOKS: usize = 1000;

/// What every restore uses.
pub(crate) struct Bare<'a> {
    /// The program.
    pub(crate) firecracker: &'a Path,
    /// Where the snapshot's files are.
    pub(crate) snapshot: PathBuf,
    /// Where the process works; made and removed by each restore.
    pub(crate) dir: &'a Path,
}

impl Bare<'_> {
    /// Restores a VM and ends it; answers how long the restore took.
    pub(crate) fn restore(&self) -> Result<Duration, Box<dyn Error>> {
        let begun = Instant::now();
        let mut child = self.start()?;
        let loaded = self.load();
        let took = begun.elapsed();
        child.kill()?;
        child.wait()?;
        fs::remove_dir_all(self.dir)?;
        loaded.map(|()| took)
    }

    fn start(&self) -> io::Result<Child> {
        fs::create_dir(self.dir)?;
        File::create(self.dir.join("firecracker.log"))?;
        for entry in fs::read_dir(&self.snapshot)? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("drive-") {
                fs::copy(self.snapshot.join(&name), self.dir.join(&name))?;
            }
        }
        let console = File::create(self.dir.join("console"))?;
        Command::new(self.firecracker)
            .args(["--id", "bare", "--api-sock", "api.sock"])
            .args(["--log-path", "firecracker.log", "--level", "Warn"])
            .current_dir(self.dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
    }

    fn load(&self) -> Result<(), Box<dyn Error>> {
        let at = |name: &str| self.snapshot.join(name).display().to_string();
        let body = format!(
            concat!(
                r#"{{"snapshot_path":"{}","mem_backend":{{"backend_type":"File","#,
                r#""backend_path":"{}"}},"track_dirty_pages":false,"resume_vm":true}}"#
            ),
            at("state"),
            at("memory")
        );
        let mut stream = self.connect()?;
        let length = body.len();
        let request = format!(
            "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes)? {
                0 => return Err("the connection ended without an answer".into()),
                count => answer.extend_from_slice(&bytes[..count]),
            }
        }
        match answer.starts_with(b"HTTP/1.1 204 ") {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&answer).into()),
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let socket = self.dir.join("api.sock");
        let (mut pause, longest) = PAUSE;
        for _ in 0..MAX_LOOKS {
            match UnixStream::connect(&socket) {
                Err(error) if not_yet(&error) => std::thread::sleep(pause),
                done => return done,
            }
            pause = (pause * 3 / 2).min(longest);
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
