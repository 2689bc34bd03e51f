//! What an operator can say about the engine.

use std::path::PathBuf;
use std::time::Duration;

/// Which engine runs the containers, and how they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// Names the state directory, by its uuid say: containers and images carry it, and only what
    /// carries it is ever adopted or removed.
    pub state: String,
    /// The engine's socket: Docker's, or podman's compatible one.
    pub socket: PathBuf,
    /// What containers run, in place of the image's command; a spec's `boot_args` follow it.
    pub command: Vec<String>,
    /// The networks of the engine that a spec may name; without one there is none in a VM.
    pub networks: Vec<String>,
    /// The engine's runtime, as `runsc` or `kata`; its default one when unset.
    pub runtime: Option<String>,
    /// How many processes and threads a VM may have.
    pub pids_limit: i64,
    /// How long any request may take that has no limit of its own.
    pub command_timeout: Duration,
    /// How long the engine may take to make or to start a container.
    pub start_timeout: Duration,
    /// How long it may take to commit one.
    pub snapshot_timeout: Duration,
    /// How long it may take to remove one.
    pub remove_timeout: Duration,
    /// How much of a VM's console is kept, at least; at most about twice as much.
    pub console_max_bytes: u64,
}

impl DockerConfig {
    /// The Docker Engine of this host, for the state directory that `state` names.
    pub fn new(state: impl Into<String>) -> Self {
        Self {
            state: state.into(),
            socket: PathBuf::from("/var/run/docker.sock"),
            command: Vec::new(),
            networks: Vec::new(),
            runtime: None,
            pids_limit: 512,
            command_timeout: Duration::from_secs(15),
            start_timeout: Duration::from_secs(60),
            snapshot_timeout: Duration::from_secs(300),
            remove_timeout: Duration::from_secs(60),
            console_max_bytes: 1 << 20,
        }
    }
}
