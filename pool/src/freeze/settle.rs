//! What a start makes of artifacts: those of the journal are taken up, what a crash left of a freeze
//! is finished or undone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::freeze;

use super::Artifact;
use crate::error::Result;
use crate::jobs::Class;
use crate::journal::Control;
use crate::manager::Manager;
use crate::pool::Provider;

impl Manager {
    /// Takes up the artifacts of the journal, finishes what a crash left of them, and undoes what
    /// was begun and never recorded.
    pub(crate) async fn recover_artifacts(self: &Arc<Self>) -> Result<()> {
        let (journal, providers) = (Arc::clone(&self.journal), self.providers().to_vec());
        let call = move || {
            let artifacts: Vec<Artifact> = match journal.control(Control::Artifact) {
                Ok(artifacts) => artifacts,
                Err(error) => return Ok(Err(error)),
            };
            providers.iter().for_each(|provider| settle(provider, &artifacts));
            Ok(Ok(artifacts))
        };
        let recovered = self.jobs.run(Class::Verb, "artifacts", Duration::MAX, call, drop);
        for artifact in recovered.await?? {
            self.artifacts.write().insert(artifact);
        }
        Ok(())
    }
}

/// Makes what a provider keeps for artifacts agree with what there is. Blocks.
fn settle(provider: &Provider, artifacts: &[Artifact]) {
    let ours = |artifact: &&Artifact| *artifact.provider == *provider.name;
    let known: BTreeSet<_> = artifacts
        .iter()
        .filter(ours)
        .map(|artifact| (artifact.snapshot.uid, artifact.id.as_str()))
        .collect();
    for artifact in artifacts.iter().filter(ours) {
        let marked = provider.runtime.preserve_vm(artifact.snapshot.vm_uid, artifact.id.as_str());
        if let Err(error) = marked {
            tracing::warn!(artifact = %artifact.id, %error, "its VM's directory is not marked");
        }
    }
    for snapshot in provider.runtime.all_snapshots() {
        let pinned = freeze::artifacts_of(&snapshot).map(Some);
        // Captured, and not yet pinned.
        let captured = freeze::is_reserved(&snapshot.snapshot_id).then_some(None);
        for artifact in pinned.chain(captured) {
            if known
                .iter()
                .any(|(uid, id)| *uid == snapshot.uid && artifact.is_none_or(|it| it == *id))
            {
                continue;
            }
            let artifact = artifact.unwrap_or_default();
            tracing::info!(artifact, snapshot = %snapshot.uid, "a freeze cut short is undone");
            let of = (snapshot.uid, &snapshot.snapshot_id);
            let undone = freeze::undo(&*provider.runtime, of, snapshot.vm_uid, artifact);
            if let Err(error) = undone {
                tracing::warn!(artifact, %error, "it could not be undone");
            }
        }
    }
}
