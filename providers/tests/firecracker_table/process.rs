//! A process under test, and what becomes of it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hearth_providers::env::Deadline;

/// How long a process may take to be there, or to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A process under test; it is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) socket: PathBuf,
    console: PathBuf,
}

impl Process {
    /// Starts Firecracker in `dir` as a provider does: nothing in its environment, nothing on
    /// its standard input, both outputs in a file.
    pub(crate) fn start(program: &Path, dir: &Path, number: usize) -> Result<Self, String> {
        let socket = dir.join(format!("api-{number}"));
        let arguments = ["--id", "table", "--api-sock"];
        let mut command = command(program, dir);
        command.args(arguments).arg(&socket);
        let process = Self::spawn(command, dir, number, socket)?;
        // The socket's file is there a moment before anybody listens.
        match until(|| UnixStream::connect(&process.socket).is_ok()) {
            true => Ok(process),
            false => Err(format!("there is no API socket; {}", process.console())),
        }
    }

    /// Starts a command that may serve an API at `socket`.
    pub(crate) fn spawn(
        mut command: Command,
        dir: &Path,
        number: usize,
        socket: PathBuf,
    ) -> Result<Self, String> {
        let console = dir.join(format!("console-{number}"));
        let file = File::options().create(true).append(true).open(&console);
        let file = file.map_err(|error| format!("{}: {error}", console.display()))?;
        let other = file.try_clone().map_err(|error| error.to_string())?;
        command.stdout(file).stderr(other);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child, socket, console })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it does so within `patience`.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Deadline::after(patience);
        loop {
            match self.child.try_wait() {
                Ok(None) if deadline.left().is_some() => std::thread::sleep(POLL),
                Ok(ended) => return ended,
                Err(_) => return None,
            }
        }
    }

    /// How it ended; it is bound to.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        self.ends_within(PATIENCE)
    }

    /// The greatest number that the guest has counted to, in a line that is whole.
    pub(crate) fn count(&self) -> Option<u64> {
        counts(&self.console()).last().copied()
    }

    /// The first number that the guest counted to here.
    pub(crate) fn first_count(&self) -> Option<u64> {
        counts(&self.console()).first().copied()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command with nothing in its environment and nothing on its standard input.
pub(crate) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command
}

/// How a process ended, in words.
pub(crate) fn fate(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exits with {code}"),
        (None, Some(signal)) => format!("is ended by signal {signal}"),
        (None, None) => "ends".to_owned(),
    }
}

/// Waits until a condition holds; false when it does not in time.
pub(crate) fn until(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if holds() {
            return true;
        }
        if deadline.left().is_none() {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// What the guest counted to. The log has lines of its own between.
fn counts(console: &str) -> Vec<u64> {
    let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers = whole.lines().filter_map(|line| line.strip_prefix("count ")?.parse().ok());
    numbers.collect()
}
