//! Deaths that are not seen, not reported, or made up.

use std::sync::{Arc, OnceLock};

use hearth_providers::VmStatus;
use hearth_providers::provider::ExitObserver;

use crate::deviant::Deviation;

pub(crate) const ALL: &[Deviation] = &[
    ("a dead VM still reads Running", |it| {
        it.view = Box::new(|mut vm| {
            if vm.status == VmStatus::Failed {
                vm.status = VmStatus::Running;
                vm.failure = None;
            }
            vm
        });
    }),
    ("a dead VM reads Stopped", |it| {
        it.view = Box::new(|mut vm| {
            if vm.status == VmStatus::Failed {
                vm.status = VmStatus::Stopped;
            }
            vm
        });
    }),
    ("a dead VM is gone", |it| {
        it.get =
            Box::new(|inner, vm_id| inner.get_vm(vm_id).filter(|vm| vm.status != VmStatus::Failed));
    }),
    ("a death has no reason", |it| {
        it.view = Box::new(|mut vm| {
            vm.failure = None;
            vm
        });
    }),
    ("a death has no last words", |it| {
        it.view = Box::new(|mut vm| {
            vm.failure.iter_mut().for_each(|failure| failure.console_tail.clear());
            vm
        });
    }),
    ("deaths are not reported", |it| {
        it.observe = Box::new(|_, _| ());
    }),
    ("a destroy is reported as a death", |it| {
        let observer: Arc<OnceLock<ExitObserver>> = Arc::default();
        let told = Arc::clone(&observer);
        it.observe = Box::new(move |inner, observer| {
            let _ = told.set(Arc::clone(&observer));
            inner.observe_exits(observer);
        });
        it.destroy = Box::new(move |inner, vm_id| {
            let uid = inner.get_vm(vm_id).map(|vm| vm.uid);
            inner.destroy_vm(vm_id)?;
            uid.iter().for_each(|uid| observer.get().iter().for_each(|observer| observer(*uid)));
            Ok(())
        });
    }),
    ("one death stops the others", |it| {
        it.destroy = Box::new(|inner, vm_id| {
            if inner.status(vm_id) == Some(VmStatus::Failed) {
                for other in inner.list_vms() {
                    let _ = inner.stop_vm(&other.vm_id);
                }
            }
            inner.destroy_vm(vm_id)
        });
    }),
];
