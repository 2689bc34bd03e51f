//! One machine: its process, its monitor, and how it ended.
//!
//! The connection to the monitor is kept while the guest stands still, so that resuming it costs
//! one line; a guest that runs could fill a connection with events that nobody reads, so it has
//! none.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use qapi::{Command, qmp};

use super::arguments::CONSOLE;
use super::blueprint::Blueprint;
use super::config::QemuConfig;
use super::qmp::{Qmp, QmpError};
use super::socket::is_timeout;
use crate::env::{Deadline, Env};
use crate::error::{Result, VmRuntimeError};
use crate::model::{CONSOLE_TAIL_BYTES, Failure};
use crate::supervise::{AppendLog, Exit, Process};

/// What QEMU itself says, in the instance's directory.
const LOG: &str = "qemu.log";
const LOG_MAX_BYTES: u64 = 256 << 10;
/// How often a QEMU that comes up is looked for. It takes tens of milliseconds.
const FIRST_CONTACT_POLL: Duration = Duration::from_millis(1);

/// A machine.
pub struct Machine {
    pub(super) dir: PathBuf,
    pub(super) blueprint: Blueprint,
    pub(super) console: Arc<AppendLog>,
    pub(super) log: Arc<AppendLog>,
    pub(super) channel_taken: Arc<AtomicBool>,
    command_timeout: Duration,
    process: Mutex<Option<Arc<Process>>>,
    monitor: Mutex<Option<Qmp>>,
    killed: AtomicBool,
    /// Why we ended it ourselves though nobody asked for its end.
    given_up: OnceLock<String>,
    failure: OnceLock<Failure>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(dir: PathBuf, blueprint: Blueprint, config: &QemuConfig) -> Self {
        Self {
            console: Arc::new(AppendLog::new(dir.join(CONSOLE), config.console_max_bytes)),
            log: Arc::new(AppendLog::new(dir.join(LOG), LOG_MAX_BYTES)),
            channel_taken: Arc::default(),
            command_timeout: config.command_timeout,
            process: Mutex::default(),
            monitor: Mutex::default(),
            killed: AtomicBool::new(false),
            given_up: OnceLock::new(),
            failure: OnceLock::new(),
            dir,
            blueprint,
        }
    }

    pub(super) fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    /// From now on this is its process. A machine that was killed meanwhile does not get away.
    pub(super) fn set_process(&self, process: Process) {
        *self.process.lock() = Some(Arc::new(process));
        if self.is_killed() {
            self.kill();
        }
    }

    /// Forgets a process that has ended: the machine was never started.
    pub(super) fn forget_process(&self) {
        *self.monitor.lock() = None;
        *self.process.lock() = None;
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Ends a machine that cannot be brought back to where it stood; it is reported as failed.
    pub(super) fn give_up(&self, reason: String) {
        let _ = self.given_up.set(reason);
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    /// Waits for a QEMU that was just started until it takes commands.
    pub(super) fn wait_for_monitor(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        loop {
            if self.process().is_none_or(|process| process.exit().is_some()) {
                return Err(self.ended_error("while it came up"));
            }
            let Some(left) = deadline.left() else {
                let what = "QEMU, to come up,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            };
            use std::io::ErrorKind as K;
            match Qmp::connect(&self.dir, left) {
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
                    let ended = self.process().is_none_or(|process| process.exit().is_some());
                    return Err(if ended { self.ended_error("while it came up") } else { error });
                }
            }
        }
    }

    /// Runs a command of the monitor within the configured time.
    pub(super) fn execute<C: Command>(&self, command: &C) -> Result<C::Ok> {
        let mut monitor = self.monitor.lock();
        let connected = match monitor.take() {
            Some(connected) => Ok(connected),
            None => Qmp::connect(&self.dir, self.command_timeout),
        };
        let done = connected.and_then(|mut connected| {
            let done = connected.execute(command, self.command_timeout);
            if !matches!(done, Err(QmpError::Broken(_))) {
                *monitor = Some(connected);
            }
            done
        });
        drop(monitor);
        done.map_err(|error| self.explain(C::NAME, error, self.command_timeout))
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
        let connected = kept.map_or_else(|| Qmp::connect(&self.dir, left), Ok);
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

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Notes that the process ended; answers the failure if nobody wanted that.
    pub(super) fn note_end(&self, exit: Exit, env: &dyn Env) -> Option<Failure> {
        if self.is_killed() {
            return None;
        }
        let reason = self.given_up.get().cloned().unwrap_or_else(|| self.end_in_words(exit));
        self.fail(reason, exit, env)
    }

    pub(super) fn fail(&self, reason: String, exit: Exit, env: &dyn Env) -> Option<Failure> {
        let console_tail = self.console.tail(CONSOLE_TAIL_BYTES);
        let exit_status = exit.status();
        let failure = Failure { reason, time: env.now(), exit_status, console_tail };
        Some(self.failure.get_or_init(|| failure).clone())
    }

    fn end_in_words(&self, exit: Exit) -> String {
        match exit {
            Exit::Status(0) => "the guest ended itself".to_owned(),
            Exit::Status(status) => {
                let said = self.log.tail(1024);
                let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
                format!("QEMU exited with status {status}: {said}")
            }
            Exit::Signal(signal) => format!("QEMU was ended by signal {signal}"),
            Exit::Unknown => "QEMU has ended, and not as our child: how is unknown".to_owned(),
        }
    }

    fn ended_error(&self, when: &str) -> VmRuntimeError {
        let exit = self.process().and_then(|process| process.exit()).unwrap_or(Exit::Unknown);
        let what = format!("QEMU ended {when}: {}", self.end_in_words(exit));
        VmRuntimeError::Backend { what, source: Some(self.log.tail(4096).into()) }
    }

    fn explain(&self, command: &str, error: QmpError, timeout: Duration) -> VmRuntimeError {
        match error {
            QmpError::Refused(why) => refused(command, why),
            QmpError::Broken(error) if is_timeout(&error) => {
                VmRuntimeError::Timeout { what: format!("QEMU, to {command},"), after: timeout }
            }
            QmpError::Broken(error) => {
                // The end of the stream comes an instant before the end of the process.
                let process = self.process();
                let exit = process.and_then(|process| process.wait(Duration::from_millis(500)));
                match exit {
                    Some(exit) => VmRuntimeError::Unavailable {
                        what: format!("QEMU, asked to {command}: {}", self.end_in_words(exit)),
                        source: Some(self.log.tail(4096).into()),
                    },
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
