//! Whoever comes at the same time: one wins, the others are told so, and nothing is torn.

use std::sync::atomic::{AtomicBool, Ordering};

use super::case::cases;
use super::outcome::{Outcome, ensure, same, winners};
use super::scene::{at_once, restore_of, snapshot_id};
use crate::error::Result;
use crate::model::VmStatus;

cases! {
    /// Of several creates of one name one wins, and there is one VM.
    fn concurrent_creates_have_one_winner(p) {
        for _ in p.rounds() {
            let vm_id = p.id("vm");
            let created = at_once(p.threads(), |_| {
                p.create_vm_with_spec(&vm_id, &p.fixture().spec)
            });
            same("the number of winners", winners(created, "already_exists")?, 1)?;
            same("the number of VMs", p.list().len(), 1)?;
            p.destroy_vm(&vm_id)?;
            same("the number of live VMs", p.list().len(), 0)?;
        }
    }

    /// Of several restores to one name one wins, and one clone keeps the snapshot.
    fn concurrent_restores_of_one_name_have_one_winner(p) if (p.capabilities().restore) {
        let source = p.running("source")?;
        let snapshot = p.capture(&source, "snap")?;
        for _ in p.rounds() {
            let vm_id = p.id("vm");
            let restored = at_once(p.threads(), |_| {
                p.create_vm_with_spec(&vm_id, &restore_of(snapshot.clone()))
            });
            same("the number of winners", winners(restored, "already_exists")?, 1)?;
            let pins = vec![format!("vm:{}", p.view(&vm_id)?.uid)];
            same("the pins", p.snapshot(&snapshot)?.pinned_by, pins)?;
            p.destroy_vm(&vm_id)?;
        }
    }

    /// Clones that start together are all there, and each is its own.
    fn concurrent_restores_are_independent(p) if (p.can_continue()) {
        let reference = p.template()?.reference();
        let clones: Outcome<Vec<_>> = at_once(p.threads(), |number| {
            let vm = p.restored(&format!("vm-{number}"), reference.clone())?;
            p.ask(&vm.id, &format!("name n{number}"))?;
            Ok(vm)
        }).into_iter().collect();
        for (number, vm) in clones?.iter().enumerate() {
            let name = p.agent(&vm.id)?.ping(p.patience())?.name;
            same("the name", name, Some(format!("n{number}")))?;
        }
        let mut uids: Vec<_> = p.list().iter().map(|vm| vm.uid).collect();
        uids.sort();
        uids.dedup();
        same("the number of uids", uids.len(), p.threads())?;
    }

    /// Of several VMs that are renamed to one name one wins; the others keep theirs.
    fn concurrent_renames_onto_one_name_have_one_winner(p) if (p.capabilities().rename) {
        let text = |number: usize| format!("vm-{number}");
        for number in 0..p.threads() {
            p.created(&text(number))?;
        }
        for _ in p.rounds() {
            let renamed = at_once(p.threads(), |number| {
                p.rename_vm(&p.id(&text(number)), &p.id("one"))
            });
            let winner = renamed.iter().position(Result::is_ok).unwrap_or_default();
            same("the number of winners", winners(renamed, "already_exists")?, 1)?;
            same("the number of VMs", p.list().len(), p.threads())?;
            p.rename_vm(&p.id("one"), &p.id(&text(winner)))?;
        }
    }

    /// One VM renamed to several names gets one of them.
    fn concurrent_renames_of_one_vm_have_one_winner(p) if (p.capabilities().rename) {
        let vm = p.created("vm")?;
        let text = |number: usize| format!("vm-{number}");
        for _ in p.rounds() {
            let renamed = at_once(p.threads(), |number| p.rename_vm(&vm.id, &p.id(&text(number))));
            let winner = renamed.iter().position(Result::is_ok).unwrap_or_default();
            same("the number of winners", winners(renamed, "not_found")?, 1)?;
            let names: Vec<_> = p.list().into_iter().map(|vm| vm.vm_id).collect();
            same("the names", names, vec![p.id(&text(winner))])?;
            p.rename_vm(&p.id(&text(winner)), &vm.id)?;
        }
    }

    /// Of a rename and a destroy of one name one wins: what was renamed is not destroyed.
    fn rename_and_destroy_have_one_winner(p) if (p.capabilities().rename) {
        for _ in p.rounds() {
            let vm = p.created("vm")?;
            let renamed = p.id("renamed");
            let mut done = at_once(2, |number| match number {
                0 => p.rename_vm(&vm.id, &renamed),
                _ => p.destroy_vm(&vm.id),
            });
            let destroyed = done.pop().is_some_and(|done| done.is_ok());
            let was_renamed = done.pop().is_some_and(|done| done.is_ok());
            ensure!(
                destroyed != was_renamed,
                "renamed: {was_renamed}, and destroyed: {destroyed}"
            );
            let status = p.get_vm_by_uid(vm.uid).map(|vm| vm.status);
            let wanted = if destroyed { VmStatus::Destroyed } else { VmStatus::Created };
            same("the status", status, Some(wanted))?;
            same("the number of live VMs", p.list().len(), usize::from(was_renamed))?;
            if was_renamed {
                p.destroy_vm(&renamed)?;
            }
        }
    }

    /// Of several destroys one wins.
    fn concurrent_destroys_have_one_winner(p) {
        for _ in p.rounds() {
            let vm = p.created("vm")?;
            let destroyed = at_once(p.threads(), |_| p.destroy_vm(&vm.id));
            same("the number of winners", winners(destroyed, "invalid_transition")?, 1)?;
            same("the number of live VMs", p.list().len(), 0)?;
        }
    }

    /// Who looks while a VM is renamed sees the old name or the new one, never both or none.
    fn readers_see_one_name_during_renames(p) if (p.capabilities().rename) {
        let vm = p.created("vm-0")?;
        for round in p.rounds() {
            let old = p.id(&format!("vm-{round}"));
            let new = p.id(&format!("vm-{}", round + 1));
            let done = AtomicBool::new(false);
            let seen = at_once(3, |number| match number {
                0 => {
                    let renamed = p.rename_vm(&old, &new).map_err(Into::into);
                    done.store(true, Ordering::Release);
                    renamed
                }
                1 => while_not(&done, || {
                    let has_new = p.get_vm(&new).is_some();
                    let has_old = p.get_vm(&old).is_some();
                    ensure!(!(has_new && has_old), "both names were seen");
                    let has_old = p.status(&old).is_some();
                    let has_new = p.status(&new).is_some();
                    ensure!(has_new || has_old, "neither name was seen");
                    Ok(())
                }),
                _ => while_not(&done, || {
                    let names: Vec<_> = p.list().into_iter().map(|vm| vm.vm_id).collect();
                    ensure!(names == [old.clone()] || names == [new.clone()], "listed: {names:?}");
                    ensure!(p.get_vm_by_uid(vm.uid).is_some(), "the uid was not seen");
                    Ok(())
                }),
            });
            seen.into_iter().collect::<Outcome>()?;
        }
    }

    /// Who looks while a VM is destroyed sees it, and then sees it destroyed.
    fn readers_see_a_vm_until_it_is_destroyed(p) {
        for _ in p.rounds() {
            let vm = p.created("vm")?;
            let done = AtomicBool::new(false);
            let seen = at_once(2, |number| match number {
                0 => {
                    let destroyed = p.destroy_vm(&vm.id).map_err(Into::into);
                    done.store(true, Ordering::Release);
                    destroyed
                }
                _ => while_not(&done, || {
                    ensure!(p.status(&vm.id).is_some(), "it was not seen by name");
                    let uid = p.get_vm(&vm.id).map(|vm| vm.uid);
                    same("the uid", uid, Some(vm.uid))?;
                    ensure!(p.get_vm_by_uid(vm.uid).is_some(), "it was not seen by uid");
                    Ok(())
                }),
            });
            seen.into_iter().collect::<Outcome>()?;
        }
    }

    /// Verbs on one VM take turns: as many starts as stops have led it where it stands.
    fn verbs_on_one_vm_take_turns(p) {
        let vm = p.running("vm")?;
        p.stop_vm(&vm.id)?;
        for _ in p.rounds() {
            let before = p.status(&vm.id);
            let (mut starts, mut stops) = (Vec::new(), Vec::new());
            let asked = at_once(p.threads(), |number| match number % 2 {
                0 => (true, p.start_vm(&vm.id)),
                _ => (false, p.stop_vm(&vm.id)),
            });
            for (is_start, done) in asked {
                if is_start { starts.push(done) } else { stops.push(done) }
            }
            let starts = winners(starts, "invalid_transition")?;
            let stops = winners(stops, "invalid_transition")?;
            let ran = usize::from(before == Some(VmStatus::Running));
            let runs = usize::from(p.status(&vm.id) == Some(VmStatus::Running));
            same("starts and the former status", starts + ran, stops + runs)?;
        }
        if p.status(&vm.id) == Some(VmStatus::Stopped) {
            p.start_vm(&vm.id)?;
        }
        if p.capabilities().guest_channel {
            p.ask(&vm.id, "echo well")?;
        }
    }

    /// Of several snapshots of one name one wins; those of different names are all taken.
    fn concurrent_snapshots_of_one_name_have_one_winner(p) if (p.capabilities().restore) {
        let vm = p.vm_in("vm", VmStatus::Stopped)?;
        for round in p.rounds() {
            let name = snapshot_id(&format!("round-{round}"));
            let taken = at_once(p.threads(), |_| p.snapshot_vm(&vm.id, &name));
            same("the number of winners", winners(taken, "snapshot_already_exists")?, 1)?;
            same("the number of snapshots", p.snapshots().len(), round + 1)?;
        }
        let before = p.snapshots().len();
        at_once(2, |number| p.snapshot_vm(&vm.id, &snapshot_id(&format!("snap-{number}"))))
            .into_iter()
            .collect::<Result<()>>()?;
        same("the number of snapshots", p.snapshots().len(), before + 2)?;
    }

    /// A snapshot that is pinned while its VM is destroyed is kept, or was not there to pin.
    fn a_pin_against_the_end_of_the_vm_holds(p) if (p.capabilities().restore) {
        for _ in p.rounds() {
            let vm = p.running("vm")?;
            let snapshot = p.capture(&vm, "snap")?;
            let mut done = at_once(2, |number| match number {
                0 => p.pin_snapshot(&snapshot, "pin").map(|view| Some(view.uid)),
                _ => p.destroy_vm(&vm.id).map(|()| None),
            });
            done.pop().transpose()?;
            match done.pop() {
                Some(Ok(Some(uid))) => {
                    same("the pinned snapshot", p.snapshot(&snapshot)?.uid, uid)?;
                    p.unpin_snapshot(uid, "pin")?;
                }
                Some(pinned) => drop(super::outcome::refused(pinned, "snapshot_not_found")?),
                None => {}
            }
            same("the snapshots", p.snapshots(), vec![])?;
        }
    }
}

/// Looks again and again until somebody is done.
fn while_not(done: &AtomicBool, look: impl Fn() -> Outcome) -> Outcome {
    loop {
        let last = done.load(Ordering::Acquire);
        look()?;
        if last {
            return Ok(());
        }
    }
}
