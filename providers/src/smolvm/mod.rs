//! Virtual machines by the `smolvm` command line tool.
//!
//! | verb | how |
//! |---|---|
//! | create | `machine create --name N --image REF --cpus C --mem M` |
//! | start, stop | `machine start`, `machine stop`: a power-off that keeps the disk, but for `/tmp` and `/var/tmp` |
//! | snapshot | of a stopped one: `pack create --from-vm N`, disk only |
//! | restore | `machine create --name N --from PACK`, and start where it is to run |
//! | destroy | `machine delete --name N -f`, until it is in the list no longer |
//! | console | `machine logs` |
//!
//! A pack carries its own defaults of processors and memory, so both are given whenever one is
//! made or used. The tool cannot tell us when a machine ends: see [`crate::cli`] for what is done
//! instead. It changes the hostname, the machine id and the SSH keys of what it clones; it does
//! not credit entropy to the clone, and does not give it another address.
//!
//! Needs smolvm 1.0 or newer and hardware virtualisation. A snapshot's directory holds
//! `machine.smolmachine` and `image.json`.

#[cfg(target_os = "linux")]
pub(crate) mod fuzz;
mod host;
mod listing;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::capabilities::{Capabilities, RunningSnapshot, StopKeeps};
use crate::cli::runner::{Request, Runner};
use crate::cli::{Blueprint, CliBackend, CliConfig, Making, STATE_LABEL, Seen, Tool};
use crate::directory::Paths;
use crate::engine::{Engine, OpenReport};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
#[cfg(target_os = "linux")]
pub use host::virtualisation;

/// The smolvm provider.
pub type SmolvmProvider = Engine<CliBackend<Smolvm>>;

/// What smolvm's machines can and cannot do here.
pub const CAPABILITIES: Capabilities = Capabilities {
    rename: true,
    restore: true,
    stop_keeps: StopKeeps::Disk,
    snapshot_running: RunningSnapshot::StopRequired,
    console: true,
    disks: true,
    export: true,
    outlives_hearth: true,
    ..Capabilities::minimal()
};

/// The pack that is a snapshot.
const PACK: &str = "machine.smolmachine";
/// What the tool is told to write; the pack gets its ending from the tool.
const STUB: &str = "machine";
/// What empties the directories for temporary files, hidden ones too.
const EMPTY_TEMPORARY: &str =
    "cd /tmp && rm -rf ..?* .[!.]* *; cd /var/tmp && rm -rf ..?* .[!.]* *";
/// How long that may take; a machine that hangs is stopped all the same.
const EMPTYING_TIMEOUT: Duration = Duration::from_secs(10);
/// What it says when another process opens its database for the first time: nothing was done yet.
const NOT_OPEN: &str = "configure pragmas: database is locked";
/// How often it is asked anew then, and after what pause.
const OPENING: (usize, Duration) = (20, Duration::from_millis(50));
/// How many lines of output a failure looks at.
const LAST_LINES: &str = "40";

/// The configuration of smolvm as it is found in the path, for the state that `state` names.
pub fn config(state: impl Into<String>) -> CliConfig {
    CliConfig::new("smolvm", state)
}

/// Opens the provider `name` on `paths`. Blocks on the disk and on the tool.
///
/// # Errors
/// Those of [`Smolvm::find`] and [`crate::cli::open`].
pub fn open(
    name: &str,
    config: CliConfig,
    env: Arc<dyn Env>,
    paths: Paths,
) -> Result<(SmolvmProvider, OpenReport)> {
    let tool = Smolvm::find(&config)?;
    crate::cli::open(name, tool, config, env, paths)
}

/// The tool.
#[derive(Debug)]
pub struct Smolvm {
    runner: Runner,
    config: CliConfig,
    version: String,
}

impl Smolvm {
    /// Asks the configured program for its version. Blocks.
    ///
    /// # Errors
    /// `Backend` when it is not there, is another program or too old; `Timeout`.
    pub fn find(config: &CliConfig) -> Result<Self> {
        let runner = Runner::new(&config.binary, "install smolvm, or name another binary");
        let request = Request::new(["--version"], config.command_timeout);
        let said = runner.ask("ask smolvm for its version", &request)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = said.lines().find_map(|line| line.strip_prefix("smolvm "));
        let version = version.map(|version| version.trim().to_owned());
        let major = version.as_deref().and_then(|version| version.split('.').next()?.parse().ok());
        match (version, major) {
            (Some(version), Some(1_u32..)) => Ok(Self { runner, config: config.clone(), version }),
            _ => Err(VmRuntimeError::Backend {
                what: format!(
                    "{} is not smolvm 1.0 or newer: it says {:?}",
                    config.binary.display(),
                    said.trim()
                ),
                source: None,
            }),
        }
    }

    fn ask(&self, what: &str, request: &Request<'_>) -> Result<Vec<u8>> {
        let is_not_open = |error: &VmRuntimeError| {
            let source = std::error::Error::source(error);
            source.is_some_and(|source| source.to_string().contains(NOT_OPEN))
        };
        let (tries, pause) = OPENING;
        for _ in 0..tries {
            match self.runner.ask(what, request) {
                Err(error) if is_not_open(&error) => std::thread::sleep(pause),
                asked => return asked,
            }
        }
        self.runner.ask(what, request)
    }

    /// Empties the directories for temporary files of a machine that is to be stopped: they end with
    /// its power, as if they were in memory, and so are in no pack. A machine without a shell keeps
    /// them.
    fn empty_temporary(&self, name: &str, cut: &AtomicBool) {
        let arguments =
            ["machine", "exec", "--name", name, "--user", "0:0", "--", "sh", "-c", EMPTY_TEMPORARY];
        let timeout = self.config.command_timeout.min(EMPTYING_TIMEOUT);
        let request = Request::new(arguments, timeout);
        if let Err(error) = self.ask("empty a machine's /tmp", &request.until(cut)) {
            tracing::debug!(name, %error, "a machine is stopped with what is in its /tmp");
        }
    }

    fn make(&self, making: Making<'_>, from: [OsString; 2]) -> Result<()> {
        let Making { name, blueprint, state } = making;
        let words = [
            "machine".to_owned(),
            "create".to_owned(),
            "--name".to_owned(),
            name.to_owned(),
            "--cpus".to_owned(),
            blueprint.vcpu_count.to_string(),
            "--mem".to_owned(),
            blueprint.mem_size_mib.to_string(),
            "--label".to_owned(),
            format!("{STATE_LABEL}={state}"),
        ];
        let mut arguments: Vec<OsString> = words.map(OsString::from).to_vec();
        let from_image = from[0] == "--image";
        arguments.extend(from);
        if let Some(network) = &blueprint.network {
            arguments.extend(["--network".into(), network.into()]);
        }
        // A pack has the command of what it was made from.
        if from_image && !blueprint.command.is_empty() {
            arguments.push("--".into());
            arguments.extend(blueprint.command.iter().map(OsString::from));
        }
        let request = Request::new(arguments, self.config.start_timeout);
        self.ask("make a machine", &request).map(drop)
    }
}

impl Tool for Smolvm {
    const FILES: &'static [&'static str] = &[PACK];
    const CAN_BE_READ_ONLY: bool = false;

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn program(&self) -> &Path {
        self.runner.program()
    }

    fn create(&self, making: Making<'_>) -> Result<()> {
        self.make(making, ["--image".into(), making.blueprint.image.clone().into()])
    }

    fn create_from(&self, making: Making<'_>, files: &Path) -> Result<()> {
        self.make(making, ["--from".into(), files.join(PACK).into()])
    }

    fn start(&self, name: &str, cut: &AtomicBool) -> Result<()> {
        let request = Request::new(["machine", "start", "--name", name], self.config.start_timeout);
        self.ask("start a machine", &request.until(cut)).map(drop)
    }

    fn stop(&self, name: &str, cut: &AtomicBool) -> Result<()> {
        self.empty_temporary(name, cut);
        let request =
            Request::new(["machine", "stop", "--name", name], self.config.command_timeout);
        self.ask("stop a machine", &request.until(cut)).map(drop)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let arguments = ["machine", "delete", "--name", name, "-f"];
        let request = Request::new(arguments, self.config.command_timeout);
        self.ask("delete a machine", &request).map(drop)
    }

    fn list(&self, timeout: Duration) -> Result<Vec<Seen>> {
        let request = Request::new(["machine", "ls", "--json"], timeout);
        listing::parse(&self.ask("list machines", &request)?)
    }

    fn capture(
        &self,
        name: &str,
        blueprint: &Blueprint,
        into: &Path,
        cut: &AtomicBool,
    ) -> Result<()> {
        let stub = into.join(STUB);
        let arguments: [OsString; 10] = [
            "pack".into(),
            "create".into(),
            "--from-vm".into(),
            name.into(),
            "--output".into(),
            stub.clone().into(),
            "--cpus".into(),
            blueprint.vcpu_count.to_string().into(),
            "--mem".into(),
            blueprint.mem_size_mib.to_string().into(),
        ];
        let request = Request::new(arguments, self.config.snapshot_timeout);
        self.ask("pack a machine", &request.until(cut))?;
        // The program that would run the pack without us.
        let _ = std::fs::remove_file(stub);
        Ok(())
    }

    fn console(&self, name: &str, enough_bytes: u64) -> Result<Vec<u8>> {
        let mut request =
            Request::new(["machine", "logs", "--name", name], self.config.command_timeout);
        request.enough_bytes = Some(enough_bytes);
        self.ask("read a machine's output", &request)
    }

    fn last_words(&self, name: &str) -> Result<Vec<u8>> {
        let arguments = ["machine", "logs", "--name", name, "--tail", LAST_LINES];
        self.ask("read a machine's output", &Request::new(arguments, self.config.command_timeout))
    }
}
