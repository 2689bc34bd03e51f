//! The artifacts that there are: listed, described, deleted, and gone when their time is up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::freeze;
use hearth_providers::snapshots::EXPORT;
use hearth_providers::{Uid, VmRuntimeError};

use super::Artifact;
use crate::error::{Error, Kind, Result};
use crate::ids::{ArtifactId, Tenant};
use crate::jobs::Class;
use crate::journal::Control;
use crate::manager::{Manager, UNTIL_KNOWN};

/// How often it is looked whether an artifact's time is up.
const EXPIRY_PERIOD: Duration = Duration::from_secs(1);

/// Every artifact, found by its name, by the VM that it was made of and by its snapshot.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    by_id: BTreeMap<ArtifactId, Arc<Artifact>>,
    latest_by_vm: HashMap<Uid, ArtifactId>,
    by_snapshot: HashMap<Uid, ArtifactId>,
}

impl Artifacts {
    pub(super) fn has(&self, id: &ArtifactId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn insert(&mut self, artifact: Artifact) {
        let (id, snapshot) = (artifact.id.clone(), artifact.snapshot.clone());
        self.by_id.insert(id.clone(), Arc::new(artifact));
        self.by_snapshot.insert(snapshot.uid, id);
        self.note_latest(snapshot.vm_uid);
    }

    fn remove(&mut self, id: &ArtifactId) {
        if let Some(artifact) = self.by_id.remove(id) {
            self.by_snapshot.remove(&artifact.snapshot.uid);
            self.note_latest(artifact.snapshot.vm_uid);
        }
    }

    fn note_latest(&mut self, vm_uid: Uid) {
        let of_it = self.by_id.values().filter(|artifact| artifact.snapshot.vm_uid == vm_uid);
        match of_it.max_by_key(|artifact| artifact.create_time) {
            Some(latest) => drop(self.latest_by_vm.insert(vm_uid, latest.id.clone())),
            None => drop(self.latest_by_vm.remove(&vm_uid)),
        }
    }
}

impl Manager {
    /// Journals an artifact and lets everybody see it.
    pub(super) async fn keep_artifact(&self, artifact: Artifact) -> Result<()> {
        let (journal, written) = (Arc::clone(&self.journal), artifact.clone());
        let call =
            move || Ok(journal.write_control(Control::Artifact, written.id.as_str(), &written));
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await??;
        tracing::info!(artifact = %artifact.id, vm = %artifact.vm_id, "a VM is frozen");
        let vm_uid = artifact.snapshot.vm_uid;
        self.artifacts.write().insert(artifact);
        self.shared.changes.vm(vm_uid);
        Ok(())
    }

    pub(super) fn check_artifact_bytes(&self, more: u64) -> Result<()> {
        let used: u64 = self.artifacts.read().by_id.values().map(|it| it.size_bytes).sum();
        let most = self.limits.max_artifact_bytes;
        match used.saturating_add(more) > most || used >= most {
            false => Ok(()),
            true => Err(Error::Provider(VmRuntimeError::Exhausted {
                what: format!("the quota of {most} bytes for artifacts, of which {used} are used,"),
                retry_after: None,
            })),
        }
    }

    /// Every artifact that `tenant` may see, sorted by name.
    pub fn artifacts(&self, tenant: Option<&Tenant>) -> Vec<Arc<Artifact>> {
        let artifacts = self.artifacts.read();
        artifacts.by_id.values().filter(|artifact| artifact.is_seen_by(tenant)).cloned().collect()
    }

    /// One artifact.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn artifact(&self, id: &ArtifactId, tenant: Option<&Tenant>) -> Result<Arc<Artifact>> {
        let found = self.artifacts.read().by_id.get(id).cloned();
        let found = found.filter(|artifact| artifact.is_seen_by(tenant));
        found.ok_or_else(|| Artifact::missing(id))
    }

    /// The last artifact that was made of this instance.
    pub fn artifact_of(&self, vm_uid: Uid) -> Option<ArtifactId> {
        self.artifacts.read().latest_by_vm.get(&vm_uid).cloned()
    }

    /// The artifact that holds this snapshot, which VMs that run from it were restored from.
    pub fn artifact_by_snapshot(&self, snapshot: Uid) -> Option<ArtifactId> {
        self.artifacts.read().by_snapshot.get(&snapshot).cloned()
    }

    /// Deletes an artifact, and what the provider keeps for it.
    ///
    /// # Errors
    /// `NotFound`, also when it has another uid; `InUse` while a VM runs from it; `Storage`, and
    /// nothing has changed.
    pub async fn delete_artifact(
        &self,
        id: &ArtifactId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
    ) -> Result<()> {
        let _turn = self.control.lock().await;
        let artifact = self.artifact(id, tenant)?;
        if uid.is_some_and(|uid| uid != artifact.uid) {
            return Err(Artifact::missing(id));
        }
        if let Some(user) = self.user_of(&artifact) {
            let (kind, name) = (Kind::Artifact, id.to_string());
            return Err(Error::InUse { kind, name, by: user });
        }
        let (journal, forgotten) = (Arc::clone(&self.journal), id.clone());
        let call = move || Ok(journal.forget_control(Control::Artifact, forgotten.as_str()));
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await??;
        self.artifacts.write().remove(id);
        self.shared.changes.vm(artifact.snapshot.vm_uid);
        // Should this fail, the next start finds what no record has.
        let provider = self.provider(&artifact.provider).ok().cloned();
        let (ended, limit) = (Arc::clone(&artifact), self.limits.verb_timeout);
        let call = move || match provider {
            None => Ok(()),
            Some(provider) => freeze::undo(
                &*provider.runtime,
                (ended.snapshot.uid, &ended.snapshot.snapshot_id),
                ended.snapshot.vm_uid,
                ended.id.as_str(),
            ),
        };
        if let Err(error) = self.jobs.run(Class::Verb, "unpin", limit, call, drop).await {
            tracing::warn!(artifact = %id, %error, "what it keeps could not be let go");
        }
        Ok(())
    }

    /// Who uses the artifact: a VM that runs from it, or a reader.
    fn user_of(&self, artifact: &Artifact) -> Option<String> {
        let provider = self.provider(&artifact.provider).ok()?;
        let snapshot = provider.runtime.snapshot(&artifact.reference()).ok()?;
        let is_use = |pin: &&String| pin.starts_with("vm:") || *pin == EXPORT;
        snapshot.pinned_by.iter().find(is_use).cloned()
    }

    /// Deletes artifacts whose time is up, but for those that a VM runs from.
    pub(crate) async fn expire_artifacts(self: Arc<Self>) {
        while !self.tasks.stopping().is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(EXPIRY_PERIOD) => {}
                () = self.tasks.stopping().cancelled() => return,
            }
            let now = self.env.now();
            for artifact in self.artifacts(None) {
                if artifact.expire_time > now || self.user_of(&artifact).is_some() {
                    continue;
                }
                match self.delete_artifact(&artifact.id, Some(artifact.uid), None).await {
                    Ok(()) => tracing::info!(artifact = %artifact.id, "an artifact has expired"),
                    Err(error) => {
                        tracing::warn!(artifact = %artifact.id, %error, "it could not be deleted");
                    }
                }
            }
        }
    }
}
