//! The questions, answered from memory.

use std::sync::Arc;
use std::time::Duration;

use super::instance::Instance;
use super::{Engine, invalid};
use crate::backend::{Backend, Source};
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::{Uid, VmId};
use crate::model::{SnapshotRef, SnapshotView, Tags, VmStatus, VmView};
use crate::provider::{ConsoleChunk, ExitObserver, Probe, VmQuery};
use crate::transition::Verb;

impl<B: Backend> VmQuery for Engine<B> {
    fn list_vms(&self) -> Vec<VmView> {
        let mut all: Vec<_> = self
            .instances
            .iter()
            .filter(|entry| !entry.turns.is_doomed())
            .map(|entry| self.view(entry.value(), entry.name()))
            .collect();
        all.sort_by(|a, b| a.vm_id.cmp(&b.vm_id));
        all
    }

    fn get_vm(&self, vm_id: &VmId) -> Option<VmView> {
        match self.live(vm_id) {
            Some(instance) => Some(self.view(&instance, vm_id.clone())),
            None => self.tombstones.by_name(vm_id, self.env.boot_time()),
        }
    }

    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>> {
        let snapshots = self.get_vm(vm_id)?.snapshots;
        Some(snapshots.iter().map(ToString::to_string).collect())
    }

    fn status(&self, vm_id: &VmId) -> Option<VmStatus> {
        match self.live(vm_id) {
            Some(instance) => Some(instance.status()),
            None => self.tombstones.by_name(vm_id, self.env.boot_time()).map(|view| view.status),
        }
    }

    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        let live = self.instances.get(&uid).map(|entry| Arc::clone(entry.value()));
        match live {
            Some(instance) => Some(self.view(&instance, instance.name())),
            None => self.tombstones.by_uid(uid, self.env.boot_time()),
        }
    }

    fn name_of(&self, uid: Uid) -> Option<VmId> {
        let instance = Arc::clone(self.instances.get(&uid)?.value());
        (instance.status() != VmStatus::Destroyed).then(|| instance.name())
    }

    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        let instance = self.running(vm_id)?;
        self.backend.probe(instance.machine(), probe, timeout)
    }

    fn console(&self, vm_id: &VmId, offset: u64, max_bytes: usize) -> Result<ConsoleChunk> {
        let instance = self.find(vm_id, Verb::Start)?;
        self.backend.console(instance.machine(), offset, max_bytes)
    }

    fn snapshot(&self, snapshot: &SnapshotRef) -> Result<SnapshotView> {
        self.snapshots.view(snapshot, self.source_holder(snapshot))
    }

    fn snapshot_fits(&self, snapshot_uid: Uid) -> Result<()> {
        let how = self.snapshots.reference(snapshot_uid)?;
        self.snapshots.read(&how, None, |held| {
            let dir = held.dir.clone().unwrap_or_default();
            let source = Source { image: held.image.as_ref(), view: &held.view, dir, how: &how };
            self.backend.fits(&source)
        })
    }

    fn instance_bytes(&self, uid: Uid) -> Result<u64> {
        let instance = self.instances.get(&uid).map(|entry| Arc::clone(entry.value()));
        let Some(instance) = instance else { return Ok(0) };
        let dir = self.directory.paths().map(|paths| paths.instance(uid));
        let here = dir.map_or(0, |dir| files::bytes_on_disk(&dir));
        Ok(here + self.backend.bytes_elsewhere(instance.machine())?)
    }

    fn all_snapshots(&self) -> Vec<SnapshotView> {
        self.snapshots.all()
    }

    fn observe_exits(&self, observer: ExitObserver) {
        *self.deaths.observer.write() = Some(observer);
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        self.backend.describe()
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn running(&self, vm_id: &VmId) -> Result<Arc<Instance<B::Machine>>> {
        let instance = self.live(vm_id);
        let instance = instance.ok_or_else(|| VmRuntimeError::NotFound { vm_id: vm_id.clone() })?;
        match instance.status() {
            VmStatus::Running => Ok(instance),
            status => Err(invalid(vm_id, Verb::Start, status)),
        }
    }

    pub(super) fn view(&self, instance: &Instance<B::Machine>, vm_id: VmId) -> VmView {
        let record = &instance.record;
        VmView {
            vm_id,
            uid: record.uid,
            status: instance.status(),
            create_time: record.create_time,
            tags: Tags::clone(&record.spec.tags),
            snapshots: instance.snapshots.lock().iter().map(|(id, _)| id.clone()).collect(),
            restored_from: record.restored_from,
            endpoints: self.backend.endpoints(instance.machine()),
            process: self.backend.process(instance.machine()),
            failure: instance.failure.get().cloned(),
        }
    }
}
