//! The processes that run VMs, where each has one: shown while they live, and never left behind.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::case::cases;
use super::outcome::{Broken, Outcome, ensure, same};
use super::scene::{Scene, Vm};
use crate::model::{VmStatus, VmmProcess};

cases! {
    /// Every VM that runs shows a process of its own, and one that was never started shows none.
    fn a_running_vm_shows_its_process(p) if (p.has_processes) {
        let (one, other) = (p.running("one")?, p.running("other")?);
        let (first, second) = (process(p, &one)?, process(p, &other)?);
        ensure!(first.pid != second.pid, "two VMs have one process");
        ensure!(first.executable.is_file(), "its executable is {}", first.executable.display());
        ensure!(lives(&first) && lives(&second), "a process is not there");
        let created = p.created("created")?;
        same("its process", p.get_vm(&created.id).and_then(|vm| vm.process), None)?;
    }

    /// A process is its VM's through stop, start and rename.
    fn a_process_is_its_vms_for_life(p) if (p.has_processes) {
        let vm = p.running("vm")?;
        let before = process(p, &vm)?;
        p.stop_vm(&vm.id)?;
        p.start_vm(&vm.id)?;
        p.rename_vm(&vm.id, &p.id("renamed"))?;
        let renamed = Vm { id: p.id("renamed"), ..vm };
        same("the process", process(p, &renamed)?, before)?;
    }

    /// A destroyed VM's process is gone, whether it ran or stood still.
    fn the_end_of_a_vm_ends_its_process(p) if (p.has_processes) {
        for status in [VmStatus::Running, VmStatus::Stopped] {
            let vm = p.vm_in("vm", status)?;
            let process = process(p, &vm)?;
            p.destroy_vm(&vm.id)?;
            ensure!(!lives(&process), "the process of a destroyed VM lives");
        }
    }

    /// A VM whose process is killed from outside reads Failed, says how, and is reported.
    fn a_killed_process_is_a_failed_vm(p) if (p.has_processes) {
        for (text, status) in [("running", VmStatus::Running), ("stopped", VmStatus::Stopped)] {
            let vm = p.vm_in(text, status)?;
            let process = process(p, &vm)?;
            kill(&process)?;
            p.until("the VM reads Failed", || p.status(&vm.id) == Some(VmStatus::Failed))?;
            let failure = p.get_vm(&vm.id).and_then(|vm| vm.failure);
            let exit_status = failure.and_then(|failure| failure.exit_status);
            same("the exit status", exit_status, Some(128 + 9))?;
            same("its process", p.get_vm(&vm.id).and_then(|vm| vm.process), None)?;
            if p.capabilities().reports_exits {
                p.until("the observer was called", || p.fixture().saw_end_of(vm.uid))?;
            }
            p.destroy_vm(&vm.id)?;
        }
    }
}

fn process(p: &Scene, vm: &Vm) -> Outcome<VmmProcess> {
    let process = p.get_vm(&vm.id).and_then(|vm| vm.process);
    process.ok_or_else(|| Broken::new(format!("{} shows no process", vm.id)))
}

/// True while the process is there and not only remembered.
fn lives(process: &VmmProcess) -> bool {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(process.pid.to_string()).join("stat"));
    status.is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(process: &VmmProcess) -> Outcome {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Broken::new("its pid is none"))?;
    kill_process(pid, Signal::KILL).map_err(Broken::new)
}
