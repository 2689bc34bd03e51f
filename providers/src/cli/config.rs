//! What an operator can say about a tool.

use std::path::PathBuf;
use std::time::Duration;

/// Which tool runs the VMs, and how they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliConfig {
    /// Names the state directory, by its uuid say: machines carry it as a label, and only what
    /// carries it is ever swept.
    pub state: String,
    /// The tool: a path, or a name that is looked for as the shell would.
    pub binary: PathBuf,
    /// What VMs run, in place of the image's command; a spec's `boot_args` follow it.
    pub command: Vec<String>,
    /// The tool's networks that a spec may name.
    pub networks: Vec<String>,
    /// How long any command may take that has no limit of its own.
    pub command_timeout: Duration,
    /// How long the tool may take to make or to start a machine; it may fetch an image first.
    pub start_timeout: Duration,
    /// How long it may take to capture one.
    pub snapshot_timeout: Duration,
    /// How long it may take to remove one, all tries together.
    pub remove_timeout: Duration,
    /// How often it is asked which machines still run.
    pub watch_period: Duration,
}

impl CliConfig {
    /// The tool `binary`, for the state directory that `state` names.
    pub fn new(binary: impl Into<PathBuf>, state: impl Into<String>) -> Self {
        Self {
            state: state.into(),
            binary: binary.into(),
            command: Vec::new(),
            networks: Vec::new(),
            command_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(300),
            snapshot_timeout: Duration::from_secs(600),
            remove_timeout: Duration::from_secs(60),
            watch_period: Duration::from_secs(5),
        }
    }
}
