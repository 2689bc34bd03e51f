//! The process of one machine: how it is held, and how it ended.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::log::AppendLog;
use super::process::{Exit, Process};
use super::{RECORD, Supervisor};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::model::{CONSOLE_TAIL_BYTES, Failure};

/// How much of its words is given as the cause of an error, in bytes.
const LAST_WORDS_BYTES: usize = 4096;

/// A machine's process, which comes and goes, with what tells of its end.
pub struct Vmm {
    /// What people call the program.
    pub program: &'static str,
    /// Everything of the instance.
    pub dir: PathBuf,
    /// What the guest writes on its serial port.
    pub console: Arc<AppendLog>,
    /// What the program itself says.
    pub log: Arc<AppendLog>,
    held: Mutex<Held>,
    /// Why we ended it ourselves though nobody asked for its end.
    given_up: OnceLock<String>,
    failure: OnceLock<Failure>,
}

/// What it runs as, and whether it is to run: one lock for both, so that a process and its end
/// cannot miss each other.
#[derive(Default)]
struct Held {
    process: Option<Arc<Process>>,
    is_killed: bool,
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vmm").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Vmm {
    /// One without a process.
    pub fn new(program: &'static str, dir: PathBuf, console: AppendLog, log: AppendLog) -> Self {
        Self {
            program,
            dir,
            console: Arc::new(console),
            log: Arc::new(log),
            held: Mutex::default(),
            given_up: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    /// The files that the process appends to.
    pub fn bounded(&self) -> Vec<Arc<AppendLog>> {
        vec![Arc::clone(&self.console), Arc::clone(&self.log)]
    }

    /// The process, if it has one; it may have ended.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.held.lock().process.clone()
    }

    /// It has a process, and that has not ended.
    pub fn is_alive(&self) -> bool {
        self.process().is_some_and(|process| process.exit().is_none())
    }

    /// From now on this is its process. A machine that was killed meanwhile does not get away.
    pub fn set_process(&self, process: Process) {
        let process = Arc::new(process);
        let mut held = self.held.lock();
        held.process = Some(Arc::clone(&process));
        if held.is_killed {
            process.kill();
        }
    }

    /// Ends it because somebody wants that.
    pub fn kill(&self) {
        let mut held = self.held.lock();
        held.is_killed = true;
        if let Some(process) = &held.process {
            process.kill();
        }
    }

    /// Somebody wanted its end.
    pub fn is_killed(&self) -> bool {
        self.held.lock().is_killed
    }

    /// Ends a machine that cannot be brought back to where it stood; it is reported as failed.
    pub fn give_up(&self, reason: String) {
        let _ = self.given_up.set(reason);
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    /// How it ended by itself, if it has.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Notes that the process ended; answers the failure if nobody wanted that.
    pub fn note_end(&self, exit: Exit, env: &dyn Env) -> Option<Failure> {
        if self.is_killed() {
            return None;
        }
        let reason = self.given_up.get().cloned().unwrap_or_else(|| self.end_in_words(exit));
        Some(self.fail(reason, exit, env))
    }

    /// Notes a failure; the first one counts, and is answered.
    pub fn fail(&self, reason: String, exit: Exit, env: &dyn Env) -> Failure {
        let console_tail = self.console.tail(CONSOLE_TAIL_BYTES);
        let exit_status = exit.status();
        let failure = Failure { reason, time: env.now(), exit_status, console_tail };
        self.failure.get_or_init(|| failure).clone()
    }

    /// The error of a call that the process did not live to answer.
    pub fn ended_error(&self, when: &str) -> VmRuntimeError {
        let exit = self.process().and_then(|process| process.exit()).unwrap_or(Exit::Unknown);
        let what = format!("{} ended {when}: {}", self.program, self.end_in_words(exit));
        VmRuntimeError::Backend { what, source: Some(self.last_words().into()) }
    }

    /// The same, of a machine that ran: it may be worth another try with another one.
    pub fn gone_error(&self, exit: Exit, asked: &str) -> VmRuntimeError {
        let what = format!("{}, asked to {asked}: {}", self.program, self.end_in_words(exit));
        VmRuntimeError::Unavailable { what, source: Some(self.last_words().into()) }
    }

    /// The last that the program said.
    pub fn last_words(&self) -> String {
        self.log.tail(LAST_WORDS_BYTES)
    }

    fn end_in_words(&self, exit: Exit) -> String {
        let program = self.program;
        match exit {
            Exit::Status(0) => "the guest ended itself".to_owned(),
            Exit::Status(status) => {
                let said = self.log.tail(1024);
                let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
                format!("{program} exited with status {status}: {said}")
            }
            Exit::Signal(signal) => format!("{program} was ended by signal {signal}"),
            Exit::Unknown => {
                format!("{program} has ended, and not as our child: how is unknown")
            }
        }
    }

    fn forget_process(&self) {
        self.held.lock().process = None;
    }
}

impl Supervisor {
    /// Ends a process that never became a running machine, without a word to anybody. False when
    /// it does not end within `timeout`.
    pub fn undo_launch(&self, vmm: &Vmm, timeout: Duration) -> bool {
        let Some(process) = vmm.process() else { return true };
        process.kill();
        if process.wait(timeout).is_none() {
            tracing::warn!(process = ?process.record(), "a {} does not end", vmm.program);
            return false;
        }
        self.tidy(process.record());
        let _ = std::fs::remove_file(vmm.dir.join(RECORD));
        vmm.forget_process();
        true
    }

    /// Waits, bounded, for a killed machine to be gone, and removes its cgroup.
    ///
    /// # Errors
    /// `Timeout` when it does not go.
    pub fn dispose(&self, vmm: &Vmm, timeout: Duration) -> Result<()> {
        let Some(process) = vmm.process() else { return Ok(()) };
        process.kill();
        let gone = process.wait(timeout).is_some();
        self.tidy(process.record());
        if gone {
            return Ok(());
        }
        let what = format!("{} (process {}), to end,", vmm.program, process.record().pid);
        Err(VmRuntimeError::Timeout { what, after: timeout })
    }
}
