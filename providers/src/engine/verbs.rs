//! The seven verbs and the extensions that change something.

use std::io::Write;
use std::sync::Arc;

use super::instance::{Instance, NotNamed, Record};
use super::{Engine, destroyed, evidence, invalid, preserved};
use crate::backend::{Backend, Place, Source};
use crate::capabilities::Capabilities;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotSource, SnapshotView, VmSpec, VmStatus, VmView};
use crate::provider::{GuestChannel, GuestStream, VmProvider};
use crate::snapshots;
use crate::transition::Verb;

/// The format of the records on disk.
pub(super) const FORMAT: u32 = 1;

impl<B: Backend> VmProvider for Engine<B> {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        self.create_vm_with_spec(vm_id, &VmSpec::default())
    }

    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        spec.check()?;
        let place = self.place(self.env.uid_in_order());
        self.directory.claim(vm_id, place.uid)?;
        let made = self.make(vm_id, spec, &place);
        if made.is_err() {
            self.unmake(vm_id, &place);
        }
        made
    }

    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        self.in_turn(vm_id, Verb::Start, |instance, before, after| {
            self.backend.start(&self.place(instance.record.uid), instance.machine(), before)?;
            instance.set_status(after);
            Ok(())
        })
    }

    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        self.in_turn(vm_id, Verb::Stop, |instance, _, after| {
            self.backend.stop(&self.place(instance.record.uid), instance.machine())?;
            instance.set_status(after);
            Ok(())
        })
    }

    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        self.in_turn(vm_id, Verb::Snapshot, |instance, status, _| {
            if instance.snapshots.lock().iter().any(|(taken, _)| taken == snapshot_id) {
                return Err(VmRuntimeError::SnapshotAlreadyExists {
                    vm_id: vm_id.clone(),
                    snapshot_id: snapshot_id.clone(),
                });
            }
            self.capture(vm_id, snapshot_id, instance, status)
        })
    }

    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        let instance = self.find(vm_id, Verb::Destroy)?;
        instance.doom(vm_id).map_err(|not| self.not_named(vm_id, Verb::Destroy, &not))?;
        self.backend.kill(instance.machine());
        let _turn = instance.turns.take_last();
        // Remembered at the moment it loses its name: it was never not there.
        let mut view = self.view(&instance, instance.name());
        view.status = VmStatus::Destroyed;
        view.process = None;
        view.endpoints.clear();
        let last = view.clone();
        let name = instance.end_name(|name| {
            view.vm_id = name.clone();
            self.tombstones.add(view, self.env.boot_time());
        });
        let place = self.place(instance.record.uid);
        if let Err(error) = self.backend.dispose(&place, instance.machine()) {
            tracing::warn!(%name, uid = %place.uid, %error, "a destroyed VM is not wholly gone");
        }
        self.deaths.instances.remove(&place.uid);
        self.remember_end(&instance);
        self.instances.remove(&place.uid);
        self.keep_evidence(&VmView { vm_id: name.clone(), ..last }, &place);
        self.remove_files(&place);
        self.directory.release(&name, place.uid);
        Ok(())
    }

    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        let instance = self.find(old, Verb::Rename)?;
        let renamed = instance.rename(old, |name| {
            if old == new {
                return Ok(());
            }
            self.directory.rename(old, new, instance.record.uid, || {
                self.tombstones.name_used(new);
                *name = new.clone();
            })
        });
        renamed.unwrap_or_else(|not| Err(self.not_named(old, Verb::Rename, &not)))
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        self.snapshots.pin(snapshot, self.source_holder(snapshot), holder)
    }

    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        self.snapshots.unpin(snapshot_uid, holder)
    }

    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        let vm_uid = self.snapshots.delete(snapshot, self.source_holder(snapshot))?;
        if let Some(instance) = self.instances.get(&vm_uid) {
            instance.snapshots.lock().retain(|(taken, _)| *taken != snapshot.snapshot_id);
        }
        Ok(())
    }

    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        if !self.backend.capabilities().export {
            return Err(VmRuntimeError::Unsupported { what: "exporting snapshots".to_owned() });
        }
        self.snapshots.read(snapshot, self.source_holder(snapshot), |held| {
            let dir = held.dir.clone().unwrap_or_default();
            let source =
                Source { image: held.image.as_ref(), view: &held.view, dir, how: snapshot };
            self.backend.export(&source, &held.files, into)
        })
    }

    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.preserve(uid, artifact)
    }

    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.unpreserve(uid, artifact)
    }

    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        let instance = self.find(vm_id, Verb::Start)?;
        let status = instance.status();
        if !matches!(status, VmStatus::Running | VmStatus::Stopped) {
            return Err(invalid(vm_id, Verb::Start, status));
        }
        // What was booted has the memory that it has.
        let Some(from) = instance.record.restored_from else { return Ok(0) };
        let dir = self.directory.paths().map(|paths| paths.snapshot(from)).unwrap_or_default();
        let done = self.backend.prefault(instance.machine(), &dir);
        if done.is_err() && instance.turns.is_doomed() {
            return Err(destroyed(vm_id, Verb::Start));
        }
        done
    }

    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        let instance = self.running(vm_id)?;
        self.backend.guest_channel(instance.machine())
    }

    fn connect_vm(&self, vm_id: &VmId, port: Option<u32>) -> Result<GuestStream> {
        let instance = self.running(vm_id)?;
        self.backend.connect(instance.machine(), port)
    }
}

impl<B: Backend> Engine<B> {
    fn not_named(&self, vm_id: &VmId, verb: Verb, not: &NotNamed) -> VmRuntimeError {
        match not {
            NotNamed::Ended => destroyed(vm_id, verb),
            NotNamed::Otherwise => self.missing(vm_id, verb),
        }
    }

    fn make(&self, vm_id: &VmId, spec: &VmSpec, place: &Place) -> Result<()> {
        if self.directory.paths().is_some() {
            crate::directory::make_private_dir(&place.dir)
                .map_err(|error| files::io_error("make an instance's directory".into(), error))?;
        }
        let (machine, status, restored_from) = match &spec.restore_from {
            None => (self.backend.create(place, spec)?, VmStatus::Created, None),
            Some(from) => {
                let held = self.snapshots.hold(from, self.source_holder(from), place.uid)?;
                let dir = held.dir.unwrap_or_default();
                let source =
                    Source { image: held.image.as_ref(), view: &held.view, dir, how: from };
                let machine = self.backend.restore(place, spec, &source).inspect_err(|_| {
                    self.snapshots.drop_clone(held.view.uid, place.uid);
                })?;
                let running = from.resume_immediately;
                let status = if running { VmStatus::Running } else { VmStatus::Stopped };
                (machine, status, Some(held.view.uid))
            }
        };
        let record = Record {
            format: FORMAT,
            provider: self.name.clone(),
            uid: place.uid,
            vm_id: vm_id.clone(),
            spec: spec.clone(),
            create_time: self.env.now(),
            restored_from,
            boot_id: self.boot_id.clone(),
        };
        if self.directory.paths().is_some()
            && let Err(error) = tracing::debug_span!("record").in_scope(|| record.write(&place.dir))
        {
            self.backend.kill(&machine);
            let _ = self.backend.dispose(place, &machine);
            restored_from.inspect(|from| self.snapshots.drop_clone(*from, place.uid));
            return Err(error);
        }
        let instance = Arc::new(Instance::new(record, vm_id.clone(), machine, status));
        self.deaths.instances.insert(place.uid, Arc::downgrade(&instance));
        self.tombstones.name_used(vm_id);
        self.instances.insert(place.uid, Arc::clone(&instance));
        // It may have died before anybody was there to hear it.
        if let Some(failure) = self.backend.ended(instance.machine()) {
            (place.ended)(failure);
        }
        Ok(())
    }

    /// Nothing is left behind of a create that failed.
    fn unmake(&self, vm_id: &VmId, place: &Place) {
        self.remove_files(place);
        self.directory.release(vm_id, place.uid);
    }

    /// Of a VM that ended by itself. All that end with their host have the same to tell.
    fn keep_evidence(&self, view: &VmView, place: &Place) {
        let told = view.failure.as_ref().filter(|it| it.reason != super::open::HOST_RESTARTED);
        let Some((failure, paths)) = told.zip(self.directory.paths()) else { return };
        let (quarantine, now) = (paths.state.join(evidence::DIR), self.env.now());
        let (vm_id, uid, reason) = (&view.vm_id, view.uid, &failure.reason);
        match evidence::keep(&quarantine, &place.dir, &self.name, view, now) {
            Ok(kept) => {
                tracing::info!(%vm_id, %uid, reason, kept = ?kept, "what a failed VM left is kept for a while");
            }
            Err(error) => tracing::warn!(%vm_id, %uid, %error, "nothing is kept of a failed VM"),
        }
    }

    fn remove_files(&self, place: &Place) {
        if self.directory.paths().is_some() {
            preserved::remove(&place.dir);
        }
    }

    fn capture(
        &self,
        vm_id: &VmId,
        snapshot_id: &SnapshotId,
        instance: &Instance<B::Machine>,
        status: VmStatus,
    ) -> Result<()> {
        let uid = self.env.uid();
        let dir = self.directory.paths().map(|paths| paths.snapshot(uid));
        let capture = || {
            if let Some(dir) = &dir {
                crate::directory::make_private_dir(dir).map_err(|error| {
                    files::io_error("make a snapshot's directory".into(), error)
                })?;
            }
            let into = dir.clone().unwrap_or_default();
            let place = self.place(instance.record.uid);
            let captured = self.backend.snapshot(&place, instance.machine(), status, &into)?;
            let files = dir.as_deref().map_or(Ok(Vec::new()), files::files_in);
            let record = snapshots::Record {
                files: files
                    .map_err(|error| files::io_error("look at a snapshot".into(), error))?,
                format: FORMAT,
                provider: self.name.clone(),
                uid,
                snapshot_id: snapshot_id.clone(),
                vm_uid: instance.record.uid,
                vm_id: vm_id.clone(),
                has_memory: captured.has_memory,
                size_bytes: captured.size_bytes,
                made_with: captured.made_with,
                create_time: self.env.now(),
                pins: std::collections::BTreeSet::default(),
            };
            self.snapshots.add(record, captured.image, dir.clone())
        };
        capture().inspect_err(|_| dir.iter().for_each(|dir| files::remove_dir(dir)))?;
        instance.snapshots.lock().push((snapshot_id.clone(), uid));
        Ok(())
    }

    /// Lets go of what the instance held: its clone's snapshot, and its own unpinned ones.
    fn remember_end(&self, instance: &Instance<B::Machine>) {
        if let Some(from) = instance.record.restored_from {
            self.snapshots.drop_clone(from, instance.record.uid);
        }
        let own: Vec<_> = instance.snapshots.lock().iter().map(|(_, uid)| *uid).collect();
        self.snapshots.drop_owner(own);
    }

    /// The live VM that a reference by name means.
    pub(super) fn source_holder(&self, snapshot: &SnapshotRef) -> Option<Uid> {
        match &snapshot.source {
            SnapshotSource::VmUid(_) => None,
            SnapshotSource::Name(vm_id) => self.live(vm_id).map(|instance| instance.record.uid),
        }
    }
}
