//! Taking up machines after a restart of hearth.

use std::path::Path;
use std::sync::Arc;

use super::backend::CliBackend;
use super::machine::{Machine, Record};
use super::{Stand, Tool};
use crate::backend::{Adopted, Place};
use crate::error::Result;
use crate::id::Uid;
use crate::model::VmStatus;

impl<T: Tool> CliBackend<T> {
    pub(super) fn take_up(&self, place: &Place) -> Result<Adopted<Arc<Machine>>> {
        let record = Record::read(&place.dir)?;
        let led_to = record.led_to;
        let machine = Arc::new(Machine::new(place, record));
        let found = self.shared.find(&machine.name)?;
        let adopted = self.stand_of(&machine, found.map(|seen| seen.stand), led_to)?;
        // Watched from here on: before, the watch would say that what ended meanwhile ends now.
        self.shared.machines.insert(place.uid, Arc::downgrade(&machine));
        Ok(adopted)
    }

    /// What becomes of a machine that hearth last led to `led_to`, and that is found so.
    fn stand_of(
        &self,
        machine: &Arc<Machine>,
        found: Option<Stand>,
        led_to: VmStatus,
    ) -> Result<Adopted<Arc<Machine>>> {
        let dead = |reason: &str| {
            machine.report(self.shared.failure_of(machine, reason));
            let failure = machine.failure();
            Ok(Adopted { machine: Arc::clone(machine), status: VmStatus::Failed, failure })
        };
        let status = match (found, led_to) {
            (None, _) => return dead("the machine was removed while hearth did not run"),
            (Some(Stand::Failed), _) => return dead("the tool says that the machine failed"),
            // A start may have been under way when hearth ended.
            (Some(Stand::Running), _) => {
                machine.led_to(VmStatus::Running)?;
                VmStatus::Running
            }
            (Some(Stand::Unclear), VmStatus::Running) => VmStatus::Running,
            (Some(_), VmStatus::Running) => {
                return dead("the machine ended while hearth did not run");
            }
            (Some(_), VmStatus::Created) => VmStatus::Created,
            (Some(_), _) => VmStatus::Stopped,
        };
        Ok(Adopted { machine: Arc::clone(machine), status, failure: None })
    }

    /// Removes the machine of an instance that was never finished, if there is one.
    pub(super) fn reap_unfinished(&self, dir: &Path) -> usize {
        let name = dir.file_name().and_then(|name| name.to_str());
        let Some(uid) = name.and_then(|name| name.parse::<Uid>().ok()) else { return 0 };
        let there = self.shared.find(&super::name_of(uid));
        let removed = match there {
            Ok(None) => Ok(0),
            Ok(Some(_)) => self.shared.remove(uid).map(|()| 1),
            Err(error) => Err(error),
        };
        removed.unwrap_or_else(|error| {
            tracing::warn!(%uid, %error, "a machine is reaped later");
            self.shared.suspect();
            0
        })
    }
}
