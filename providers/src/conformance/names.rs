//! Names come and go, uids never change; every way of looking tells the same.

use std::collections::HashSet;

use super::case::cases;
use super::outcome::{ensure, refused, same};
use crate::model::VmStatus;

cases! {
    /// The list is sorted by id, and shows what a look at each VM shows.
    fn the_list_is_sorted_and_agrees_with_get(p) {
        for text in ["b", "a-2", "c", "a", "a-10", "0"] {
            p.created(text)?;
        }
        p.vm_in("b-gone", VmStatus::Destroyed)?;
        let listed = p.list();
        same("the number of live VMs", listed.len(), 6)?;
        ensure!(listed.is_sorted_by(|a, b| a.vm_id < b.vm_id), "not sorted: {listed:?}");
        for vm in listed {
            same("a VM by name", p.view(&vm.vm_id)?, vm.clone())?;
            same("its status", p.status(&vm.vm_id), Some(vm.status))?;
            let by_uid = p.get_vm_by_uid(vm.uid).map(|vm| vm.vm_id);
            same("its name by uid", by_uid.clone(), Some(vm.vm_id))?;
            same("what it is called", p.name_of(vm.uid), by_uid)?;
        }
    }

    /// What was never there is nowhere to be seen.
    fn an_absent_vm_is_nowhere(p) {
        let vm_id = p.id("absent");
        same("the VM", p.get_vm(&vm_id), None)?;
        same("the status", p.status(&vm_id), None)?;
        let uid = crate::id::Uid::from_random([9; 16]);
        same("the VM of an unknown uid", p.get_vm_by_uid(uid), None)?;
    }

    /// A uid is one VM's for ever, however often its name is used again.
    fn uids_are_never_used_again(p) {
        let mut uids = HashSet::new();
        for _ in 0..5 {
            let vm = p.created("vm")?;
            ensure!(uids.insert(vm.uid), "the uid {} was used again", vm.uid);
            p.destroy_vm(&vm.id)?;
        }
        for uid in uids {
            same("what a destroyed VM is called", p.name_of(uid), None)?;
            let status = p.get_vm_by_uid(uid).map(|vm| vm.status);
            same("the status of a destroyed VM", status, Some(VmStatus::Destroyed))?;
        }
    }

    /// Of VMs that had one name in turn, the name means the last.
    fn a_name_means_its_last_holder(p) {
        let first = p.vm_in("vm", VmStatus::Destroyed)?;
        let second = p.vm_in("vm", VmStatus::Destroyed)?;
        same("the VM by name", p.view(&first.id)?.uid, second.uid)?;
        let third = p.created("vm")?;
        same("the VM by name", p.view(&first.id)?.uid, third.uid)?;
        p.destroy_vm(&third.id)?;
        same("the VM by name", p.view(&first.id)?.uid, third.uid)?;
    }

    /// A rename to the name that a VM has changes nothing, whatever its status.
    fn rename_to_itself_does_nothing(p) if (p.capabilities().rename) {
        for (text, status) in [
            ("created", VmStatus::Created),
            ("running", VmStatus::Running),
            ("stopped", VmStatus::Stopped),
        ] {
            let vm = p.vm_in(text, status)?;
            let before = p.list();
            p.rename_vm(&vm.id, &vm.id)?;
            same("the case's VMs", p.list(), before)?;
        }
    }

    /// To its own name either, a destroyed VM is not renamed, and an absent one is not found.
    fn rename_to_itself_needs_a_live_vm(p) if (p.capabilities().rename) {
        let gone = p.vm_in("gone", VmStatus::Destroyed)?;
        refused(p.rename_vm(&gone.id, &gone.id), "invalid_transition")?;
        refused(p.rename_vm(&p.id("absent"), &p.id("absent")), "not_found")?;
    }

    /// The name that a rename left is free, for the same VM and for others.
    fn rename_frees_the_old_name(p) if (p.capabilities().rename) {
        let vm = p.created("one")?;
        let (one, two) = (p.id("one"), p.id("two"));
        p.rename_vm(&one, &two)?;
        p.rename_vm(&two, &one)?;
        p.rename_vm(&one, &two)?;
        let next = p.created("one")?;
        ensure!(next.uid != vm.uid, "two VMs have one uid");
        same("the VM of the first name", p.view(&one)?.uid, next.uid)?;
        same("the VM of the second", p.view(&two)?.uid, vm.uid)?;
        same("what it is called", p.name_of(vm.uid), Some(two.clone()))?;
        p.destroy_vm(&one)?;
        same("the VM of the second", p.view(&two)?.uid, vm.uid)?;
        refused(p.rename_vm(&one, &p.id("three")), "invalid_transition")?;
    }

    /// A destroyed VM does not keep its name from a rename.
    fn rename_onto_the_name_of_a_destroyed_vm_works(p) if (p.capabilities().rename) {
        let gone = p.vm_in("gone", VmStatus::Destroyed)?;
        let vm = p.created("vm")?;
        p.rename_vm(&vm.id, &gone.id)?;
        let seen = p.view(&gone.id)?;
        same("the VM by name", (seen.uid, seen.status), (vm.uid, VmStatus::Created))?;
        let remembered = p.get_vm_by_uid(gone.uid).map(|vm| vm.status);
        same("the destroyed one, by uid", remembered, Some(VmStatus::Destroyed))?;
    }

    /// A VM is remembered by its last name, not by those it had before.
    fn a_destroyed_vm_is_remembered_by_its_last_name(p) if (p.capabilities().rename) {
        let vm = p.created("one")?;
        p.rename_vm(&vm.id, &p.id("two"))?;
        p.destroy_vm(&p.id("two"))?;
        same("the VM of the first name", p.get_vm(&vm.id), None)?;
        let by_name = p.view(&p.id("two"))?;
        same("the VM of the last", (by_name.uid, by_name.vm_id), (vm.uid, p.id("two")))?;
        let by_uid = p.get_vm_by_uid(vm.uid).map(|vm| vm.vm_id);
        same("its name, by uid", by_uid, Some(p.id("two")))?;
        same("what it is called", p.name_of(vm.uid), None)?;
    }

    /// What a provider can do does not depend on when it is asked.
    fn capabilities_are_constant(p) {
        let before = p.capabilities();
        let vm = p.running("vm")?;
        same("the capabilities", p.capabilities(), before.clone())?;
        p.destroy_vm(&vm.id)?;
        same("the capabilities", p.capabilities(), before)?;
        same("the description", p.describe(), p.describe())?;
    }

    /// A destroyed VM has neither a process nor ways to reach it.
    fn a_destroyed_vm_cannot_be_reached(p) {
        let vm = p.running("vm")?;
        p.destroy_vm(&vm.id)?;
        let seen = p.get_vm(&vm.id).map(|vm| (vm.process, vm.endpoints));
        same("its process and endpoints", seen, Some((None, vec![])))?;
    }
}
