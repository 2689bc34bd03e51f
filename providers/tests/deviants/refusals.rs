//! Refusals of a wrong kind, or that are not made, or that leave something behind.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_providers::VmRuntimeError::{
    self, AlreadyExists, Backend, InvalidSpec, InvalidTransition, NotFound, SnapshotAlreadyExists,
    SnapshotInUse, SnapshotNotFound,
};
use hearth_providers::transition::Verb;
use hearth_providers::{VmId, VmSpec, VmStatus};
use parking_lot::Mutex;

use crate::deviant::Deviation;

pub(crate) const ALL: &[Deviation] = &[
    ("a taken name is a wrong state", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(AlreadyExists { vm_id }) => {
                Err(InvalidTransition { vm_id, status: VmStatus::Created, verb: Verb::Start })
            }
            done => done,
        });
    }),
    ("a taken name is taken over", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(AlreadyExists { .. }) => {
                inner.destroy_vm(vm_id)?;
                inner.create_vm_with_spec(vm_id, spec)
            }
            done => done,
        });
    }),
    ("an absent VM is in a wrong state", |it| {
        it.start = Box::new(|inner, vm_id| match inner.start_vm(vm_id) {
            Err(NotFound { vm_id }) => {
                Err(InvalidTransition { vm_id, status: VmStatus::Destroyed, verb: Verb::Start })
            }
            done => done,
        });
    }),
    ("a refusal names the wrong status", |it| {
        it.stop = Box::new(|inner, vm_id| match inner.stop_vm(vm_id) {
            Err(InvalidTransition { vm_id, verb, .. }) => {
                Err(InvalidTransition { vm_id, status: VmStatus::Running, verb })
            }
            done => done,
        });
    }),
    ("rename onto a taken name is not found", |it| {
        it.rename = Box::new(|inner, old, new| match inner.rename_vm(old, new) {
            Err(AlreadyExists { vm_id }) => Err(NotFound { vm_id }),
            done => done,
        });
    }),
    ("a second snapshot of a name is taken for the first", |it| {
        it.capture = Box::new(|inner, vm_id, id| match inner.snapshot_vm(vm_id, id) {
            Err(SnapshotAlreadyExists { .. }) => Ok(()),
            done => done,
        });
    }),
    ("a missing snapshot is a failure of the backend", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(SnapshotNotFound { reason, .. }) => Err(failure(reason)),
            done => done,
        });
    }),
    ("a missing snapshot is pinned as a failure of the backend", |it| {
        it.pin = Box::new(|inner, snapshot, holder| match inner.pin_snapshot(snapshot, holder) {
            Err(SnapshotNotFound { reason, .. }) => Err(failure(reason)),
            done => done,
        });
    }),
    ("a missing snapshot boots instead", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(SnapshotNotFound { .. }) => {
                inner.create_vm(vm_id)?;
                inner.start_vm(vm_id)
            }
            done => done,
        });
    }),
    ("a refused restore leaves a VM behind", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let done = inner.create_vm_with_spec(vm_id, spec);
            if let Err(SnapshotNotFound { .. }) = done {
                inner.create_vm(vm_id)?;
            }
            done
        });
    }),
    ("a refused create keeps the name taken", |it| {
        let leaked: Arc<Mutex<HashSet<VmId>>> = Arc::default();
        it.create = Box::new(move |inner, vm_id, spec| {
            if leaked.lock().contains(vm_id) {
                return Err(AlreadyExists { vm_id: vm_id.clone() });
            }
            inner.create_vm_with_spec(vm_id, spec).inspect_err(|error| {
                if matches!(error, InvalidSpec { .. } | SnapshotNotFound { .. }) {
                    leaked.lock().insert(vm_id.clone());
                }
            })
        });
    }),
    ("a refused spec is a failure of the backend", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(InvalidSpec { reason, .. }) => Err(failure(reason)),
            done => done,
        });
    }),
    ("a refused spec names the wrong field", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.create_vm_with_spec(vm_id, spec) {
            Err(InvalidSpec { reason, .. }) => Err(InvalidSpec { field: "spec", reason }),
            done => done,
        });
    }),
    ("sizes are not checked", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let spec = VmSpec { vcpu_count: 1, mem_size_mib: 1, ..spec.clone() };
            inner.create_vm_with_spec(vm_id, &spec)
        });
    }),
    ("files are not checked", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let spec = VmSpec { kernel: None, initrd: None, rootfs: None, ..spec.clone() };
            inner.create_vm_with_spec(vm_id, &spec)
        });
    }),
    ("boot arguments are not checked", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            let spec = VmSpec { boot_args: String::new(), ..spec.clone() };
            inner.create_vm_with_spec(vm_id, &spec)
        });
    }),
    ("a pinned snapshot is refused as missing", |it| {
        it.delete = Box::new(|inner, snapshot| match inner.delete_snapshot(snapshot) {
            Err(SnapshotInUse { snapshot_id, .. }) => {
                let (vm, reason) = (String::new(), String::new());
                Err(SnapshotNotFound { vm, snapshot_id, reason })
            }
            done => done,
        });
    }),
    ("rename to its own name is refused", |it| {
        it.rename = Box::new(|inner, old, new| match old == new && is_live(inner, old) {
            true => Err(AlreadyExists { vm_id: new.clone() }),
            false => inner.rename_vm(old, new),
        });
    }),
    ("whatever is renamed to its own name is renamed", |it| {
        it.rename = Box::new(|inner, old, new| match old == new {
            true => Ok(()),
            false => inner.rename_vm(old, new),
        });
    }),
];

fn failure(what: String) -> VmRuntimeError {
    Backend { what, source: None }
}

fn is_live(inner: crate::deviant::Inner<'_>, vm_id: &VmId) -> bool {
    inner.status(vm_id).is_some_and(|status| status != VmStatus::Destroyed)
}
