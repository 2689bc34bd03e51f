//! One machine: its process, its API, and what is around them.
//!
//! Firecracker answers one request at a time, so we ask one at a time: whoever only looks waits
//! for a turn within its own deadline. A verb whose answer does not come leaves a machine that may
//! still do it at any moment later: it is ended, and its holder told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::json;

use super::api::{Api, ApiError, VmState};
use super::blueprint::Blueprint;
use super::config::FirecrackerConfig;
use super::exchange::NoAnswer;
use super::handler::Handler;
use super::home::{CONSOLE, Home, LOG};
use super::jail::UserLease;
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::supervise::{AppendLog, Vmm};
use crate::turnstile::Turnstile;

const LOG_MAX_BYTES: u64 = 256 << 10;
/// How long a Firecracker that comes up is left alone between two looks, at first and at most.
const FIRST_CONTACT: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));
/// How long a process may take to be gone after its last connection is.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub(super) vmm: Vmm,
    pub(super) blueprint: Blueprint,
    pub(super) channel: Turnstile,
    /// Answers the guest's page faults.
    pub(super) handler: Handler,
    api: Api,
    turn: Mutex<()>,
    command_timeout: Duration,
    _user: Option<UserLease>,
}

impl Machine {
    pub(super) fn new(
        dir: &Path,
        blueprint: Blueprint,
        user: Option<UserLease>,
        config: &FirecrackerConfig,
    ) -> Self {
        let home = blueprint.home(dir);
        // A jailer that leaves its output leaves the console to Firecracker, in the jail.
        let by_itself = config.jailer.as_ref().is_some_and(|jailer| jailer.daemonize);
        let console = if by_itself { home.join(CONSOLE) } else { dir.join(CONSOLE) };
        let console = AppendLog::new(console, config.console_max_bytes);
        let log = AppendLog::new(home.join(LOG), LOG_MAX_BYTES);
        Self {
            vmm: Vmm::new("Firecracker", dir.to_owned(), console, log),
            channel: Turnstile::default(),
            handler: Handler::default(),
            api: Api::new(home),
            turn: Mutex::default(),
            command_timeout: config.command_timeout,
            _user: user,
            blueprint,
        }
    }

    pub(super) fn home(&self) -> Home<'_> {
        Home::of(&self.vmm.dir, &self.blueprint)
    }

    pub(super) fn home_path(&self) -> PathBuf {
        self.blueprint.home(&self.vmm.dir)
    }

    /// Ends it, and whatever helps it.
    pub(super) fn kill(&self) {
        self.vmm.kill();
        self.handler.kill();
    }

    /// Makes the first call to a process that was just started: again and again until somebody
    /// listens, or the process ends. `call` gets the time that it may take.
    pub(super) fn first_call(
        &self,
        asked: &str,
        start_timeout: Duration,
        timeout: Duration,
        call: impl Fn(&Api, Duration) -> Result<(), ApiError>,
    ) -> Result<(), Refusal> {
        let _turn = self.turn.lock();
        let deadline = Deadline::after(start_timeout);
        let (mut pause, longest) = FIRST_CONTACT;
        loop {
            match call(&self.api, timeout) {
                Err(ApiError::None(NoAnswer::NotListening(_))) => {}
                done => return done.map_err(|error| self.refusal(asked, error, timeout)),
            }
            if !self.vmm.is_alive() {
                return Err(self.vmm.ended_error("while it came up").into());
            }
            if deadline.left().is_none() {
                let what = "Firecracker, to come up,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: start_timeout }.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 3 / 2).min(longest);
        }
    }

    /// Makes a call that configures a machine or tells it something.
    pub(super) fn put(&self, path: &str, body: &impl serde::Serialize) -> Result<()> {
        let _turn = self.turn.lock();
        let timeout = self.command_timeout;
        let done = self.api.put(path, body, timeout);
        done.map_err(|error| self.refusal(path, error, timeout).error)
    }

    /// Writes a snapshot into its home.
    pub(super) fn create_snapshot(
        &self,
        body: &impl serde::Serialize,
        timeout: Duration,
    ) -> Result<()> {
        let _turn = self.turn.lock();
        let done = self.api.put("/snapshot/create", body, timeout);
        self.or_give_up("write a snapshot", done, timeout)
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.set_state("Paused", "pause")
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.set_state("Resumed", "resume")
    }

    pub(super) fn state(&self, timeout: Duration) -> Result<VmState> {
        let (_turn, left) = self.turn_within(timeout)?;
        let asked = "say how it is";
        self.api.state(left).map_err(|error| self.refusal(asked, error, timeout).error)
    }

    fn set_state(&self, state: &str, asked: &str) -> Result<()> {
        let _turn = self.turn.lock();
        let done = self.api.patch("/vm", &json!({ "state": state }), self.command_timeout);
        self.or_give_up(asked, done, self.command_timeout)
    }

    /// A call that may still be done when its time is up makes the machine unfit for use.
    fn or_give_up(&self, asked: &str, done: Result<(), ApiError>, timeout: Duration) -> Result<()> {
        if matches!(done, Err(ApiError::None(NoAnswer::TimedOut))) {
            self.vmm.give_up(format!("Firecracker, asked to {asked}, did not answer"));
        }
        done.map_err(|error| self.refusal(asked, error, timeout).error)
    }

    fn turn_within(&self, timeout: Duration) -> Result<(MutexGuard<'_, ()>, Duration)> {
        let deadline = Deadline::after(timeout);
        let turn = self.turn.try_lock_for(timeout);
        let both = turn.and_then(|turn| Some((turn, deadline.left()?)));
        both.ok_or_else(|| VmRuntimeError::Timeout {
            what: "Firecracker, which is busy,".to_owned(),
            after: timeout,
        })
    }

    fn refusal(&self, asked: &str, error: ApiError, timeout: Duration) -> Refusal {
        let refused = |message: &str| VmRuntimeError::Backend {
            what: format!("Firecracker refused to {asked}: {message}"),
            source: None,
        };
        let error = match error {
            ApiError::Refused { status, message } => {
                let error = match message.as_str() {
                    full if full.contains("No space left on device") => VmRuntimeError::Exhausted {
                        what: format!("disk space (Firecracker, to {asked})"),
                        retry_after: None,
                    },
                    _ => refused(&message),
                };
                tracing::debug!(asked, status, message, "Firecracker refused");
                return Refusal { error, message: Some(message), aborted: false };
            }
            ApiError::Busy => VmRuntimeError::Unavailable {
                what: format!("Firecracker has too many connections to {asked}"),
                source: None,
            },
            ApiError::None(NoAnswer::TimedOut) => VmRuntimeError::Timeout {
                what: format!("Firecracker, to {asked},"),
                after: timeout,
            },
            ApiError::None(lost) => {
                // The end of the connection comes an instant before the end of the process.
                let exit = self.vmm.process().and_then(|process| process.wait(LAST_BREATH));
                let Some(exit) = exit else {
                    let error =
                        VmRuntimeError::unavailable(format!("ask Firecracker to {asked}"), lost);
                    return error.into();
                };
                let aborted = exit.status() == Some(128 + 6);
                let error = self.vmm.gone_error(exit, asked);
                return Refusal { error, message: None, aborted };
            }
        };
        error.into()
    }
}

/// Why a call was not done, with what tells kinds of refusals apart.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: VmRuntimeError,
    /// Firecracker's own words.
    pub(super) message: Option<String>,
    /// It died of it, by SIGABRT: a panic.
    pub(super) aborted: bool,
}

impl From<VmRuntimeError> for Refusal {
    fn from(error: VmRuntimeError) -> Self {
        Self { error, message: None, aborted: false }
    }
}
