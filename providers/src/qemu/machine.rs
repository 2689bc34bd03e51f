//! One machine: its process and its monitor.
//!
//! The connection to the monitor is kept while the guest stands still, so that resuming it costs
//! one line; a guest that runs could fill a connection with events that nobody reads, so it has
//! none.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use qapi::{Command, qmp};

use super::arguments::CONSOLE;
use super::blueprint::Blueprint;
use super::config::QemuConfig;
use super::qmp::{Qmp, QmpError};
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::local::socket::is_timeout;
use crate::supervise::{AppendLog, Vmm};
use crate::turnstile::Turnstile;

/// What QEMU itself says, in the instance's directory.
const LOG: &str = "qemu.log";
const LOG_MAX_BYTES: u64 = 256 << 10;
/// How often a QEMU that comes up is looked for. It takes tens of milliseconds.
const FIRST_CONTACT_POLL: Duration = Duration::from_millis(1);
const WHILE_COMING_UP: &str = "while it came up";

/// A machine.
pub struct Machine {
    pub(super) vmm: Vmm,
    pub(super) blueprint: Blueprint,
    pub(super) channel: Turnstile,
    command_timeout: Duration,
    monitor: Mutex<Option<Qmp>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("vmm", &self.vmm).finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(dir: PathBuf, blueprint: Blueprint, config: &QemuConfig) -> Self {
        let console = AppendLog::new(dir.join(CONSOLE), config.console_max_bytes);
        let log = AppendLog::new(dir.join(LOG), LOG_MAX_BYTES);
        Self {
            vmm: Vmm::new("QEMU", dir, console, log),
            channel: Turnstile::default(),
            command_timeout: config.command_timeout,
            monitor: Mutex::default(),
            blueprint,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.vmm.dir
    }

    /// Waits for a QEMU that was just started until it takes commands.
    pub(super) fn wait_for_monitor(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        loop {
            if !self.vmm.is_alive() {
                return Err(self.vmm.ended_error(WHILE_COMING_UP));
            }
            let Some(left) = deadline.left() else {
                let what = "QEMU, to come up,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            };
            use std::io::ErrorKind as K;
            match Qmp::connect(self.dir(), left) {
                Ok(monitor) => {
                    *self.monitor.lock() = Some(monitor);
                    return Ok(());
                }
                Err(QmpError::Broken(error))
                    if matches!(error.kind(), K::NotFound | K::ConnectionRefused) =>
                {
                    std::thread::sleep(FIRST_CONTACT_POLL);
                }
                Err(error) => {
                    let error = self.explain("come up", error, timeout);
                    let alive = self.vmm.is_alive();
                    return Err(if alive { error } else { self.vmm.ended_error(WHILE_COMING_UP) });
                }
            }
        }
    }

    /// Runs a command of the monitor within the configured time.
    pub(super) fn execute<C: Command>(&self, command: &C) -> Result<C::Ok> {
        self.with_monitor(C::NAME, |monitor| monitor.execute(command, self.command_timeout))
    }

    /// Gives QEMU the open `file` for as long as `with` takes, which hears what QEMU can open it as: one that has
    /// become another user opens no path of ours.
    pub(super) fn with_file(
        &self,
        file: &File,
        with: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let give = |monitor: &mut Qmp| monitor.give_file(file.as_fd(), self.command_timeout);
        let (fdset_id, name) = self.with_monitor("take a file", give)?;
        let done = with(Path::new(&name));
        // Of one that is gone nothing is left to be taken back, and why it is gone has been said.
        let taken_back = self.execute(&qmp::remove_fd { fd: None, fdset_id });
        done.and(taken_back.map(drop))
    }

    /// Talks to the monitor, by the connection that there is or by a new one.
    fn with_monitor<T>(
        &self,
        what: &str,
        talk: impl FnOnce(&mut Qmp) -> std::result::Result<T, QmpError>,
    ) -> Result<T> {
        let mut monitor = self.monitor.lock();
        let connected = match monitor.take() {
            Some(connected) => Ok(connected),
            None => Qmp::connect(self.dir(), self.command_timeout),
        };
        let done = connected.and_then(|mut connected| {
            let done = talk(&mut connected);
            if !matches!(done, Err(QmpError::Broken(_))) {
                *monitor = Some(connected);
            }
            done
        });
        drop(monitor);
        done.map_err(|error| self.explain(what, error, self.command_timeout))
    }

    /// Lets the guest run, and hangs up.
    pub(super) fn resume(&self) -> Result<()> {
        self.execute(&qmp::cont {})?;
        self.hang_up();
        Ok(())
    }

    /// Closes the connection to the monitor; the next command makes a new one.
    pub(super) fn hang_up(&self) {
        *self.monitor.lock() = None;
    }

    /// Stops the vCPUs; what the guest has written is then in the files of its disks.
    pub(super) fn pause(&self) -> Result<()> {
        self.execute(&qmp::stop {}).map(drop)
    }

    pub(super) fn run_state(&self) -> Result<qmp::RunState> {
        Ok(self.execute(&qmp::query_status {})?.status)
    }

    /// Whether QEMU answers, and its guest could run: it has not stopped it for an error.
    ///
    /// # Errors
    /// `Timeout` or `Unavailable`, saying what is wrong.
    pub(super) fn check_health(&self, timeout: Duration) -> Result<()> {
        let silent =
            || VmRuntimeError::Timeout { what: "QEMU, to say how it is,".into(), after: timeout };
        let deadline = Deadline::after(timeout);
        let mut monitor = self.monitor.try_lock_for(timeout).ok_or_else(silent)?;
        let left = deadline.left().ok_or_else(silent)?;
        let kept = monitor.take();
        let was_kept = kept.is_some();
        let connected = kept.map_or_else(|| Qmp::connect(self.dir(), left), Ok);
        let state = connected.and_then(|mut connected| {
            let left = deadline.left().unwrap_or(Duration::from_millis(1));
            let state = connected.execute(&qmp::query_status {}, left)?.status;
            *monitor = was_kept.then_some(connected);
            Ok(state)
        });
        drop(monitor);
        use qmp::RunState as S;
        match state.map_err(|error| self.explain("say how it is", error, timeout))? {
            state @ (S::internal_error | S::io_error | S::guest_panicked | S::shutdown) => {
                let what = format!("QEMU has stopped its guest: {state:?}");
                Err(VmRuntimeError::Unavailable { what, source: None })
            }
            _ => Ok(()),
        }
    }

    fn explain(&self, command: &str, error: QmpError, timeout: Duration) -> VmRuntimeError {
        match error {
            QmpError::Refused(why) => refused(command, why),
            QmpError::Broken(error) if is_timeout(&error) => {
                VmRuntimeError::Timeout { what: format!("QEMU, to {command},"), after: timeout }
            }
            QmpError::Broken(error) => {
                // The end of the stream comes an instant before the end of the process.
                let process = self.vmm.process();
                let exit = process.and_then(|process| process.wait(Duration::from_millis(500)));
                match exit {
                    Some(exit) => self.vmm.gone_error(exit, command),
                    None => VmRuntimeError::unavailable(format!("ask QEMU to {command}"), error),
                }
            }
        }
    }
}

/// QEMU's refusal as an error; a full disk is told apart.
pub(super) fn refused(command: &str, why: String) -> VmRuntimeError {
    if why.contains("No space left on device") {
        let what = format!("disk space (QEMU, to {command})");
        return VmRuntimeError::Exhausted { what, retry_after: None };
    }
    VmRuntimeError::Backend { what: format!("QEMU refused to {command}: {why}"), source: None }
}
