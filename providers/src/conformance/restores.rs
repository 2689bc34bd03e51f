//! What starts from a snapshot goes on where that stood, and is nobody else's.

use super::case::cases;
use super::outcome::{ensure, refused, same};
use super::scene::{Scene, restore_of};
use crate::model::{NetworkInterface, VmSpec, VmStatus};
use crate::readiness::{Readiness, wait_ready};

cases! {
    /// A restore goes on where the snapshot stood: same boot, and a counter that counts on.
    fn a_restored_vm_goes_on(p) if (p.can_continue()) {
        let template = p.template()?;
        let vm = p.restored("vm", template.reference())?;
        let patience = p.patience();
        let mut agent = p.agent(&vm.id)?;
        let first = agent.ping(patience)?;
        let captured = template.pong.clone().unwrap_or_else(|| first.clone());
        same("the boot id", first.boot_id.clone(), captured.boot_id)?;
        ensure!(
            first.counter >= captured.counter,
            "the counter fell from {} to {}", captured.counter, first.counter
        );
        let agent = parking_lot::Mutex::new(agent);
        p.until("the counter has grown past the snapshot's", || {
            agent.lock().ping(patience).is_ok_and(|pong| pong.counter > captured.counter)
        })?;
    }

    /// `restore_from` is honoured: the snapshot it names is shown, and so is its content.
    fn a_restored_vm_shows_its_snapshot(p) if (p.capabilities().restore) {
        let template = p.template()?;
        let vm = p.restored("vm", template.reference())?;
        same("restored_from", p.view(&vm.id)?.restored_from, Some(template.snapshot.uid))?;
        let booted = p.created("booted")?;
        same("restored_from", p.view(&booted.id)?.restored_from, None)?;
    }

    /// With `resume_immediately` a restore ends Running, without it Stopped.
    fn a_restore_ends_as_it_was_asked_to(p) if (p.capabilities().restore) {
        for (text, resume_immediately, status) in
            [("running", true, VmStatus::Running), ("stopped", false, VmStatus::Stopped)]
        {
            let mut from = p.template()?.reference();
            from.resume_immediately = resume_immediately;
            let vm = p.restored(text, from)?;
            same("the status", p.status(&vm.id), Some(status))?;
        }
        p.start_vm(&p.id("stopped"))?;
        same("the status", p.status(&p.id("stopped")), Some(VmStatus::Running))?;
    }

    /// A VM that was restored stopped goes on from the snapshot when it is started.
    fn a_vm_restored_stopped_goes_on_when_started(p) if (p.can_continue()) {
        let template = p.template()?;
        let mut from = template.reference();
        from.resume_immediately = false;
        let vm = p.restored("vm", from)?;
        p.start_vm(&vm.id)?;
        let pong = p.agent(&vm.id)?.ping(p.patience())?;
        let captured = template.pong.clone().unwrap_or_else(|| pong.clone());
        same("the boot id", pong.boot_id, captured.boot_id)?;
        ensure!(pong.counter >= captured.counter, "the counter fell to {}", pong.counter);
    }

    /// The memory of a restored VM can be read in ahead, while it runs and while it stands still, and
    /// the VM is none the wiser; that of one that was never started, or is not there, cannot.
    fn memory_is_read_in_ahead_without_a_trace(p)
    if (p.capabilities().prefault && p.capabilities().restore) {
        let template = p.template()?;
        let vm = p.restored("vm", template.reference())?;
        p.prefault_vm(&vm.id)?;
        same("the status", p.status(&vm.id), Some(VmStatus::Running))?;
        p.stop_vm(&vm.id)?;
        p.prefault_vm(&vm.id)?;
        same("the status", p.status(&vm.id), Some(VmStatus::Stopped))?;
        p.start_vm(&vm.id)?;
        if p.fixture().can_continue() {
            let told = p.agent(&vm.id)?.ping(p.patience())?.boot_id;
            let captured = template.pong.as_ref().map_or_else(|| told.clone(), |it| it.boot_id.clone());
            same("the boot id", told, captured)?;
        }
        let created = p.created("created")?;
        refused(p.prefault_vm(&created.id), "invalid_transition")?;
        refused(p.prefault_vm(&p.id("absent")), "not_found")?;
        p.destroy_vm(&vm.id)?;
        refused(p.prefault_vm(&vm.id), "invalid_transition")?;
    }

    /// What one clone does, its siblings and those that come later do not see.
    fn clones_are_independent(p) if (p.can_continue()) {
        let template = p.template()?;
        let one = p.restored("one", template.reference())?;
        let other = p.restored("other", template.reference())?;
        p.ask(&one.id, "name first")?;
        p.ask(&other.id, "name second")?;
        let later = p.restored("later", template.reference())?;
        for (vm, name) in [(&one, Some("first")), (&other, Some("second")), (&later, None)] {
            let told = p.agent(&vm.id)?.ping(p.patience())?.name;
            same("the name that the guest was told", told.as_deref(), name)?;
        }
        p.destroy_vm(&one.id)?;
        same("the answer of a sibling", p.ask(&other.id, "echo still")?, "echo still".to_owned())?;
    }

    /// Every clone has disks of its own.
    fn clones_have_disks_of_their_own(p) if (p.can_continue() && p.capabilities().disks) {
        let template = p.template()?;
        let one = p.restored("one", template.reference())?;
        let other = p.restored("other", template.reference())?;
        p.ask(&one.id, "write note one")?;
        same("the sibling's note", p.ask(&other.id, "read note")?, "data template".to_owned())?;
        let later = p.restored("later", template.reference())?;
        same("a later note", p.ask(&later.id, "read note")?, "data template".to_owned())?;
        same("its own note", p.ask(&one.id, "read note")?, "data one".to_owned())?;
    }

    /// A snapshot holds the disks as they were at its moment, whatever is written later.
    fn a_snapshot_holds_disks_of_one_moment(p) if (p.can_continue() && p.capabilities().disks) {
        let vm = p.running("vm")?;
        p.ask(&vm.id, "write note before")?;
        let snapshot = p.capture(&vm, "snap")?;
        p.ask(&vm.id, "write note after")?;
        let clone = p.restored("clone", snapshot)?;
        same("the clone's note", p.ask(&clone.id, "read note")?, "data before".to_owned())?;
        same("the VM's note", p.ask(&vm.id, "read note")?, "data after".to_owned())?;
    }

    /// A snapshot holds memory as it was at its moment, and the captured VM goes on.
    fn a_snapshot_holds_memory_of_one_moment(p) if (p.can_continue()) {
        let vm = p.running("vm")?;
        p.ask(&vm.id, "name before")?;
        let snapshot = p.capture(&vm, "snap")?;
        p.ask(&vm.id, "name after")?;
        let clone = p.restored("clone", snapshot)?;
        same("the clone's name", told(p, "clone")?, Some("before".to_owned()))?;
        same("the VM's name", told(p, "vm")?, Some("after".to_owned()))?;
        p.destroy_vm(&vm.id)?;
        same("the clone's answer", p.ask(&clone.id, "echo on")?, "echo on".to_owned())?;
    }

    /// A clone can be captured in its turn, and its own clones continue it.
    fn a_clone_can_be_captured(p) if (p.can_continue()) {
        let vm = p.running("vm")?;
        p.ask(&vm.id, "name parent")?;
        let boot_id = p.agent(&vm.id)?.ping(p.patience())?.boot_id;
        p.stop_vm(&vm.id)?;
        let snapshot = p.capture(&vm, "snap")?;
        p.restored("clone", snapshot)?;
        let pong = p.agent(&p.id("clone"))?.ping(p.patience())?;
        same("the boot id", pong.boot_id, boot_id)?;
        same("the name", pong.name, Some("parent".to_owned()))?;
    }

    /// What was captured before its first boot boots when it is restored, each time anew.
    fn a_snapshot_of_a_created_vm_boots(p)
    if (p.capabilities().snapshot_created && p.can_continue()) {
        let vm = p.created("vm")?;
        let mut snapshot = p.capture(&vm, "snap")?;
        let mut boot_ids = Vec::new();
        for (text, resume_immediately) in [("one", true), ("two", true), ("three", false)] {
            snapshot.resume_immediately = resume_immediately;
            let clone = p.restored(text, snapshot.clone())?;
            if !resume_immediately {
                p.start_vm(&clone.id)?;
            }
            wait_ready(&**p, &clone.id, &Readiness::AgentAnswers, p.patience())?;
            boot_ids.push(p.agent(&clone.id)?.ping(p.patience())?.boot_id);
        }
        ensure!(boot_ids.iter().all(|id| id.len() > 1), "a guest did not boot: {boot_ids:?}");
        boot_ids.sort();
        boot_ids.dedup();
        same("the number of boots", boot_ids.len(), 3)?;
    }

    /// Whoever restores does not boot: what a boot would need is not looked at.
    fn a_restore_ignores_what_is_for_a_boot(p) if (p.capabilities().restore) {
        let spec = VmSpec {
            kernel: Some("/nonexistent/kernel".into()),
            rootfs: Some("/nonexistent/rootfs".into()),
            vcpu_count: 0,
            mem_size_mib: 0,
            boot_args: "two\nlines".to_owned(),
            ..restore_of(p.template()?.reference())
        };
        let vm = p.make("vm", &spec)?;
        same("the status", p.status(&vm.id), Some(VmStatus::Running))?;
    }

    /// Tags are the restored VM's own.
    fn a_restored_vm_has_its_own_tags(p) if (p.capabilities().restore) {
        let mut spec = restore_of(p.template()?.reference());
        std::sync::Arc::make_mut(&mut spec.tags).insert("pool".to_owned(), "default".to_owned());
        let vm = p.make("vm", &spec)?;
        same("the tags", p.view(&vm.id)?.tags, spec.tags)?;
        let other = p.restored("other", p.template()?.reference())?;
        ensure!(p.view(&other.id)?.tags.is_empty(), "a sibling has tags of another");
    }

    /// A restore can replace interfaces of the snapshot, in this one VM.
    fn a_restore_replaces_network_interfaces(p)
    if (p.can_continue() && p.capabilities().network_overrides) {
        let mut spec = p.fixture().spec.clone();
        spec.network_interfaces = vec![interface("eth0", "tap-template")];
        let vm = p.make("vm", &spec)?;
        p.start_vm(&vm.id)?;
        let mut snapshot = p.capture(&vm, "snap")?;
        snapshot.network_overrides = vec![interface("eth0", "tap-clone")];
        let clone = p.restored("clone", snapshot.clone())?;
        let seen = p.ask(&clone.id, "interfaces")?;
        same("the clone's interfaces", seen, "interfaces eth0=tap-clone".to_owned())?;
        let seen = p.ask(&vm.id, "interfaces")?;
        same("the VM's interfaces", seen, "interfaces eth0=tap-template".to_owned())?;

        snapshot.network_overrides = vec![interface("eth7", "tap-clone")];
        let unknown = p.create_vm_with_spec(&p.id("unknown"), &restore_of(snapshot));
        refused(unknown, "invalid_spec")?;
        same("the VM", p.get_vm(&p.id("unknown")), None)?;
    }

    /// A snapshot shows of which VM it is, under which name, and since when.
    fn a_snapshot_describes_itself(p) if (p.capabilities().restore) {
        let vm = p.running("vm")?;
        let reference = p.capture(&vm, "snap")?;
        let seen = p.snapshot(&reference)?;
        same("its VM", (seen.vm_uid, seen.vm_id.clone()), (vm.uid, vm.id.clone()))?;
        same("its name", seen.snapshot_id.as_str(), "snap")?;
        same("memory", seen.has_memory, p.capabilities().memory_in_snapshots)?;
        same("its pins", seen.pinned_by.clone(), vec![])?;
        same("all of them", p.snapshots(), vec![seen])?;
        p.stop_vm(&vm.id)?;
        p.capture(&vm, "a-second")?;
        let names = vec!["snap".to_owned(), "a-second".to_owned()];
        same("the names, in order", p.list_snapshots(&vm.id), Some(names))?;
    }
}

fn told(p: &Scene, text: &str) -> super::Outcome<Option<String>> {
    Ok(p.agent(&p.id(text))?.ping(p.patience())?.name)
}

fn interface(iface_id: &str, host_dev_name: &str) -> NetworkInterface {
    NetworkInterface {
        iface_id: iface_id.to_owned(),
        host_dev_name: host_dev_name.to_owned(),
        guest_mac: None,
    }
}
