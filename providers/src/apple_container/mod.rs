//! Containers by Apple's `container` command line tool, each in a virtual machine of its own.
//!
//! | verb | how |
//! |---|---|
//! | create | `container create --name N -c C -m M IMAGE` |
//! | start, stop | `container start`, `container stop`: a power-off that keeps the disk |
//! | snapshot | `container export`: the disk, without `/tmp` and `/var/tmp` |
//! | restore | `container build` of that as the image `hearth-restored:<uid>`, then create |
//! | destroy | `container delete -f`, until it is in the list no longer; and that image |
//! | console | `container logs` |
//!
//! The tool has no commit: a snapshot is a build context, the exported disk and a `Dockerfile` that
//! says again what the export does not have (see `rebuild`). Each clone has an image of its own,
//! which lives and goes with it, so that none is left when a snapshot is removed.
//!
//! Needs macOS 26 on Apple silicon and `container system start`. Versions before 1.0 answer in
//! another shape, which is read as well; before 1.2.1 only a stopped container can be exported.
//! A snapshot's directory holds `rootfs.tar`, `Dockerfile` and `image.json`.

pub(crate) mod fuzz;
mod listing;
mod rebuild;

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

/// The apple-container provider.
pub type AppleContainerProvider = Engine<CliBackend<AppleContainer>>;

/// What the newest version's containers can and cannot do here.
pub const CAPABILITIES: Capabilities = Capabilities {
    rename: true,
    restore: true,
    stop_keeps: StopKeeps::Disk,
    snapshot_running: RunningSnapshot::Pauses,
    console: true,
    disks: true,
    export: true,
    outlives_hearth: true,
    ..Capabilities::minimal()
};

/// The first version that exports a running container.
const EXPORTS_RUNNING: [u32; 3] = [1, 2, 1];
/// How many lines of output a failure looks at.
const LAST_LINES: &str = "40";
/// What the tool writes before it is cut down to `rootfs.tar`.
const EXPORT: &str = "export.tar";

/// The configuration of `container` as it is found in the path, for the state that `state` names.
pub fn config(state: impl Into<String>) -> CliConfig {
    CliConfig::new("container", state)
}

/// Opens the provider `name` on `paths`. Blocks on the disk and on the tool.
///
/// # Errors
/// Those of [`AppleContainer::find`] and [`crate::cli::open`].
pub fn open(
    name: &str,
    config: CliConfig,
    env: Arc<dyn Env>,
    paths: Paths,
) -> Result<(AppleContainerProvider, OpenReport)> {
    let tool = AppleContainer::find(&config)?;
    crate::cli::open(name, tool, config, env, paths)
}

/// The tool.
#[derive(Debug)]
pub struct AppleContainer {
    runner: Runner,
    config: CliConfig,
    version: String,
    exports_running: bool,
}

impl AppleContainer {
    /// Asks the configured program for its version. Blocks.
    ///
    /// # Errors
    /// `Backend` when it is not there or is another program; `Timeout`.
    pub fn find(config: &CliConfig) -> Result<Self> {
        let runner = Runner::new(&config.binary, "install container, or name another binary");
        let request = Request::new(["--version"], config.command_timeout);
        let said = runner.ask("ask container for its version", &request)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let words = said.split_ascii_whitespace().skip_while(|word| *word != "version").nth(1);
        let Some((version, numbers)) = words.and_then(|word| Some((word, numbers(word)?))) else {
            let what = format!(
                "{} is not Apple's container: it says {:?}",
                config.binary.display(),
                said.trim()
            );
            return Err(VmRuntimeError::Backend { what, source: None });
        };
        let (version, exports_running) = (version.to_owned(), numbers >= EXPORTS_RUNNING);
        Ok(Self { runner, config: config.clone(), version, exports_running })
    }

    fn ask(&self, what: &str, words: &[&str], timeout: Duration) -> Result<Vec<u8>> {
        self.runner.ask(what, &Request::new(words.iter().copied(), timeout))
    }

    fn make(&self, making: Making<'_>, image: &str, command: &[String]) -> Result<()> {
        let Making { name, blueprint, state } = making;
        let words = [
            "create".to_owned(),
            "--name".to_owned(),
            name.to_owned(),
            "-c".to_owned(),
            blueprint.vcpu_count.to_string(),
            "-m".to_owned(),
            format!("{}M", blueprint.mem_size_mib),
            "-l".to_owned(),
            format!("{STATE_LABEL}={state}"),
        ];
        let mut arguments = words.to_vec();
        if let Some(network) = &blueprint.network {
            arguments.extend(["--network".to_owned(), network.clone()]);
        }
        if blueprint.read_only {
            arguments.push("--read-only".to_owned());
        }
        arguments.push(image.to_owned());
        arguments.extend_from_slice(command);
        let request = Request::new(arguments, self.config.start_timeout);
        self.runner.ask("make a container", &request).map(drop)
    }
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    let mut next = || parts.next()?.ok();
    Some([next()?, next()?, next().unwrap_or(0)])
}

/// The image that only the clone of this name is made from.
fn restored_image(name: &str) -> String {
    format!("hearth-restored:{}", name.strip_prefix("hearth-").unwrap_or(name))
}

impl Tool for AppleContainer {
    const FILES: &'static [&'static str] = &[rebuild::ROOTFS, rebuild::DOCKERFILE];
    const CAN_BE_READ_ONLY: bool = true;

    fn capabilities(&self) -> Capabilities {
        let snapshot_running = match self.exports_running {
            true => RunningSnapshot::Pauses,
            false => RunningSnapshot::StopRequired,
        };
        Capabilities { snapshot_running, ..CAPABILITIES }
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn program(&self) -> &Path {
        self.runner.program()
    }

    fn create(&self, making: Making<'_>) -> Result<()> {
        self.make(making, &making.blueprint.image, &making.blueprint.command)
    }

    fn create_from(&self, making: Making<'_>, files: &Path) -> Result<()> {
        let image = restored_image(making.name);
        let words: [OsString; 4] =
            ["build".into(), "-t".into(), image.clone().into(), files.into()];
        let request = Request::new(words, self.config.snapshot_timeout);
        self.runner.ask("build a snapshot's image", &request)?;
        // The image has the command.
        self.make(making, &image, &[])
    }

    fn start(&self, name: &str, cut: &AtomicBool) -> Result<()> {
        let request = Request::new(["start", name], self.config.start_timeout);
        self.runner.ask("start a container", &request.until(cut)).map(drop)
    }

    fn stop(&self, name: &str, cut: &AtomicBool) -> Result<()> {
        let request = Request::new(["stop", "-t", "5", name], self.config.command_timeout);
        self.runner.ask("stop a container", &request.until(cut)).map(drop)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let timeout = self.config.command_timeout;
        let deleted = self.ask("delete a container", &["delete", "-f", name], timeout);
        // Only a clone has one; while the container is there it is in use.
        let image = restored_image(name);
        let words = ["image", "delete", &image];
        if let Err(error) = self.ask("delete a clone's image", &words, timeout) {
            tracing::trace!(image, %error, "no image was deleted");
        }
        deleted.map(drop)
    }

    fn list(&self, timeout: Duration) -> Result<Vec<Seen>> {
        let words = ["list", "--all", "--format", "json"];
        listing::parse(&self.ask("list containers", &words, timeout)?)
    }

    fn capture(&self, name: &str, _: &Blueprint, into: &Path, cut: &AtomicBool) -> Result<()> {
        let words = ["inspect", name];
        let told = self.ask("inspect a container", &words, self.config.command_timeout)?;
        let process = listing::process_of(&told)?;
        let export = into.join(EXPORT);
        let words: [OsString; 4] =
            ["export".into(), "-o".into(), export.clone().into(), name.into()];
        let request = Request::new(words, self.config.snapshot_timeout);
        self.runner.ask("export a container", &request.until(cut))?;
        rebuild::write(&export, into, &process)
    }

    fn console(&self, name: &str, enough_bytes: u64) -> Result<Vec<u8>> {
        let mut request = Request::new(["logs", name], self.config.command_timeout);
        request.enough_bytes = Some(enough_bytes);
        self.runner.ask("read a container's output", &request)
    }

    fn last_words(&self, name: &str) -> Result<Vec<u8>> {
        let words = ["logs", "-n", LAST_LINES, name];
        self.ask("read a container's output", &words, self.config.command_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(numbers("1.2.1"), Some([1, 2, 1]));
        assert_eq!(numbers("1.2"), Some([1, 2, 0]));
        assert_eq!(numbers("1.10.0-beta"), Some([1, 10, 0]));
        assert!(numbers("1.10.0") >= Some(EXPORTS_RUNNING) && numbers("x").is_none());
    }
}
