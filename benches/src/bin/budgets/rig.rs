//! Programs that are measured, each a child of this process, on directories that end with it.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long a program may take to end when it is told to, before it is killed.
const ENDING: Duration = Duration::from_secs(20);

/// A program that serves; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// Where it serves gRPC.
    pub(crate) address: String,
    /// What it said after that, a line each, as far as it was asked for.
    pub(crate) more: Vec<String>,
}

impl Served {
    /// Starts `command` and waits until it has said where it listens, and `more` lines after that.
    ///
    /// # Errors
    /// When it cannot be started, or ends or says something else before.
    pub(crate) fn start(mut command: Command, more: usize) -> Result<Self, Box<dyn Error>> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = child.map_err(|error| format!("{name}: {error}"))?;
        let mut served = Self { child, address: String::new(), more: Vec::new() };
        let out = served.child.stdout.take().ok_or("its output is not ours")?;
        let mut lines = BufReader::new(out).lines();
        let mut next = || lines.next().ok_or_else(|| format!("{name} ended before it served"));
        let first = next()??;
        let address = first.strip_prefix("listening on ");
        served.address = address.ok_or_else(|| format!("{name} said {first:?}"))?.to_owned();
        for _ in 0..more {
            served.more.push(next()??);
        }
        Ok(served)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, so that it can tidy up nothing.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            // It is our child and was not waited for: the pid is its.
            let _ = kill_process(pid, Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < ENDING && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.kill();
        }
    }
}

/// Where a hearth keeps its things: a state directory on the disk, names on tmpfs where there is one.
#[derive(Debug)]
pub(crate) struct Home {
    state: TempDir,
    names: Option<TempDir>,
}

impl Home {
    /// Directories that nobody else has.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let shared_memory = Path::new("/dev/shm");
        let names = shared_memory.is_dir().then(|| tempfile::tempdir_in(shared_memory));
        Ok(Self { state: tempfile::tempdir()?, names: names.transpose()? })
    }

    /// Below which the journal and the VMs are.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// Below which names are.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.names.as_ref().unwrap_or(&self.state).path().join("run")
    }

    /// A directory beside the state, for whatever is compared with it on the same disk.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// Starts a hearth on it with this configuration; free ports are its to pick.
    ///
    /// # Errors
    /// As [`Served::start`].
    pub(crate) fn serve(&self, configuration: &str) -> Result<Served, Box<dyn Error>> {
        Served::start(self.command(configuration)?, 1)
    }

    /// What starts such a hearth; it logs warnings, to where this process does.
    ///
    /// # Errors
    /// When the configuration cannot be written, or there is no `hearth`.
    pub(crate) fn command(&self, configuration: &str) -> Result<Command, Box<dyn Error>> {
        let file = self.beside("hearth.toml");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program("hearth")?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--stop-vms"]);
        command.arg("--state").arg(self.state()).arg("--runtime").arg(self.runtime());
        command.arg("--config").arg(file).env("RUST_LOG", "warn");
        Ok(command)
    }
}

/// Starts a floor, with these arguments beside its address.
///
/// # Errors
/// As [`Served::start`].
pub(crate) fn floor(arguments: &[String]) -> Result<Served, Box<dyn Error>> {
    let mut command = Command::new(program("hearth-bench")?);
    command.args(["floor", "--listen", "127.0.0.1:0"]).args(arguments);
    Served::start(command, 0)
}

/// A program of the same build.
///
/// # Errors
/// When it is not there.
pub(crate) fn program(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let beside = std::env::current_exe()?.with_file_name(name);
    match beside.is_file() {
        true => Ok(beside),
        false => {
            Err(format!("there is no {}: build it with the same profile", beside.display()).into())
        }
    }
}
