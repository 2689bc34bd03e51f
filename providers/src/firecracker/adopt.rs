//! Taking up a machine after a restart of hearth.

use std::sync::Arc;

use super::FirecrackerBackend;
use super::api::VmState;
use super::blueprint::Blueprint;
use super::machine::Machine;
use crate::backend::{Adopted, Place};
use crate::env::{Env as _, SystemEnv};
use crate::error::Result;
use crate::files;
use crate::model::VmStatus;
use crate::supervise::{self, Exit};

impl FirecrackerBackend {
    pub(super) fn take_up(&self, place: &Place) -> Result<Adopted<Arc<Machine>>> {
        let blueprint = Blueprint::read(&place.dir)?;
        let (jail, jails) = (blueprint.jail.as_ref(), self.jails.as_ref());
        let user = jails.zip(jail).map(|(jails, jail)| jails.adopt(jail));
        let home = blueprint.home(&place.dir);
        let machine = Arc::new(Machine::new(&place.dir, blueprint, user, &self.config));
        let record = files::read_json(&place.dir.join(supervise::RECORD)).ok();
        let record = record.or_else(|| self.supervisor.find_unrecorded(&place.dir));
        let Some(record) = record else {
            return Ok(Adopted { machine, status: VmStatus::Created, failure: None });
        };
        let bounded = machine.vmm.bounded();
        let adopted = self.supervisor.adopt(record.clone(), &home, bounded.clone());
        // One that is still the jailer works where it was started.
        let adopted =
            adopted.or_else(|| self.supervisor.adopt(record.clone(), &place.dir, bounded));
        let Some(process) = adopted else {
            self.supervisor.tidy(&record);
            // Whether it still ran is all the same.
            let _ = self.adopt_handler(&machine);
            self.end_handler(&machine);
            let reason = match record.boot_id == SystemEnv.boot_id() {
                true => "Firecracker ended while hearth did not run",
                false => "the host was restarted",
            };
            return Ok(self.dead(machine, reason.to_owned()));
        };
        machine.vmm.set_process(process);
        let handled = self.adopt_handler(&machine);
        let status = match handled.and_then(|()| self.finish_interrupted_capture(&machine)) {
            Ok(VmState::Running) => VmStatus::Running,
            Ok(VmState::Paused) => VmStatus::Stopped,
            // hearth ended before it was told what to boot: it was never started.
            Ok(VmState::NotStarted) => {
                self.undo_launch(&machine);
                return Ok(Adopted { machine, status: VmStatus::Created, failure: None });
            }
            Err(error) => {
                let error = machine.handler_error().unwrap_or(error);
                // Its holder is told, and destroys it; to leave it running would help nobody.
                machine.vmm.give_up(String::new());
                let process = machine.vmm.process();
                process.map(|process| process.wait(self.config.kill_timeout));
                self.end_handler(&machine);
                let reason = format!("Firecracker could not be taken up after a restart: {error}");
                return Ok(self.dead(machine, reason));
            }
        };
        self.watch(place, &machine);
        Ok(Adopted { machine, status, failure: None })
    }

    fn dead(&self, machine: Arc<Machine>, reason: String) -> Adopted<Arc<Machine>> {
        let process = machine.vmm.process();
        let exit = process.and_then(|process| process.exit()).unwrap_or(Exit::Unknown);
        let failure = Some(machine.vmm.fail(reason, exit, &*self.env));
        Adopted { machine, status: VmStatus::Failed, failure }
    }
}
