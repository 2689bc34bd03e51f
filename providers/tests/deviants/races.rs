//! Deviations that only show when two come at the same time: who looks first and acts then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmRuntimeError::{
    AlreadyExists, InvalidTransition, NotFound, SnapshotAlreadyExists,
};
use hearth_providers::{VmId, VmStatus, VmView};
use parking_lot::Mutex;

use crate::deviant::{Deviation, Inner};

/// How long a deviant dwells between looking and acting, so that others come in between.
const MOMENT: Duration = Duration::from_millis(1);

pub(crate) const ALL: &[Deviation] = &[
    ("two creates of one name win", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let was_free = !is_live(inner, vm_id);
            std::thread::sleep(MOMENT);
            match inner.create_vm_with_spec(vm_id, spec) {
                Err(AlreadyExists { .. }) if was_free => Ok(()),
                done => done,
            }
        });
    }),
    ("two renames onto one name win", |it| {
        it.rename = Box::new(|inner, old, new| {
            let was_free = !is_live(inner, new);
            std::thread::sleep(MOMENT);
            match inner.rename_vm(old, new) {
                Err(AlreadyExists { .. }) if was_free => Ok(()),
                done => done,
            }
        });
    }),
    ("two renames of one VM win", |it| {
        it.rename = Box::new(|inner, old, new| {
            let was_there = is_live(inner, old);
            std::thread::sleep(MOMENT);
            match inner.rename_vm(old, new) {
                Err(NotFound { .. }) if was_there => Ok(()),
                done => done,
            }
        });
    }),
    ("two destroys win", |it| {
        it.destroy = Box::new(|inner, vm_id| {
            let was_live = is_live(inner, vm_id);
            std::thread::sleep(MOMENT);
            match inner.destroy_vm(vm_id) {
                Err(InvalidTransition { .. }) if was_live => Ok(()),
                done => done,
            }
        });
    }),
    ("two starts win", |it| {
        it.start = Box::new(|inner, vm_id| {
            let was_stopped = inner.status(vm_id) == Some(VmStatus::Stopped);
            std::thread::sleep(MOMENT);
            match inner.start_vm(vm_id) {
                Err(InvalidTransition { status: VmStatus::Running, .. }) if was_stopped => Ok(()),
                done => done,
            }
        });
    }),
    ("two snapshots of one name win", |it| {
        it.capture = Box::new(|inner, vm_id, id| {
            let was_free = inner.get_vm(vm_id).is_some_and(|vm| !vm.snapshots.contains(id));
            std::thread::sleep(MOMENT);
            match inner.snapshot_vm(vm_id, id) {
                Err(SnapshotAlreadyExists { .. }) if was_free => Ok(()),
                done => done,
            }
        });
    }),
    ("a destroy follows a VM that was renamed", |it| {
        it.destroy = Box::new(|inner, vm_id| {
            let found = inner.get_vm(vm_id).filter(|vm| vm.status != VmStatus::Destroyed);
            std::thread::sleep(MOMENT);
            let now = found.and_then(|vm| inner.get_vm_by_uid(vm.uid));
            inner.destroy_vm(now.as_ref().map_or(vm_id, |vm| &vm.vm_id))
        });
    }),
    ("neither name is there during a rename", |it| {
        let hidden: Arc<Mutex<HashSet<VmId>>> = Arc::default();
        let names = Arc::clone(&hidden);
        it.rename = Box::new(move |inner, old, new| {
            let both = [old.clone(), new.clone()];
            hidden.lock().extend(both.clone());
            std::thread::sleep(MOMENT);
            let renamed = inner.rename_vm(old, new);
            hidden.lock().retain(|name| !both.contains(name));
            renamed
        });
        it.get = Box::new(move |inner, vm_id| {
            inner.get_vm(vm_id).filter(|_| !names.lock().contains(vm_id))
        });
    }),
    ("both names are there during a rename", |it| {
        let coming: Arc<Mutex<Option<(VmId, VmView)>>> = Arc::default();
        let shown = Arc::clone(&coming);
        it.rename = Box::new(move |inner, old, new| {
            let view = inner.get_vm(old).filter(|_| !is_live(inner, new));
            *coming.lock() = view.map(|view| (new.clone(), view));
            std::thread::sleep(MOMENT);
            let renamed = inner.rename_vm(old, new);
            *coming.lock() = None;
            renamed
        });
        it.get = Box::new(move |inner, vm_id| {
            let shown = || shown.lock().clone().filter(|(name, _)| name == vm_id);
            inner.get_vm(vm_id).or_else(|| shown().map(|(_, view)| view))
        });
    }),
    ("a VM is not listed during its rename", |it| {
        let hidden: Arc<Mutex<HashSet<VmId>>> = Arc::default();
        let names = Arc::clone(&hidden);
        it.rename = Box::new(move |inner, old, new| {
            hidden.lock().insert(old.clone());
            std::thread::sleep(MOMENT);
            let renamed = inner.rename_vm(old, new);
            hidden.lock().remove(old);
            renamed
        });
        it.list = Box::new(move |inner| {
            let hidden = names.lock();
            inner.list_vms().into_iter().filter(|vm| !hidden.contains(&vm.vm_id)).collect()
        });
    }),
    ("a VM is not there while it is destroyed", |it| {
        let hidden: Arc<Mutex<HashSet<VmId>>> = Arc::default();
        let names = Arc::clone(&hidden);
        it.destroy = Box::new(move |inner, vm_id| {
            hidden.lock().insert(vm_id.clone());
            std::thread::sleep(MOMENT);
            let destroyed = inner.destroy_vm(vm_id);
            hidden.lock().remove(vm_id);
            destroyed
        });
        it.get = Box::new(move |inner, vm_id| {
            inner.get_vm(vm_id).filter(|_| !names.lock().contains(vm_id))
        });
    }),
    ("an answered pin does not hold against a destroy", |it| {
        it.pin = Box::new(|inner, snapshot, holder| {
            let view = inner.snapshot(snapshot)?;
            std::thread::sleep(MOMENT);
            match inner.pin_snapshot(snapshot, holder) {
                Err(_) => Ok(view),
                done => done,
            }
        });
    }),
];

fn is_live(inner: Inner<'_>, vm_id: &VmId) -> bool {
    inner.status(vm_id).is_some_and(|status| status != VmStatus::Destroyed)
}
