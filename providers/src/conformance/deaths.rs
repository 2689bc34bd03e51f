//! VMs that end by themselves are seen, explained, and kept until they are destroyed.

use super::case::cases;
use super::outcome::{ensure, refused, same};
use crate::model::VmStatus;

cases! {
    /// A VM whose guest powers itself off reads Failed, with the reason.
    fn a_vm_that_ends_by_itself_is_failed(p) if (p.can_fail()) {
        let vm = p.running("vm")?;
        p.fail(&vm, "poweroff")?;
        let seen = p.get_vm(&vm.id).map(|vm| (vm.uid, vm.status));
        same("the VM", seen, Some((vm.uid, VmStatus::Failed)))?;
        let failure = p.get_vm(&vm.id).and_then(|vm| vm.failure);
        let failure = failure.ok_or_else(|| super::Broken::new("a Failed VM has no failure"))?;
        ensure!(!failure.reason.is_empty(), "a failure has no reason");
        let by_uid = p.get_vm_by_uid(vm.uid).map(|vm| vm.status);
        same("the status by uid", by_uid, Some(VmStatus::Failed))?;
    }

    /// The last words of a guest are in the failure.
    fn a_failure_has_the_tail_of_the_console(p) if (p.can_fail() && p.capabilities().console) {
        let vm = p.running("vm")?;
        p.fail(&vm, "panic")?;
        p.until("the failure has the guest's last words", || {
            let failure = p.get_vm(&vm.id).and_then(|vm| vm.failure);
            failure.is_some_and(|failure| failure.console_tail.contains("panic"))
        })?;
    }

    /// A running VM has no failure, nor has one that was stopped.
    fn a_living_vm_has_no_failure(p) {
        let vm = p.running("vm")?;
        same("the failure", p.get_vm(&vm.id).and_then(|vm| vm.failure), None)?;
        p.stop_vm(&vm.id)?;
        same("the failure", p.get_vm(&vm.id).and_then(|vm| vm.failure), None)?;
    }

    /// The observer hears of a death without having to look, and of no other end.
    fn deaths_are_reported(p) if (p.can_fail() && p.capabilities().reports_exits) {
        let vm = p.running("vm")?;
        let destroyed = p.vm_in("destroyed", VmStatus::Destroyed)?;
        let stopped = p.vm_in("stopped", VmStatus::Stopped)?;
        let mut agent = p.agent(&vm.id)?;
        let _ = agent.ask("poweroff", p.patience());
        p.until("the observer was called", || p.fixture().saw_end_of(vm.uid))?;
        same("the status", p.status(&vm.id), Some(VmStatus::Failed))?;
        for other in [destroyed, stopped] {
            ensure!(!p.fixture().saw_end_of(other.uid), "a death was reported that was none");
        }
    }

    /// Who talks to a VM that ends hears that it has ended, or nothing; not for ever.
    fn a_conversation_ends_with_its_vm(p) if (p.can_fail()) {
        let vm = p.running("vm")?;
        let mut agent = p.agent(&vm.id)?;
        let _ = agent.ask("poweroff", p.patience());
        p.until("it reads Failed", || p.status(&vm.id) == Some(VmStatus::Failed))?;
        let asked = agent.ask("echo anybody", std::time::Duration::from_millis(100));
        ensure!(asked.is_err(), "a dead guest answered {asked:?}");
        refused(p.guest_channel(&vm.id).map(drop), "invalid_transition")?;
    }

    /// The death of one clone is nothing to its siblings.
    fn a_death_is_nothing_to_others(p) if (p.can_fail()) {
        let (vm, other) = (p.running("vm")?, p.running("other")?);
        p.fail(&vm, "panic")?;
        same("the answer of another", p.ask(&other.id, "echo on")?, "echo on".to_owned())?;
        p.destroy_vm(&vm.id)?;
        same("the answer of another", p.ask(&other.id, "echo on")?, "echo on".to_owned())?;
    }
}
