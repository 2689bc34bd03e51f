//! What VMs are restored from: a recipe, and the snapshot made by it.
//!
//! Each build or import makes a generation; its snapshot is pinned under the template's name and
//! generation, so that it outlives the VM it was taken of.

use std::time::Duration;

use hearth_providers::readiness::{self, Readiness};
use hearth_providers::{SnapshotId, Uid, VmId, VmRuntime, VmRuntimeError, VmSpec};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::TemplateId;

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
    /// How many times it was made.
    pub generation: i64,
    /// Where it stands.
    pub state: TemplateState,
    /// What restores read; unset while it is first built.
    pub snapshot: Option<TemplateSnapshot>,
    /// Was it imported, and so cannot be built again.
    pub imported: bool,
    /// Changes with every change.
    pub etag: String,
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
            etag: String::new(),
        }
    }

    /// The name under which its snapshot is pinned.
    pub fn pin(&self) -> String {
        format!("template:{}@{}", self.id, self.generation)
    }

    /// What a restore from it asks the provider for; `None` while there is no snapshot.
    pub fn restore_spec(&self, resume_immediately: bool) -> Option<VmSpec> {
        use hearth_providers::model::{SnapshotRef, SnapshotSource};
        let snapshot = self.snapshot.as_ref()?;
        let restore_from = Some(SnapshotRef {
            source: SnapshotSource::VmUid(snapshot.vm_uid),
            snapshot_id: snapshot.snapshot_id.clone(),
            resume_immediately,
            network_overrides: Vec::new(),
        });
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
