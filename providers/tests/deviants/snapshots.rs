//! Snapshots that go too early or stay too long, or are somebody else's.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hearth_providers::VmRuntimeError::{SnapshotInUse, SnapshotNotFound};
use hearth_providers::error::Result;
use hearth_providers::model::{SnapshotSource, SnapshotView};
use hearth_providers::{SnapshotRef, Uid, VmRuntimeError, VmSpec, VmStatus};
use parking_lot::Mutex;

use crate::deviant::{Deviation, Inner};

pub(crate) const ALL: &[Deviation] = &[
    ("the end of a VM takes its pinned snapshots", |it| {
        it.destroy = Box::new(|inner, vm_id| {
            let uid = inner.get_vm(vm_id).map(|vm| vm.uid);
            inner.destroy_vm(vm_id)?;
            for snapshot in inner.all_snapshots() {
                if Some(snapshot.vm_uid) == uid {
                    unpin_all(inner, &snapshot)?;
                }
            }
            Ok(())
        });
    }),
    ("a pinned snapshot can be deleted", |it| {
        it.delete = Box::new(|inner, snapshot| {
            unpin_all(inner, &inner.snapshot(snapshot)?)?;
            inner.delete_snapshot(snapshot)
        });
    }),
    ("a snapshot of a live clone can be deleted", |it| {
        let deleted: Arc<Mutex<HashSet<Uid>>> = Arc::default();
        let hidden = Arc::clone(&deleted);
        it.delete = Box::new(move |inner, snapshot| match inner.delete_snapshot(snapshot) {
            Err(SnapshotInUse { pinned_by, .. }) if pinned_by.iter().all(|pin| is_clone(pin)) => {
                deleted.lock().insert(inner.snapshot(snapshot)?.uid);
                Ok(())
            }
            done => done,
        });
        it.snapshot = Box::new(move |inner, snapshot| {
            let found = inner.snapshot(snapshot)?;
            if hidden.lock().contains(&found.uid) {
                return Err(missing(snapshot));
            }
            Ok(found)
        });
    }),
    ("an unpin does nothing", |it| {
        it.unpin = Box::new(|_, _, _| Ok(()));
    }),
    ("an unpin takes every pin", |it| {
        it.unpin = Box::new(|inner, uid, _| {
            let found = inner.all_snapshots().into_iter().find(|snapshot| snapshot.uid == uid);
            found.iter().try_for_each(|snapshot| unpin_all(inner, snapshot))
        });
    }),
    ("an export is never the same", |it| {
        let exports = AtomicU64::new(0);
        it.export = Box::new(move |inner, snapshot, into| {
            inner.export_snapshot(snapshot, into)?;
            let number = exports.fetch_add(1, Ordering::Relaxed);
            let written = into.write_all(&number.to_be_bytes());
            written.map_err(|error| VmRuntimeError::backend("export", error))
        });
    }),
    ("an export is empty", |it| {
        it.export = Box::new(|inner, snapshot, _| inner.snapshot(snapshot).map(drop));
    }),
    ("an export goes on without its reader", |it| {
        it.export = Box::new(|inner, snapshot, into| {
            let mut all = Vec::new();
            inner.export_snapshot(snapshot, &mut all)?;
            let _ = into.write_all(&all);
            Ok(())
        });
    }),
    ("an export pins for ever", |it| {
        it.export = Box::new(|inner, snapshot, into| {
            inner.pin_snapshot(snapshot, "export")?;
            inner.export_snapshot(snapshot, into)
        });
    }),
    ("no snapshot fits", |it| {
        it.fits = Box::new(|inner, uid| {
            inner.snapshot_fits(uid)?;
            let all = inner.all_snapshots().into_iter();
            let snapshot_id = all.filter(|it| it.uid == uid).map(|it| it.snapshot_id).next();
            let reason = "a deviation".to_owned();
            snapshot_id.map_or(Ok(()), |snapshot_id| {
                Err(VmRuntimeError::SnapshotIncompatible { snapshot_id, reason })
            })
        });
    }),
    ("what is gone fits", |it| {
        it.fits = Box::new(|inner, uid| match inner.snapshot_fits(uid) {
            Err(SnapshotNotFound { .. }) => Ok(()),
            done => done,
        });
    }),
    ("pins of one holder are counted", |it| {
        let again: Arc<Mutex<Vec<Uid>>> = Arc::default();
        let left = Arc::clone(&again);
        it.pin = Box::new(move |inner, snapshot, holder| {
            if inner.snapshot(snapshot)?.pinned_by.iter().any(|pin| pin == holder) {
                again.lock().push(inner.snapshot(snapshot)?.uid);
            }
            inner.pin_snapshot(snapshot, holder)
        });
        it.unpin = Box::new(move |inner, uid, holder| {
            let mut left = left.lock();
            match left.iter().position(|pinned| *pinned == uid) {
                Some(found) => drop(left.remove(found)),
                None => inner.unpin_snapshot(uid, holder)?,
            }
            Ok(())
        });
    }),
    ("to unpin what is not pinned is refused", |it| {
        it.unpin = Box::new(|inner, uid, holder| {
            let all = inner.all_snapshots();
            let snapshot = all.iter().find(|snapshot| snapshot.uid == uid);
            match snapshot.filter(|found| found.pinned_by.iter().any(|pin| pin == holder)) {
                Some(_) => inner.unpin_snapshot(uid, holder),
                None => Err(hearth_providers::VmRuntimeError::Backend {
                    what: format!("{holder} does not pin {uid}"),
                    source: None,
                }),
            }
        });
    }),
    ("a name's former holder lends its snapshots", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let from = spec.restore_from.as_ref().map(|from| predecessors(inner, from));
            inner.create_vm_with_spec(vm_id, &VmSpec { restore_from: from, ..spec.clone() })
        });
    }),
    ("a gone VM's snapshots are not found by its name", |it| {
        it.create = Box::new(|inner, vm_id, spec| match &spec.restore_from {
            Some(from) if is_of_gone(inner, from) => Err(missing(from)),
            _ => inner.create_vm_with_spec(vm_id, spec),
        });
    }),
    ("a uid means who has its name now", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let from = spec.restore_from.as_ref().map(|from| by_present_name(inner, from));
            inner.create_vm_with_spec(vm_id, &VmSpec { restore_from: from, ..spec.clone() })
        });
    }),
    ("a deleted snapshot keeps its name", |it| {
        let deleted: Arc<Mutex<HashSet<(Uid, String)>>> = Arc::default();
        let taken = Arc::clone(&deleted);
        it.delete = Box::new(move |inner, snapshot| {
            let view = inner.snapshot(snapshot)?;
            inner.delete_snapshot(snapshot)?;
            deleted.lock().insert((view.vm_uid, view.snapshot_id.to_string()));
            Ok(())
        });
        it.capture = Box::new(move |inner, vm_id, id| {
            let uid = inner.get_vm(vm_id).map(|vm| vm.uid);
            match uid.is_some_and(|uid| taken.lock().contains(&(uid, id.to_string()))) {
                true => Err(hearth_providers::VmRuntimeError::SnapshotAlreadyExists {
                    vm_id: vm_id.clone(),
                    snapshot_id: id.clone(),
                }),
                false => inner.snapshot_vm(vm_id, id),
            }
        });
    }),
    ("snapshots are listed backwards", |it| {
        it.view = Box::new(|mut vm| {
            vm.snapshots.reverse();
            vm
        });
    }),
    ("snapshot names are one VM's only", |it| {
        it.capture = Box::new(|inner, vm_id, id| {
            let uid = inner.get_vm(vm_id).map(|vm| vm.uid);
            let mut all = inner.all_snapshots().into_iter();
            match all.any(|taken| taken.snapshot_id == *id && Some(taken.vm_uid) != uid) {
                true => Err(hearth_providers::VmRuntimeError::SnapshotAlreadyExists {
                    vm_id: vm_id.clone(),
                    snapshot_id: id.clone(),
                }),
                false => inner.snapshot_vm(vm_id, id),
            }
        });
    }),
];

fn is_clone(pin: &str) -> bool {
    pin.starts_with("vm:")
}

fn unpin_all(inner: Inner<'_>, snapshot: &SnapshotView) -> Result<()> {
    let mut pins = snapshot.pinned_by.iter().filter(|pin| !is_clone(pin));
    pins.try_for_each(|pin| inner.unpin_snapshot(snapshot.uid, pin))
}

fn missing(snapshot: &SnapshotRef) -> hearth_providers::VmRuntimeError {
    SnapshotNotFound {
        vm: "it".to_owned(),
        snapshot_id: snapshot.snapshot_id.clone(),
        reason: "a deviation".to_owned(),
    }
}

/// The snapshot of whoever had the name and took one of this name.
fn predecessors(inner: Inner<'_>, from: &SnapshotRef) -> SnapshotRef {
    let SnapshotSource::Name(name) = &from.source else { return from.clone() };
    let mut all = inner.all_snapshots().into_iter();
    let found = all.find(|it| it.vm_id == *name && it.snapshot_id == from.snapshot_id);
    match (inner.snapshot(from), found) {
        (Err(_), Some(found)) => {
            SnapshotRef { source: SnapshotSource::VmUid(found.vm_uid), ..from.clone() }
        }
        _ => from.clone(),
    }
}

fn is_of_gone(inner: Inner<'_>, from: &SnapshotRef) -> bool {
    let SnapshotSource::Name(name) = &from.source else { return false };
    inner.status(name).is_none_or(|status| status == VmStatus::Destroyed)
}

fn by_present_name(inner: Inner<'_>, from: &SnapshotRef) -> SnapshotRef {
    let SnapshotSource::VmUid(uid) = from.source else { return from.clone() };
    match inner.get_vm_by_uid(uid) {
        Some(vm) => SnapshotRef { source: SnapshotSource::Name(vm.vm_id), ..from.clone() },
        None => from.clone(),
    }
}
