//! Verbs that are allowed where the table refuses them, or lead elsewhere.

use hearth_providers::VmRuntimeError::{InvalidTransition, NotFound};
use hearth_providers::VmStatus::{self, Created, Destroyed, Failed, Running, Stopped};
use hearth_providers::error::Result;

use crate::deviant::Deviation;

pub(crate) const ALL: &[Deviation] = &[
    ("a running VM can be started again", |it| {
        it.start = Box::new(|inner, vm_id| allow(Running, inner.start_vm(vm_id)));
    }),
    ("a failed VM can be started again", |it| {
        it.start = Box::new(|inner, vm_id| allow(Failed, inner.start_vm(vm_id)));
    }),
    ("a VM that was never started can be stopped", |it| {
        it.stop = Box::new(|inner, vm_id| allow(Created, inner.stop_vm(vm_id)));
    }),
    ("a stopped VM can be stopped again", |it| {
        it.stop = Box::new(|inner, vm_id| allow(Stopped, inner.stop_vm(vm_id)));
    }),
    ("a failed VM can be captured", |it| {
        it.capture = Box::new(|inner, vm_id, id| allow(Failed, inner.snapshot_vm(vm_id, id)));
    }),
    ("a destroyed VM can be destroyed again", |it| {
        it.destroy = Box::new(|inner, vm_id| allow(Destroyed, inner.destroy_vm(vm_id)));
    }),
    ("a destroyed VM can be renamed", |it| {
        it.rename = Box::new(|inner, old, new| allow(Destroyed, inner.rename_vm(old, new)));
    }),
    ("what is not there can be destroyed", |it| {
        it.destroy = Box::new(|inner, vm_id| match inner.destroy_vm(vm_id) {
            Err(NotFound { .. }) => Ok(()),
            done => done,
        });
    }),
    ("a stop destroys", |it| {
        it.stop = Box::new(|inner, vm_id| {
            inner.stop_vm(vm_id)?;
            inner.destroy_vm(vm_id)
        });
    }),
    ("a start does nothing", |it| {
        it.start = Box::new(|inner, vm_id| match inner.status(vm_id) {
            Some(Created | Stopped) => Ok(()),
            _ => inner.start_vm(vm_id),
        });
    }),
    ("a snapshot leaves a running VM stopped", |it| {
        it.capture = Box::new(|inner, vm_id, id| {
            inner.snapshot_vm(vm_id, id)?;
            match inner.status(vm_id) {
                Some(Running) => inner.stop_vm(vm_id),
                _ => Ok(()),
            }
        });
    }),
    ("a snapshot starts a stopped VM", |it| {
        it.capture = Box::new(|inner, vm_id, id| {
            inner.snapshot_vm(vm_id, id)?;
            match inner.status(vm_id) {
                Some(Stopped) => inner.start_vm(vm_id),
                _ => Ok(()),
            }
        });
    }),
    ("a rename pauses", |it| {
        it.rename = Box::new(|inner, old, new| {
            inner.rename_vm(old, new)?;
            match inner.status(new) {
                Some(Running) => inner.stop_vm(new),
                _ => Ok(()),
            }
        });
    }),
];

/// A refusal because of `status` is none.
fn allow(status: VmStatus, done: Result<()>) -> Result<()> {
    match done {
        Err(InvalidTransition { status: refused, .. }) if refused == status => Ok(()),
        done => done,
    }
}
