//! Taking up containers after a restart of hearth.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::DockerBackend;
use super::commit_mark::CommitMark;
use super::fault::Fault;
use super::machine::{Machine, Record};
use super::shared::{Answer, Shared, Stand};
use crate::backend::{Adopted, Place};
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::model::{Failure, VmSpec, VmStatus};

/// How often an engine that went just then is asked again.
const POLL: Duration = Duration::from_millis(100);

impl Shared {
    /// Waits for an engine that went between two requests: what is not found now is reaped.
    async fn find_patiently(&self, uid: Uid) -> Answer<Option<String>> {
        let find = async {
            loop {
                match self.find(uid).await {
                    Err(fault) if fault.is_unsettled() => tokio::time::sleep(POLL).await,
                    found => return found,
                }
            }
        };
        let timeout = self.config.start_timeout;
        tokio::time::timeout(timeout, find).await.unwrap_or(Err(Fault::Late(timeout)))
    }
}

impl DockerBackend {
    pub(super) fn take_up(&self, place: &Place, spec: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        let record = Record::read(&place.dir)?;
        let (shared, uid) = (Arc::clone(&self.shared), place.uid);
        let found = self.wait(async move { shared.find_patiently(uid).await });
        let found = found.map_err(|fault| fault.into_error("find a container again"))?;
        let is_ours = found.as_ref() == Some(&record.container);
        let machine = self.keep(place, record);
        if !is_ours {
            return Ok(self.dead(machine, "its container was removed while hearth did not run"));
        }
        let look = self.look(&machine, self.shared.config.command_timeout)?;
        let was_restored = spec.restore_from.is_some();
        let was_committing = CommitMark::take(&place.dir);
        let status = match look.stand {
            Stand::Created if was_restored => VmStatus::Stopped,
            Stand::Created => VmStatus::Created,
            Stand::Running => VmStatus::Running,
            Stand::Paused if was_committing => self.go_on(&machine),
            Stand::Paused => VmStatus::Stopped,
            Stand::Ended => {
                let (shared, ended) = (Arc::clone(&self.shared), Arc::clone(&machine));
                // It reports the end, and the engine of the contract asks for it afterwards.
                let examined = self.wait(async move { shared.examine(&ended, None).await });
                return match (examined, machine.failure()) {
                    (Err(fault), None) => Err(fault.into_error("look at a container")),
                    (_, failure) => Ok(Adopted { machine, status: VmStatus::Failed, failure }),
                };
            }
        };
        if matches!(look.stand, Stand::Running | Stand::Paused) {
            machine.note_process(look.pid);
            self.follow_console(&machine, true);
        }
        Ok(Adopted { machine, status, failure: None })
    }

    /// A commit that was cut short has paused it, or still does: nobody waits for its image.
    fn go_on(&self, machine: &Arc<Machine>) -> VmStatus {
        match self.unpause(machine) {
            Ok(()) => VmStatus::Running,
            Err(error) => {
                tracing::warn!(uid = %machine.uid, %error, "a commit has left a container paused");
                VmStatus::Stopped
            }
        }
    }

    fn dead(&self, machine: Arc<Machine>, reason: &str) -> Adopted<Arc<Machine>> {
        machine.report(Failure {
            reason: reason.to_owned(),
            time: self.shared.env.now(),
            exit_status: None,
            console_tail: machine.console.tail(crate::model::CONSOLE_TAIL_BYTES),
        });
        let failure = machine.failure();
        Adopted { machine, status: VmStatus::Failed, failure }
    }

    /// Removes the container of an instance that was never finished, if there is one of ours.
    pub(super) fn reap_unrecorded(&self, dir: &Path) -> usize {
        let name = dir.file_name().and_then(|name| name.to_str());
        let Some(uid) = name.and_then(|name| name.parse::<Uid>().ok()) else { return 0 };
        let shared = Arc::clone(&self.shared);
        let found = self.wait(async move { shared.find(uid).await });
        let removed = match found.map_err(|fault| fault.into_error("find a container")) {
            Ok(Some(container)) => self.remove(&container).map(|()| 1),
            Ok(None) => Ok(0),
            Err(error) => Err(error),
        };
        removed.unwrap_or_else(|error: VmRuntimeError| {
            tracing::warn!(%uid, %error, "a container is reaped later");
            self.shared.sweep.suspect();
            0
        })
    }
}
