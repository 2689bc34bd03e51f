//! Locks that are held over a backend's work.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_providers::{Uid, VmId};
use parking_lot::Mutex;

use crate::deviant::{Deviant, Deviation, Inner};

pub(crate) const ALL: &[Deviation] = &[
    ("one lock for everything", |it| {
        let lock = Arc::new(Mutex::new(()));
        lock_verbs(it, &lock);
        let (for_get, for_list, for_uid) = (Arc::clone(&lock), Arc::clone(&lock), lock);
        it.get = Box::new(move |inner, vm_id| {
            let _held = for_get.lock();
            inner.get_vm(vm_id)
        });
        it.list = Box::new(move |inner| {
            let _held = for_list.lock();
            inner.list_vms()
        });
        it.by_uid = Box::new(move |inner, uid| {
            let _held = for_uid.lock();
            inner.get_vm_by_uid(uid)
        });
    }),
    ("one lock for all verbs", |it| lock_verbs(it, &Arc::new(Mutex::new(())))),
    ("a snapshot locks the list", |it| {
        let lock = Arc::new(Mutex::new(()));
        let for_capture = Arc::clone(&lock);
        it.capture = Box::new(move |inner, vm_id, id| {
            let _held = for_capture.lock();
            inner.snapshot_vm(vm_id, id)
        });
        it.list = Box::new(move |inner| {
            let _held = lock.lock();
            inner.list_vms()
        });
    }),
    ("a rename waits for the VM's turn", |it| {
        let turns = Turns::default();
        let for_capture = turns.clone();
        it.capture = Box::new(move |inner, vm_id, id| {
            let turn = for_capture.of(inner, vm_id);
            let _held = turn.lock();
            inner.snapshot_vm(vm_id, id)
        });
        it.rename = Box::new(move |inner, old, new| {
            let turn = turns.of(inner, old);
            let _held = turn.lock();
            inner.rename_vm(old, new)
        });
    }),
    ("a destroy waits for the VM's turn", |it| {
        let turns = Turns::default();
        let for_capture = turns.clone();
        it.capture = Box::new(move |inner, vm_id, id| {
            let turn = for_capture.of(inner, vm_id);
            let _held = turn.lock();
            inner.snapshot_vm(vm_id, id)
        });
        it.destroy = Box::new(move |inner, vm_id| {
            let turn = turns.of(inner, vm_id);
            let _held = turn.lock();
            inner.destroy_vm(vm_id)
        });
    }),
    ("a look waits for the VM's turn", |it| {
        let turns = Turns::default();
        let for_capture = turns.clone();
        it.capture = Box::new(move |inner, vm_id, id| {
            let turn = for_capture.of(inner, vm_id);
            let _held = turn.lock();
            inner.snapshot_vm(vm_id, id)
        });
        it.get = Box::new(move |inner, vm_id| {
            let turn = turns.of(inner, vm_id);
            let _held = turn.lock();
            inner.get_vm(vm_id)
        });
    }),
];

/// One lock for each VM.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<HashMap<Option<Uid>, Turn>>>);

type Turn = Arc<Mutex<()>>;

impl Turns {
    fn of(&self, inner: Inner<'_>, vm_id: &VmId) -> Turn {
        let uid = inner.get_vm(vm_id).map(|vm| vm.uid);
        Arc::clone(self.0.lock().entry(uid).or_default())
    }
}

/// Every verb holds one lock while it works.
fn lock_verbs(it: &mut Deviant, lock: &Arc<Mutex<()>>) {
    let locks: [_; 4] = std::array::from_fn(|_| Arc::clone(lock));
    let [for_create, for_start, for_stop, for_capture] = locks;
    it.create = Box::new(move |inner, vm_id, spec| {
        let _held = for_create.lock();
        inner.create_vm_with_spec(vm_id, spec)
    });
    it.start = Box::new(move |inner, vm_id| {
        let _held = for_start.lock();
        inner.start_vm(vm_id)
    });
    it.stop = Box::new(move |inner, vm_id| {
        let _held = for_stop.lock();
        inner.stop_vm(vm_id)
    });
    it.capture = Box::new(move |inner, vm_id, id| {
        let _held = for_capture.lock();
        inner.snapshot_vm(vm_id, id)
    });
}
