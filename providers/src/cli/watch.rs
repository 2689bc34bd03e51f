//! Asking the tool now and then which machines still run, and sweeping what nobody knows.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::backend::Shared;
use super::machine::{MACHINE_FILE, Machine};
use super::{STATE_LABEL, Seen, Stand, Tool, uid_of};
use crate::error::Result;

/// Looks every `period` for as long as the backend is there; ends when `closed` is.
pub(super) fn run<T: Tool>(shared: &Weak<Shared<T>>, closed: &Receiver<()>, period: Duration) {
    while closed.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = shared.look_around() {
            tracing::debug!(%error, "which machines run could not be found out");
        }
    }
}

impl<T: Tool> Shared<T> {
    /// Reports the machines that should run and do not; sweeps where that was asked for. Blocks.
    pub(super) fn look_around(&self) -> Result<()> {
        let running: Vec<(Arc<Machine>, u64)> = self
            .machines
            .iter()
            .filter_map(|entry| entry.value().upgrade())
            .filter_map(|machine| machine.should_run().map(|epoch| (machine, epoch)))
            .collect();
        if !running.is_empty() {
            let seen = self.tool.list(self.config.command_timeout)?;
            for (machine, epoch) in running {
                self.judge(&machine, epoch, &seen);
            }
        }
        if self.suspicious.load(Ordering::Acquire) {
            self.sweep()?;
        }
        Ok(())
    }

    fn judge(&self, machine: &Machine, epoch: u64, seen: &[Seen]) {
        let found = seen.iter().find(|seen| seen.name == machine.name);
        let reason = match found.map(|seen| seen.stand) {
            Some(Stand::Running | Stand::Unclear) => return,
            Some(Stand::Stopped | Stand::Created) => "the machine ended by itself",
            Some(Stand::Failed) => "the tool says that the machine failed",
            None => "somebody else removed the machine",
        };
        let failure = self.failure_of(machine, reason);
        // Looked at again: a verb that has begun meanwhile may be why it does not run.
        if machine.should_run() == Some(epoch) {
            machine.report(failure);
        }
    }

    /// There may be machines that nobody knows: they are swept at the next look around.
    pub(super) fn suspect(&self) {
        self.suspicious.store(true, Ordering::Release);
    }

    /// Removes machines that carry our state's label and have no record. Blocks.
    pub(super) fn sweep(&self) -> Result<usize> {
        self.suspicious.store(false, Ordering::Release);
        let mut removed = 0;
        for seen in self.tool.list(self.config.command_timeout).inspect_err(|_| self.suspect())? {
            let ours = seen.labels.get(STATE_LABEL) == Some(&self.config.state);
            let Some(uid) = uid_of(&seen.name).filter(|_| ours) else { continue };
            let record = self.paths.instance(uid).join(MACHINE_FILE);
            if self.machines.contains_key(&uid) || record.exists() {
                continue;
            }
            match self.remove(uid) {
                Ok(()) => removed += 1,
                Err(error) => {
                    self.suspect();
                    tracing::warn!(name = seen.name, %error, "a machine is swept later");
                }
            }
        }
        Ok(removed)
    }
}
