//! A provider that does what another one does, but for what a deviation replaces.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::error::Result;
use hearth_providers::model::SnapshotView;
use hearth_providers::provider::{
    ConsoleChunk, ExitObserver, GuestChannel, GuestStream, Probe, VmProvider, VmQuery, VmRuntime,
};
use hearth_providers::{
    Capabilities, SnapshotId, SnapshotRef, Uid, VmId, VmSpec, VmStatus, VmView,
};

/// A name, and what it replaces.
pub(crate) type Deviation = (&'static str, fn(&mut Deviant));

/// The provider underneath.
pub(crate) type Inner<'a> = &'a dyn VmRuntime;

type OnVm<R> = Box<dyn Fn(Inner<'_>, &VmId) -> R + Send + Sync>;
type OnVmWith<A, R> = Box<dyn Fn(Inner<'_>, &VmId, &A) -> R + Send + Sync>;
type OnVmAsking<A, B, R> = Box<dyn Fn(Inner<'_>, &VmId, A, B) -> R + Send + Sync>;
type OnSnapshot<R> = Box<dyn Fn(Inner<'_>, &SnapshotRef) -> R + Send + Sync>;
type OnExport = Box<dyn Fn(Inner<'_>, &SnapshotRef, &mut dyn Write) -> Result<()> + Send + Sync>;
type OnPin<R> = Box<dyn Fn(Inner<'_>, &SnapshotRef, &str) -> R + Send + Sync>;
type OnUnpin<R> = Box<dyn Fn(Inner<'_>, Uid, &str) -> R + Send + Sync>;
type OnAll<R> = Box<dyn Fn(Inner<'_>) -> R + Send + Sync>;
type OnUid<R> = Box<dyn Fn(Inner<'_>, Uid) -> R + Send + Sync>;

/// A provider whose calls can be replaced. All views that it shows pass through `view`.
pub(crate) struct Deviant {
    pub(crate) inner: Arc<dyn VmRuntime>,
    pub(crate) create: OnVmWith<VmSpec, Result<()>>,
    pub(crate) start: OnVm<Result<()>>,
    pub(crate) stop: OnVm<Result<()>>,
    pub(crate) capture: OnVmWith<SnapshotId, Result<()>>,
    pub(crate) destroy: OnVm<Result<()>>,
    pub(crate) rename: OnVmWith<VmId, Result<()>>,
    pub(crate) capabilities: OnAll<Capabilities>,
    pub(crate) pin: OnPin<Result<SnapshotView>>,
    pub(crate) unpin: OnUnpin<Result<()>>,
    pub(crate) delete: OnSnapshot<Result<()>>,
    pub(crate) export: OnExport,
    pub(crate) prefault: OnVm<Result<u64>>,
    pub(crate) channel: OnVm<Result<Box<dyn GuestChannel>>>,
    pub(crate) connect: OnVmWith<Option<u32>, Result<GuestStream>>,
    pub(crate) list: OnAll<Vec<VmView>>,
    pub(crate) get: OnVm<Option<VmView>>,
    pub(crate) by_uid: OnUid<Option<VmView>>,
    pub(crate) view: Box<dyn Fn(VmView) -> VmView + Send + Sync>,
    pub(crate) probe: OnVmAsking<Probe, Duration, Result<()>>,
    pub(crate) console: OnVmAsking<u64, usize, Result<ConsoleChunk>>,
    pub(crate) snapshot: OnSnapshot<Result<SnapshotView>>,
    pub(crate) fits: OnUid<Result<()>>,
    pub(crate) observe: Box<dyn Fn(Inner<'_>, ExitObserver) + Send + Sync>,
}

impl Deviant {
    /// Nothing is replaced yet.
    pub(crate) fn honest(inner: Arc<dyn VmRuntime>) -> Self {
        Self {
            inner,
            create: Box::new(|inner, vm_id, spec| inner.create_vm_with_spec(vm_id, spec)),
            start: Box::new(|inner, vm_id| inner.start_vm(vm_id)),
            stop: Box::new(|inner, vm_id| inner.stop_vm(vm_id)),
            capture: Box::new(|inner, vm_id, snapshot_id| inner.snapshot_vm(vm_id, snapshot_id)),
            destroy: Box::new(|inner, vm_id| inner.destroy_vm(vm_id)),
            rename: Box::new(|inner, old, new| inner.rename_vm(old, new)),
            capabilities: Box::new(|inner| inner.capabilities()),
            pin: Box::new(|inner, snapshot, holder| inner.pin_snapshot(snapshot, holder)),
            unpin: Box::new(|inner, uid, holder| inner.unpin_snapshot(uid, holder)),
            delete: Box::new(|inner, snapshot| inner.delete_snapshot(snapshot)),
            export: Box::new(|inner, snapshot, into| inner.export_snapshot(snapshot, into)),
            prefault: Box::new(|inner, vm_id| inner.prefault_vm(vm_id)),
            channel: Box::new(|inner, vm_id| inner.guest_channel(vm_id)),
            connect: Box::new(|inner, vm_id, port| inner.connect_vm(vm_id, *port)),
            list: Box::new(|inner| inner.list_vms()),
            get: Box::new(|inner, vm_id| inner.get_vm(vm_id)),
            by_uid: Box::new(|inner, uid| inner.get_vm_by_uid(uid)),
            view: Box::new(|view| view),
            probe: Box::new(|inner, vm_id, probe, timeout| inner.probe(vm_id, probe, timeout)),
            console: Box::new(|inner, vm_id, offset, max| inner.console(vm_id, offset, max)),
            snapshot: Box::new(|inner, snapshot| inner.snapshot(snapshot)),
            fits: Box::new(|inner, uid| inner.snapshot_fits(uid)),
            observe: Box::new(|inner, observer| inner.observe_exits(observer)),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmProvider for Deviant {
    fn create_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.create)(&*self.inner, vm_id, &VmSpec::default())
    }

    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        (self.create)(&*self.inner, vm_id, spec)
    }

    fn start_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.start)(&*self.inner, vm_id)
    }

    fn stop_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.stop)(&*self.inner, vm_id)
    }

    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()> {
        (self.capture)(&*self.inner, vm_id, snapshot_id)
    }

    fn destroy_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.destroy)(&*self.inner, vm_id)
    }

    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        (self.rename)(&*self.inner, old, new)
    }

    fn capabilities(&self) -> Capabilities {
        (self.capabilities)(&*self.inner)
    }

    fn pause_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.stop)(&*self.inner, vm_id)
    }

    fn resume_vm(&self, vm_id: &VmId) -> Result<()> {
        (self.start)(&*self.inner, vm_id)
    }

    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        (self.pin)(&*self.inner, snapshot, holder)
    }

    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        (self.unpin)(&*self.inner, snapshot_uid, holder)
    }

    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        (self.delete)(&*self.inner, snapshot)
    }

    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        (self.export)(&*self.inner, snapshot, into)
    }

    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.inner.preserve_vm(uid, artifact)
    }

    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        self.inner.unpreserve_vm(uid, artifact)
    }

    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        (self.prefault)(&*self.inner, vm_id)
    }

    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        (self.channel)(&*self.inner, vm_id)
    }

    fn connect_vm(&self, vm_id: &VmId, port: Option<u32>) -> Result<GuestStream> {
        (self.connect)(&*self.inner, vm_id, &port)
    }
}

#[deny(clippy::missing_trait_methods)]
impl VmQuery for Deviant {
    fn list_vms(&self) -> Vec<VmView> {
        (self.list)(&*self.inner).into_iter().map(&self.view).collect()
    }

    fn get_vm(&self, vm_id: &VmId) -> Option<VmView> {
        (self.get)(&*self.inner, vm_id).map(&self.view)
    }

    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>> {
        self.get_vm(vm_id).map(|vm| vm.snapshots.iter().map(ToString::to_string).collect())
    }

    fn status(&self, vm_id: &VmId) -> Option<VmStatus> {
        self.get_vm(vm_id).map(|vm| vm.status)
    }

    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        (self.by_uid)(&*self.inner, uid).map(&self.view)
    }

    fn name_of(&self, uid: Uid) -> Option<VmId> {
        let living = |vm: &VmView| vm.status != VmStatus::Destroyed;
        self.get_vm_by_uid(uid).filter(living).map(|vm| vm.vm_id)
    }

    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        (self.probe)(&*self.inner, vm_id, probe, timeout)
    }

    fn console(&self, vm_id: &VmId, offset: u64, max_bytes: usize) -> Result<ConsoleChunk> {
        (self.console)(&*self.inner, vm_id, offset, max_bytes)
    }

    fn snapshot(&self, snapshot: &SnapshotRef) -> Result<SnapshotView> {
        (self.snapshot)(&*self.inner, snapshot)
    }

    fn snapshot_fits(&self, snapshot_uid: Uid) -> Result<()> {
        (self.fits)(&*self.inner, snapshot_uid)
    }

    fn instance_bytes(&self, uid: Uid) -> Result<u64> {
        self.inner.instance_bytes(uid)
    }

    fn all_snapshots(&self) -> Vec<SnapshotView> {
        self.inner.all_snapshots()
    }

    fn observe_exits(&self, observer: ExitObserver) {
        (self.observe)(&*self.inner, observer);
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        self.inner.describe()
    }
}
