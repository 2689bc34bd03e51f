//! A fake and a client of its guest's agent, for what the fake has alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{Client, bytes_of, read_on};
use crate::firecracker_fake::{Fault, Installed, Settings, What, install};
use crate::outcome::{Answer, Normaliser};
use crate::process::Process;
use crate::row::Request;
use crate::states::{create, drive, kernel, machine, pause, start, vsock};

/// How long something that never comes is waited for.
const NEVER: Duration = Duration::from_millis(300);

/// An installation, a directory to work in, and settings that change.
pub(crate) struct Fake {
    pub(crate) dir: TempDir,
    pub(crate) home: TempDir,
    pub(crate) installed: Installed,
    settings: Settings,
    started: usize,
}

impl Fake {
    pub(crate) fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("there is a directory");
        let home = tempfile::tempdir().expect("there is a directory");
        let settings = Settings { agent_port: Some(52), ..settings };
        let installed = install(home.path(), &settings);
        std::fs::write(dir.path().join("guest.elf"), b"\x7fELF").expect("a kernel is written");
        let disk = std::fs::File::create(dir.path().join("disk")).expect("a disk is made");
        disk.set_len(1 << 20).expect("a disk has a length");
        Self { dir, home, installed, settings, started: 0 }
    }

    pub(crate) fn start(&mut self) -> Process {
        self.started += 1;
        let program = &self.installed.firecracker;
        Process::start(program, self.dir.path(), self.started).expect("the fake starts")
    }

    /// A machine with a drive and vsock that runs.
    pub(crate) fn boot(&mut self) -> Process {
        let process = self.start();
        for request in [machine(), kernel(), drive("data", "DIR/disk"), vsock(), start()] {
            self.done(&process, &request);
        }
        process
    }

    /// Captures a machine, and ends it; the vsock socket is removed.
    pub(crate) fn capture(&mut self) {
        let process = self.boot();
        self.done(&process, &pause());
        self.done(&process, &create());
        drop(process);
        std::fs::remove_file(self.dir.path().join("vsock")).expect("there is a socket");
    }

    pub(crate) fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.installed.set(&self.settings);
    }

    pub(crate) fn fail(&mut self, path: &str, what: What, times: Option<u32>) {
        let method = "PUT".to_owned();
        let fault = Fault { method, path: path.to_owned(), what, times };
        self.set(|settings| settings.faults = vec![fault]);
    }

    pub(crate) fn ask(&self, process: &Process, request: &Request) -> Option<Answer> {
        let mut client = Client::connect(&process.socket).ok()?;
        client.send(&bytes_of(request, self.dir.path())).ok()?;
        client.receive(&Normaliser::new(self.dir.path(), &self.installed.firecracker)).ok()?
    }

    pub(crate) fn done(&self, process: &Process, request: &Request) {
        let answer = self.ask(process, request).expect("there is an answer");
        assert!(answer.status.contains("204"), "{request:?}: {answer:?}");
    }

    pub(crate) fn is_silent(&self, process: &Process, request: &Request) -> bool {
        let mut stream = UnixStream::connect(&process.socket).expect("the API listens");
        stream.write_all(&bytes_of(request, self.dir.path())).expect("the request is sent");
        is_silent(&mut stream)
    }

    pub(crate) fn agent(&self) -> Agent {
        Agent::connect(&self.dir.path().join("vsock"))
    }
}

/// Nothing comes, and the connection stays open.
pub(crate) fn is_silent(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(NEVER)).expect("a timeout is set");
    let read = read_on(stream, &mut [0; 1]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A conversation with the guest's agent.
pub(crate) struct Agent {
    pub(crate) stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Agent {
    pub(crate) fn connect(socket: &Path) -> Self {
        let mut agent = Self::begin(socket);
        let greeting = agent.receive().expect("the agent's port is open");
        assert!(greeting.starts_with("OK "), "{greeting:?}");
        agent
    }

    /// Connects, and does not wait for the guest.
    pub(crate) fn begin(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).expect("vsock listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout is set");
        stream.write_all(b"CONNECT 52\n").expect("the port is asked for");
        let lines = BufReader::new(stream.try_clone().expect("a stream can be shared"));
        Self { stream, lines }
    }

    pub(crate) fn receive(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.lines.read_line(&mut line).expect("the agent answers in time");
        (count > 0).then(|| line.trim_end().to_owned())
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.stream.write_all(format!("{line}\n").as_bytes()).expect("the agent listens");
        self.receive().expect("the agent answers")
    }
}
