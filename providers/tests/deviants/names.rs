//! Names and uids that are not what they should be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_providers::VmRuntimeError::AlreadyExists;
use hearth_providers::{Uid, VmId, VmStatus, VmView};
use parking_lot::Mutex;

use crate::deviant::Deviation;

pub(crate) const ALL: &[Deviation] = &[
    ("the list is not sorted", |it| {
        it.list = Box::new(|inner| inner.list_vms().into_iter().rev().collect());
    }),
    ("the list shows destroyed VMs", |it| {
        let destroyed: Arc<Mutex<Vec<VmView>>> = Arc::default();
        let all = Arc::clone(&destroyed);
        it.destroy = Box::new(move |inner, vm_id| {
            inner.destroy_vm(vm_id)?;
            destroyed.lock().extend(inner.get_vm(vm_id));
            Ok(())
        });
        it.list = Box::new(move |inner| {
            let mut listed = inner.list_vms();
            listed.extend(all.lock().iter().cloned());
            listed.sort_by(|a, b| a.vm_id.cmp(&b.vm_id));
            listed
        });
    }),
    ("the list is a change behind", |it| {
        let last: Mutex<Vec<VmView>> = Mutex::default();
        it.list = Box::new(move |inner| std::mem::replace(&mut last.lock(), inner.list_vms()));
    }),
    ("a destroyed VM is forgotten", |it| {
        it.get = Box::new(|inner, vm_id| {
            inner.get_vm(vm_id).filter(|vm| vm.status != VmStatus::Destroyed)
        });
    }),
    ("a destroyed VM is forgotten by uid", |it| {
        it.by_uid = Box::new(|inner, uid| {
            inner.get_vm_by_uid(uid).filter(|vm| vm.status != VmStatus::Destroyed)
        });
    }),
    ("a destroyed VM keeps its name", |it| {
        it.create = Box::new(|inner, vm_id, spec| match inner.status(vm_id) {
            Some(VmStatus::Destroyed) => Err(AlreadyExists { vm_id: vm_id.clone() }),
            _ => inner.create_vm_with_spec(vm_id, spec),
        });
    }),
    ("a destroyed VM keeps its name from a rename", |it| {
        it.rename = Box::new(|inner, old, new| match inner.status(new) {
            Some(VmStatus::Destroyed) if old != new => Err(AlreadyExists { vm_id: new.clone() }),
            _ => inner.rename_vm(old, new),
        });
    }),
    ("a destroyed VM still has its process", |it| {
        it.view = Box::new(|mut vm| {
            if vm.status == VmStatus::Destroyed {
                vm.endpoints.push(hearth_providers::model::Endpoint {
                    kind: hearth_providers::model::EndpointKind::Unix,
                    address: "agent.sock".to_owned(),
                });
            }
            vm
        });
    }),
    ("a name's uid is used again", |it| {
        let first: Arc<Mutex<HashMap<VmId, Uid>>> = Arc::default();
        it.view = Box::new(move |mut vm| {
            vm.uid = *first.lock().entry(vm.vm_id.clone()).or_insert(vm.uid);
            vm
        });
    }),
    ("rename leaves the old name", |it| {
        let former: Arc<Mutex<HashMap<VmId, Uid>>> = Arc::default();
        let names = Arc::clone(&former);
        it.rename = Box::new(move |inner, old, new| {
            inner.rename_vm(old, new)?;
            former.lock().extend(inner.get_vm(new).map(|vm| (old.clone(), vm.uid)));
            Ok(())
        });
        it.get = Box::new(move |inner, vm_id| {
            let by_former = || inner.get_vm_by_uid(*names.lock().get(vm_id)?);
            inner.get_vm(vm_id).or_else(by_former)
        });
    }),
    ("rename does nothing", |it| {
        it.rename = Box::new(|inner, old, new| match inner.get_vm(new) {
            None if inner.get_vm(old).is_some_and(|vm| vm.status != VmStatus::Destroyed) => Ok(()),
            _ => inner.rename_vm(old, new),
        });
    }),
    ("rename makes another VM", |it| {
        it.rename = Box::new(|inner, old, new| {
            let status = inner.status(old);
            if old == new || status != Some(VmStatus::Created) || inner.get_vm(new).is_some() {
                return inner.rename_vm(old, new);
            }
            inner.destroy_vm(old)?;
            inner.create_vm(new)
        });
    }),
    ("a renamed VM is remembered by its first name", |it| {
        let first: Arc<Mutex<HashMap<Uid, VmId>>> = Arc::default();
        it.view = Box::new(move |mut vm| {
            let mut first = first.lock();
            let name = first.entry(vm.uid).or_insert_with(|| vm.vm_id.clone());
            if vm.status == VmStatus::Destroyed {
                vm.vm_id = name.clone();
            }
            vm
        });
    }),
    ("tags are dropped", |it| {
        it.view = Box::new(|mut vm| {
            vm.tags = Default::default();
            vm
        });
    }),
    ("what it can do depends on what it has done", |it| {
        let started = Arc::new(AtomicBool::new(false));
        let has_started = Arc::clone(&started);
        it.create = Box::new(move |inner, vm_id, spec| {
            started.store(true, Ordering::Relaxed);
            inner.create_vm_with_spec(vm_id, spec)
        });
        it.capabilities = Box::new(move |inner| {
            let mut able = inner.capabilities();
            // Found out late, and shown late.
            able.outlives_hearth =
                !inner.list_vms().is_empty() && has_started.load(Ordering::Relaxed);
            able
        });
    }),
];
