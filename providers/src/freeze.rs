//! Freezing: what a provider does first, and the steps that are the same for all.
//!
//! A frozen VM is an *artifact*: a snapshot of the VM, pinned for as long as the artifact is kept,
//! and the mark in the VM's state directory that says so. The mark outlives the VM. Each step is
//! durable before the next, and [`undo`] takes them back in the opposite order, however many were
//! done: whoever keeps the list of artifacts writes it last, and that is what makes an artifact.

use crate::capabilities::RunningSnapshot;
use crate::error::{Result, VmRuntimeError};
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotSource, SnapshotView, VmStatus};
use crate::provider::VmRuntime;

/// The kinds of providers that freeze, and the names that their artifacts were once stored under.
const KINDS: &[(&str, &[&str])] = &[
    ("memory", &[]),
    ("qemu", &[]),
    ("firecracker", &[]),
    // Artifacts of the first age name no kind.
    ("docker", &[""]),
    ("apple-container", &["macos-container"]),
    ("smolvm", &["smolmachines"]),
];

/// What pins the snapshots of artifacts.
const PIN: &str = "artifact:";

/// What the names of their snapshots begin with.
const RESERVED: &str = "frozen-";

/// How VMs of one kind of provider are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freezer {
    kind: &'static str,
}

/// A kind that no freezer knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing is known of freezing by {kind:?}; known are {}", known.join(", "))]
pub struct UnknownKind {
    /// The kind asked for.
    pub kind: String,
    /// Those that there are.
    pub known: Vec<&'static str>,
}

/// What a VM was frozen into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// How the backend calls it, or we do where the backend has no name for it.
    pub reference: String,
    /// The snapshot that holds it.
    pub snapshot: SnapshotView,
}

impl Freezer {
    /// The freezer of a kind of provider, also by a name that was stored once.
    ///
    /// # Errors
    /// [`UnknownKind`], listing those that there are.
    pub fn of(kind: &str) -> std::result::Result<Self, UnknownKind> {
        let found = KINDS.iter().find(|(name, former)| *name == kind || former.contains(&kind));
        found.map(|(kind, _)| Self { kind }).ok_or_else(|| UnknownKind {
            kind: kind.to_owned(),
            known: KINDS.iter().map(|(name, _)| *name).collect(),
        })
    }

    /// The kind of provider.
    pub const fn kind(self) -> &'static str {
        self.kind
    }

    /// Freezes the VM `vm_id` for the artifact `artifact`: captures it as `snapshot_id`, pins
    /// that, and marks the VM as preserved. The VM goes on, unless it had to be stopped and
    /// `allow_stop` says that it may be. What fails is undone. Blocks.
    ///
    /// # Errors
    /// `StopRequired`; those of the contract's `snapshot_vm` and `pin_snapshot`.
    pub fn freeze(
        self,
        runtime: &dyn VmRuntime,
        vm_id: &VmId,
        snapshot_id: &SnapshotId,
        artifact: &str,
        allow_stop: bool,
    ) -> Result<Frozen> {
        let stands = runtime.get_vm(vm_id);
        let stands = stands.ok_or_else(|| VmRuntimeError::NotFound { vm_id: vm_id.clone() })?;
        let reference = reference(stands.uid, snapshot_id);
        let frozen = stopped_where_it_must(runtime, vm_id, allow_stop, || {
            runtime.snapshot_vm(vm_id, snapshot_id)?;
            let snapshot = runtime.pin_snapshot(&reference, &pin(artifact))?;
            runtime.preserve_vm(stands.uid, artifact)?;
            Ok(Frozen { reference: self.name_of(&snapshot), snapshot })
        });
        // A step whose answer was lost may have been done all the same.
        frozen.inspect_err(|_| {
            let Ok(left) = runtime.snapshot(&reference) else { return };
            let undone = undo(runtime, (left.uid, snapshot_id), stands.uid, artifact);
            if let Err(error) = undone {
                tracing::warn!(%vm_id, artifact, %error, "a freeze that failed is not undone");
            }
        })
    }

    /// A command that resumes `artifact`.
    pub fn resume_hint(self, artifact: &str) -> String {
        format!("hearth resume {artifact}")
    }

    /// A command that takes `frozen`, which is `artifact`, elsewhere: the backend's own where it has
    /// one.
    pub fn export_hint(self, frozen: &Frozen, artifact: &str) -> String {
        match self.kind {
            "docker" => {
                format!("docker image save --output {artifact}.tar {}", frozen.reference)
            }
            _ => format!("hearth artifacts export {artifact}"),
        }
    }

    fn name_of(self, snapshot: &SnapshotView) -> String {
        match self.kind {
            // As the docker provider calls it.
            "docker" => format!("hearth/snapshot:{}", snapshot.uid),
            _ => format!("snapshots/{}", snapshot.uid),
        }
    }
}

/// Does `capture`, with the VM stopped before where its provider cannot capture it while it runs and
/// `allow_stop` says that it may be. It stays stopped, unless `capture` fails. Blocks.
///
/// # Errors
/// `NotFound`, `StopRequired`; those of `stop_vm` and of `capture`.
pub fn stopped_where_it_must<T>(
    runtime: &dyn VmRuntime,
    vm_id: &VmId,
    allow_stop: bool,
    capture: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let must_stop = runtime.capabilities().snapshot_running == RunningSnapshot::StopRequired
        && runtime.status(vm_id) == Some(VmStatus::Running);
    if !must_stop {
        return capture();
    }
    if !allow_stop {
        return Err(VmRuntimeError::StopRequired { vm_id: vm_id.clone() });
    }
    runtime.stop_vm(vm_id)?;
    capture().inspect_err(|_| {
        if let Err(error) = runtime.start_vm(vm_id) {
            tracing::warn!(%vm_id, %error, "a VM that was stopped to be captured stays so");
        }
    })
}

/// Takes back what [`Freezer::freeze`] did for `artifact`, or ends what it made; what was not done
/// or is gone is no error. Blocks.
///
/// # Errors
/// Those of the provider, `SnapshotInUse` among them; to be tried again.
pub fn undo(
    runtime: &dyn VmRuntime,
    (snapshot, snapshot_id): (Uid, &SnapshotId),
    vm_uid: Uid,
    artifact: &str,
) -> Result<()> {
    runtime.unpreserve_vm(vm_uid, artifact)?;
    runtime.unpin_snapshot(snapshot, &pin(artifact))?;
    // While its VM lives the snapshot does, too.
    match runtime.delete_snapshot(&reference(vm_uid, snapshot_id)) {
        Err(VmRuntimeError::SnapshotNotFound { .. }) => Ok(()),
        deleted => deleted,
    }
}

fn reference(vm_uid: Uid, snapshot_id: &SnapshotId) -> SnapshotRef {
    SnapshotRef {
        source: SnapshotSource::VmUid(vm_uid),
        snapshot_id: snapshot_id.clone(),
        resume_immediately: false,
        network_overrides: Vec::new(),
    }
}

/// What the snapshot of the artifact `uid` is called.
///
/// # Errors
/// Never: a uid is a part of an id.
pub fn snapshot_id(uid: Uid) -> Result<SnapshotId> {
    Ok(SnapshotId::parse(&format!("{RESERVED}{uid}"))?)
}

/// The name is one of those that artifacts' snapshots have, and nobody else's may.
pub fn is_reserved(snapshot_id: &SnapshotId) -> bool {
    snapshot_id.as_str().starts_with(RESERVED)
}

/// The name under which the snapshot of `artifact` is pinned.
pub fn pin(artifact: &str) -> String {
    format!("{PIN}{artifact}")
}

/// The artifacts that pin `snapshot`.
pub fn artifacts_of(snapshot: &SnapshotView) -> impl Iterator<Item = &str> {
    snapshot.pinned_by.iter().filter_map(|pin| pin.strip_prefix(PIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_former_names() {
        let kind = |name| Freezer::of(name).map(Freezer::kind);
        assert_eq!(kind(""), Ok("docker"));
        assert_eq!(kind("macos-container"), Ok("apple-container"));
        assert_eq!(kind("smolmachines"), Ok("smolvm"));
        assert_eq!(kind("qemu"), Ok("qemu"));
        let error = kind("floppy").unwrap_err().to_string();
        assert!(error.contains("docker, apple-container, smolvm"), "{error}");
    }
}
