//! Taking up a machine after a restart of hearth.

use std::path::Path;
use std::sync::Arc;

use qapi::qmp::RunState;

use super::QemuBackend;
use super::blueprint::Blueprint;
use super::machine::Machine;
use crate::backend::{Adopted, Place};
use crate::env::{Env as _, SystemEnv};
use crate::error::Result;
use crate::files;
use crate::model::VmStatus;
use crate::supervise::{self, Exit, ProcessRecord};

impl QemuBackend {
    pub(super) fn take_up(&self, place: &Place) -> Result<Adopted<Arc<Machine>>> {
        let blueprint = Blueprint::read(&place.dir)?;
        let machine = Arc::new(Machine::new(place.dir.clone(), blueprint, &self.config));
        let Some(record) = self.record_of(&place.dir) else {
            return Ok(Adopted { machine, status: VmStatus::Created, failure: None });
        };
        let bounded = machine.vmm.bounded();
        let Some(process) = self.supervisor.adopt(record.clone(), &place.dir, bounded) else {
            self.supervisor.tidy(&record);
            let reason = match record.boot_id == SystemEnv.boot_id() {
                true => "QEMU ended while hearth did not run",
                false => "the host was restarted",
            };
            return Ok(self.dead(machine, reason.to_owned()));
        };
        machine.vmm.set_process(process);
        let status = machine.wait_for_monitor(self.config.command_timeout).and_then(|()| {
            if self.finish_interrupted_capture(&machine)? {
                return Ok(VmStatus::Running);
            }
            match machine.run_state()? {
                RunState::running => Ok(VmStatus::Running),
                _ => Ok(VmStatus::Stopped),
            }
        });
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                // Its holder is told, and destroys it; to leave it running would help nobody.
                machine.vmm.give_up(String::new());
                let process = machine.vmm.process();
                process.map(|process| process.wait(self.config.kill_timeout));
                let reason = format!("QEMU could not be taken up after a restart: {error}");
                return Ok(self.dead(machine, reason));
            }
        };
        if status == VmStatus::Running {
            machine.hang_up();
        }
        self.watch(place, &machine);
        Ok(Adopted { machine, status, failure: None })
    }

    /// The record, or what it would say: hearth may have ended before it was written.
    fn record_of(&self, dir: &Path) -> Option<ProcessRecord> {
        files::read_json(&dir.join(supervise::RECORD))
            .ok()
            .or_else(|| self.supervisor.find_unrecorded(dir))
    }

    fn dead(&self, machine: Arc<Machine>, reason: String) -> Adopted<Arc<Machine>> {
        let exit =
            machine.vmm.process().and_then(|process| process.exit()).unwrap_or(Exit::Unknown);
        let failure = Some(machine.vmm.fail(reason, exit, &*self.env));
        Adopted { machine, status: VmStatus::Failed, failure }
    }
}
