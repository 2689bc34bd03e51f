//! What VMs are restored from: a recipe, and the snapshot made by it.
//!
//! Each build, import or rollback makes a generation; its snapshot is pinned under the template's name
//! and generation, so that it outlives the VM it was taken of. The last generations are kept
//! (`history`), so that one can go back (`rollback`); a start looks whether the snapshots still fit
//! their host, and builds anew what does not (`rebuild`).

mod history;
mod publish;
mod rebuild;
mod rollback;

use std::time::{Duration, SystemTime};

use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::readiness::{self, Readiness};
use hearth_providers::{SnapshotId, Uid, VmId, VmRuntime, VmRuntimeError, VmSpec};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::TemplateId;

pub(crate) use history::History;
pub use history::{KEPT_FAILURES, KEPT_GENERATIONS};

/// How a template is made, and what was made by it: as it is journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// The configured provider it is for.
    pub provider: String,
    /// What its VM is booted from; of an imported one only what was told.
    pub spec: VmSpec,
    /// When its VM is ready to be captured.
    pub readiness: Readiness,
    /// For how long that is waited for.
    pub ready_timeout: Duration,
    /// Requests to its VM's agent before it is captured.
    pub warm_up: Vec<String>,
    /// Which making of it this is, from 1.
    pub generation: i64,
    /// Where it stands.
    pub state: TemplateState,
    /// What restores read; unset while it is first built.
    pub snapshot: Option<TemplateSnapshot>,
    /// Was it imported, and so can be built again only if its spec was told.
    pub imported: bool,
    /// The first VM of it became warm, or there is no generation before it to go back to; what an
    /// older version wrote is taken for proven.
    #[serde(default = "proven")]
    pub is_proven: bool,
    /// Changes with every change.
    pub etag: String,
    /// When the template was first made; unset where an older version made it.
    #[serde(default)]
    pub create_time: Option<SystemTime>,
    /// When this generation was made, or could not be; unset where an older version made it.
    #[serde(default)]
    pub update_time: Option<SystemTime>,
}

const fn proven() -> bool {
    true
}

/// For how long a template's VM is waited for that does not say.
pub const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a template stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// Its snapshot is being made.
    Building,
    /// VMs can be restored from it.
    Ready,
    /// Its snapshot could not be made, for this reason.
    Failed(String),
}

/// The snapshot of a template, by the uid of the VM it was taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSnapshot {
    /// The snapshot's own uid.
    pub uid: Uid,
    /// The uid of the VM it was taken of.
    pub vm_uid: Uid,
    /// Its name among those of that VM.
    pub snapshot_id: SnapshotId,
    /// How long the first restore from it took, until that VM was ready; unset where there was none.
    #[serde(default)]
    pub restore_time: Option<Duration>,
}

impl TemplateSnapshot {
    /// How a provider is asked for it.
    pub fn reference(&self, resume_immediately: bool) -> SnapshotRef {
        SnapshotRef {
            source: SnapshotSource::VmUid(self.vm_uid),
            snapshot_id: self.snapshot_id.clone(),
            resume_immediately,
            network_overrides: Vec::new(),
        }
    }
}

impl Template {
    /// Waits until a VM that was restored from it is usable; for up to `probe_timeout` where the VM goes
    /// on, or for as long as it took to be built where it boots anew. Blocks.
    ///
    /// # Errors
    /// Those of [`readiness::wait_restored`].
    pub fn wait_restored(
        &self,
        runtime: &dyn VmRuntime,
        vm_id: &VmId,
        probe_timeout: Duration,
    ) -> Result<(), VmRuntimeError> {
        let (readiness, ready_timeout) = (&self.readiness, self.ready_timeout);
        readiness::wait_restored(runtime, vm_id, readiness, probe_timeout, ready_timeout)
    }

    /// A recipe that nothing has been made of yet; its VM is ready when its agent answers.
    pub fn new(id: TemplateId, provider: &str, spec: VmSpec) -> Self {
        Self {
            id,
            provider: provider.to_owned(),
            spec,
            readiness: Readiness::AgentAnswers,
            ready_timeout: DEFAULT_READY_TIMEOUT,
            warm_up: Vec::new(),
            generation: 0,
            state: TemplateState::Building,
            snapshot: None,
            imported: false,
            is_proven: true,
            etag: String::new(),
            create_time: None,
            update_time: None,
        }
    }

    /// Whether VMs of one are as good as VMs of the other: restored from the same snapshot, and ready by
    /// the same rule. So it is of generations before and after a rollback.
    pub fn is_same_make(&self, other: &Self) -> bool {
        let make = |it: &Self| (it.snapshot.clone(), it.readiness.clone(), it.warm_up.clone());
        self.snapshot.is_some() && make(self) == make(other)
    }

    /// Whether it is known what its VM was booted from: then it can be built again.
    pub fn has_recipe(&self) -> bool {
        !self.imported || self.spec != VmSpec::default()
    }

    /// Whether it could not be made, or turned out to be no good.
    pub const fn has_failed(&self) -> bool {
        matches!(self.state, TemplateState::Failed(_))
    }

    /// What is kept of it when it has failed: why, and not its snapshot.
    pub(crate) fn into_failed(self, reason: String) -> Self {
        Self { state: TemplateState::Failed(reason), snapshot: None, ..self }
    }

    /// What a restore from it asks the provider for; `None` while there is no snapshot.
    pub fn restore_spec(&self, resume_immediately: bool) -> Option<VmSpec> {
        let restore_from = Some(self.snapshot.as_ref()?.reference(resume_immediately));
        Some(VmSpec { restore_from, ..VmSpec::default() })
    }

    /// The error of whoever wants a VM of it now, if nothing can be restored from it.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let reason = self.not_ready()?;
        // It takes seconds to build one, and to be told when would cost a look at the operation.
        let is_building = self.state == TemplateState::Building;
        let retry_after = is_building.then_some(Duration::from_secs(1));
        Some(Error::TemplateNotReady { template: self.id.to_string(), reason, retry_after })
    }

    /// Why nothing can be restored from it now, if so.
    pub fn not_ready(&self) -> Option<String> {
        match (&self.state, &self.snapshot) {
            (TemplateState::Ready, Some(_)) => None,
            (TemplateState::Ready, None) => Some("it has no snapshot".to_owned()),
            (TemplateState::Building, _) => Some("it is being built".to_owned()),
            (TemplateState::Failed(reason), _) => Some(reason.clone()),
        }
    }
}
