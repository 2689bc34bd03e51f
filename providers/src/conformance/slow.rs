//! While one VM's backend does not answer, nobody else waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::case::cases;
use super::outcome::{Outcome, ensure, refused, same};
use super::scene::{Scene, Vm, by_uid, snapshot_id};
use crate::error::VmRuntimeError;
use crate::model::{VmSpec, VmStatus};
use crate::provider::Probe;

cases! {
    /// Every verb and question on other VMs is done while one VM's snapshot waits.
    fn one_slow_vm_delays_no_other(p) if (p.can_hold()) {
        let (slow, other) = (p.running("slow")?, p.running("other")?);
        while_held(p, &slow, || {
            all_verbs(p, &other)?;
            let next = p.running("next")?;
            p.destroy_vm(&next.id)?;
            Ok(())
        })?;
    }

    /// Questions about the slow VM itself are answered at once.
    fn a_slow_vm_can_be_looked_at(p) if (p.can_hold()) {
        let slow = p.running("slow")?;
        while_held(p, &slow, || {
            same("the uid", p.view(&slow.id)?.uid, slow.uid)?;
            ensure!(p.status(&slow.id).is_some(), "it has no status");
            ensure!(p.get_vm_by_uid(slow.uid).is_some(), "its uid is not there");
            same("the number of VMs", p.list().len(), 1)?;
            ensure!(p.list_snapshots(&slow.id).is_some(), "it has no list of snapshots");
            // It may find that the VM does not answer, but not wait for it.
            let _ = p.probe(&slow.id, Probe::Alive, Duration::from_millis(1));
            Ok(())
        })?;
    }

    /// A rename waits for nothing, not even for a verb on the same VM.
    fn a_slow_vm_can_be_renamed(p) if (p.can_hold() && p.capabilities().rename) {
        let slow = p.running("slow")?;
        while_held(p, &slow, || {
            p.rename_vm(&slow.id, &p.id("renamed"))?;
            same("the uid", p.view(&p.id("renamed"))?.uid, slow.uid)?;
            same("the old name", p.get_vm(&slow.id), None)
        })?;
    }

    /// Destroy interrupts the verb under way and those that wait for their turn.
    fn destroy_interrupts_what_waits(p) if (p.can_hold()) {
        let slow = p.running("slow")?;
        let hold = p.hold(&slow)?;
        let (waiting, destroyed, held) = thread::scope(|scope| {
            let under_way = scope.spawn(|| p.snapshot_vm(&slow.id, &snapshot_id("snap")));
            hold.wait_for_a_call();
            let waiting = [
                under_way,
                scope.spawn(|| p.stop_vm(&slow.id)),
                scope.spawn(|| p.snapshot_vm(&slow.id, &snapshot_id("second"))),
            ];
            let destroyed = p.destroy_vm(&slow.id);
            let waiting = waiting.map(|thread| thread.join());
            (waiting, destroyed, hold.release())
        });
        destroyed?;
        ensure!(held, "destroy waited for the slow VM");
        for verb in waiting.into_iter().flatten() {
            refused(verb, "invalid_transition")?;
        }
        same("the status", p.status(&slow.id), Some(VmStatus::Destroyed))?;
        same("the snapshots", p.snapshots(), vec![])?;
        p.created("slow")?;
    }
}

/// Runs `act` while a snapshot of `slow` waits for its backend; it must not have to wait for it.
fn while_held(p: &Scene, slow: &Vm, act: impl FnOnce() -> Outcome) -> Outcome {
    // What others need is made before, not during the hold.
    p.fixture().template().map(drop).or_else(|broken| match p.capabilities().restore {
        true => Err(broken),
        false => Ok(()),
    })?;
    let hold = p.hold(slow)?;
    let begun = AtomicBool::new(false);
    let (acted, held, captured) = thread::scope(|scope| {
        let captured = scope.spawn(|| {
            begun.store(true, Ordering::Release);
            p.snapshot_vm(&slow.id, &snapshot_id("slow"))
        });
        let begins = p.until("a call begins", || begun.load(Ordering::Acquire));
        let met = hold.wait_for_a_call();
        let acted = begins.and_then(|()| act());
        (acted, hold.release() && met, captured.join())
    });
    acted?;
    ensure!(held, "it waited for the slow VM");
    match captured.map_err(|panic| super::Broken::panicked(&*panic))? {
        Err(VmRuntimeError::StopRequired { .. }) => {}
        // Where it cannot be seen that the call has come in, a rename may have come before it.
        Err(VmRuntimeError::NotFound { .. }) if p.get_vm(&slow.id).is_none() => {}
        captured => captured?,
    }
    Ok(())
}

fn all_verbs(p: &Scene, vm: &Vm) -> Outcome {
    p.stop_vm(&vm.id)?;
    p.snapshot_vm(&vm.id, &snapshot_id("snap"))?;
    p.start_vm(&vm.id)?;
    same("the status", p.status(&vm.id), Some(VmStatus::Running))?;
    if p.capabilities().guest_channel {
        p.ask(&vm.id, "echo on")?;
        p.probe(&vm.id, Probe::AgentAnswers, p.patience())?;
    }
    if p.capabilities().restore {
        let snapshot = by_uid(vm.uid, "snap");
        p.pin_snapshot(&snapshot, "pin").and_then(|view| p.unpin_snapshot(view.uid, "pin"))?;
        p.delete_snapshot(&snapshot)?;
    }
    let renamed = p.id("renamed");
    if p.capabilities().rename {
        p.rename_vm(&vm.id, &renamed)?;
        p.rename_vm(&renamed, &vm.id)?;
    }
    same("the number of VMs", p.list().len(), 2)?;
    p.destroy_vm(&vm.id)?;
    let refused_spec = VmSpec { vcpu_count: 0, ..VmSpec::default() };
    refused(p.create_vm_with_spec(&renamed, &refused_spec), "invalid_spec")?;
    p.created("created").map(drop)
}
