//! Clones whose memory a page fault handler fills: on our fake and on the real one.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_providers::firecracker::MemoryBackend;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};
use rustix::mm::UserfaultfdFlags;
use tempfile::TempDir;

use crate::Case;
use crate::firecracker_fake::Settings;
use crate::firecracker_fake::uffd::Faulting;
use crate::page_fault_handler::{install, script, serve};
use crate::rig::{Host, Rig, id, kill, restored, snapshot_id, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("clones_by_page_faults_go_on_where_the_template_stood", clones_by_page_faults_go_on),
    ("a_killed_handler_is_a_failed_vm", a_killed_handler_is_a_failed_vm),
    ("a_killed_firecracker_takes_its_handler_along", a_killed_firecracker),
    ("a_destroyed_vm_takes_its_handler_along", a_destroyed_vm),
    ("handlers_run_on_without_hearth_and_are_taken_up", handlers_run_on_without_hearth),
    ("a_handler_that_died_meanwhile_is_a_failed_vm", a_handler_that_died_meanwhile),
    ("a_half_made_clone_is_reaped_with_its_handler", a_half_made_clone_is_reaped),
    ("a_handler_that_does_not_serve_is_told_and_leaves_nothing", a_handler_that_does_not_serve),
];

/// What is of the handler of these cases itself.
pub(crate) const OF_THE_HANDLER: &[Case] =
    &[("memory_that_is_given_back_is_zero", memory_that_is_given_back_is_zero)];

/// The records of a clone's processes, in its directory.
const FIRECRACKER: &str = "vmm.json";
const HANDLER: &str = "uffd.json";

pub(crate) fn is_one(name: &str) -> bool {
    [ALL, OF_THE_HANDLER].iter().any(|cases| cases.iter().any(|(it, _)| *it == name))
}

/// Why nobody can answer the page faults of others on this host.
pub(crate) fn missing(host: &Host) -> Option<String> {
    if host.firecracker.is_none() {
        let error = Faulting::new(4096).err();
        return error.map(|error| format!("this host has no userfaultfd: {error}"));
    }
    // SAFETY: it is closed at once, and no memory was registered with it.
    let allowed = unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) }.map(drop);
    // The jailer makes the device for its user, if the host has it.
    let everybody = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    let everybody = everybody.is_ok_and(|setting| setting.trim() == "1");
    match (allowed, Path::new("/dev/userfaultfd").exists()) {
        (_, true) => None,
        (Ok(()), false) if everybody || !host.jailed => None,
        (Ok(()), false) => Some("this host has no /dev/userfaultfd for jailed users".to_owned()),
        (Err(error), false) => Some(format!("this host has no userfaultfd: {error}")),
    }
}

/// With the directory that the handler's program lies in.
fn rig(host: &Host) -> (TempDir, Rig) {
    let programs = tempfile::tempdir().unwrap();
    let handler = install(programs.path(), true);
    let rig = Rig::with(host, &Settings::default(), |config| {
        config.memory = MemoryBackend::Uffd { handler };
    });
    (programs, rig)
}

/// The cgroups of a clone and of its handler, as far as this host lets us make any.
fn cgroups(rig: &Rig, name: &str) -> Vec<PathBuf> {
    let of = |record| rig.record(name, record).cgroup;
    let cgroups: Vec<_> = [FIRECRACKER, HANDLER].into_iter().filter_map(of).collect();
    assert!(cgroups.iter().all(|cgroup| cgroup.is_dir()), "{cgroups:?}");
    cgroups
}

fn assert_gone(cgroups: &[PathBuf]) {
    let left: Vec<_> = cgroups.iter().filter(|cgroup| cgroup.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Waits until the VM is failed; answers why.
fn failure_of(rig: &Rig, name: &str) -> String {
    wait_until("its end is seen", || rig.status(name) == Some(VmStatus::Failed));
    let view = rig.provider().get_vm(&id(name)).unwrap();
    assert_eq!(view.process, None);
    view.failure.unwrap().reason
}

fn clones_by_page_faults_go_on(host: &Host) {
    let (_programs, rig) = rig(host);
    rig.template("template");
    let last = rig.last_count("template");
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(|| rig.clone_as(name, "template", "ready"));
        }
    });
    for name in ["one", "two"] {
        rig.counts_past(name, last + 2);
        assert_eq!(rig.counts(name)[0], last + 1, "{name} goes on where the template stood");
        assert_eq!(rig.provider().prefault_vm(&id(name)).unwrap(), 0, "that is its handler's");
        let handler = rig.record(name, HANDLER).pid;
        let open = fs::read_dir(format!("/proc/{handler}/fd")).unwrap().flatten();
        let mut open = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        assert!(
            open.any(|it| it.ends_with("anon_inode:[userfaultfd]")),
            "the handler of {name} has no faults to answer"
        );
    }
    assert_ne!(rig.record("one", HANDLER).pid, rig.record("two", HANDLER).pid);
    // All that was never touched comes from a file that has no name any more.
    rig.provider().destroy_vm(&id("template")).unwrap();
    rig.provider().stop_vm(&id("one")).unwrap();
    let last = rig.last_count("one");
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("again")).unwrap();
    rig.clone_as("grandchild", "one", "again");
    rig.counts_past("grandchild", last + 2);
    assert_eq!(rig.counts("grandchild")[0], last + 1);
    for name in ["one", "two", "grandchild"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

fn a_killed_handler_is_a_failed_vm(host: &Host) {
    let (_programs, rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let cgroups = cgroups(&rig, "clone");
    kill(rig.record("clone", HANDLER).pid);
    let reason = failure_of(&rig, "clone");
    assert!(reason.contains("page fault handler was ended by signal 9"), "{reason}");
    assert_eq!(rig.processes(), [rig.pid("template")]);
    rig.provider().destroy_vm(&id("clone")).unwrap();
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn a_killed_firecracker(host: &Host) {
    let (_programs, rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let cgroups = cgroups(&rig, "clone");
    kill(rig.pid("clone"));
    let reason = failure_of(&rig, "clone");
    assert!(reason.contains("Firecracker was ended by signal 9"), "{reason}");
    wait_until("the handler is gone", || rig.processes() == [rig.pid("template")]);
    rig.provider().destroy_vm(&id("clone")).unwrap();
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn a_destroyed_vm(host: &Host) {
    let (_programs, rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let cgroups = cgroups(&rig, "clone");
    assert_eq!(rig.processes().len(), 3);
    rig.provider().destroy_vm(&id("clone")).unwrap();
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn handlers_run_on_without_hearth(host: &Host) {
    let (_programs, mut rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let (cgroups, pid) = (cgroups(&rig, "clone"), rig.pid("clone"));
    let handler = rig.record("clone", HANDLER).pid;
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (2, 0), "{report:?}");
    assert_eq!((rig.status("clone"), rig.pid("clone")), (Some(VmStatus::Running), pid));
    assert!(rig.processes().contains(&handler));
    rig.counts_past("clone", rig.last_count("clone") + 1);
    // What it never touched is brought by the handler still.
    rig.provider().snapshot_vm(&id("clone"), &snapshot_id("again")).unwrap();
    kill(handler);
    let reason = failure_of(&rig, "clone");
    assert!(reason.contains("page fault handler"), "{reason}");
    rig.provider().destroy_vm(&id("clone")).unwrap();
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn a_handler_that_died_meanwhile(host: &Host) {
    let (_programs, mut rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let cgroups = cgroups(&rig, "clone");
    let handler = rig.record("clone", HANDLER).pid;
    rig.stop();
    kill(handler);
    wait_until("it is gone", || !rig.processes().contains(&handler));
    rig.provider_again();
    let reason = failure_of(&rig, "clone");
    assert!(reason.contains("page fault handler ended while hearth did not run"), "{reason}");
    assert_eq!(rig.processes(), [rig.pid("template")]);
    rig.provider().destroy_vm(&id("clone")).unwrap();
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn a_half_made_clone_is_reaped(host: &Host) {
    let (_programs, mut rig) = rig(host);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let (cgroups, dir) = (cgroups(&rig, "clone"), rig.instance_dir("clone"));
    // hearth was killed before it wrote down that the clone is made.
    for file in fs::read_dir(&dir).unwrap().flatten() {
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("instance")) {
            fs::remove_file(file.path()).unwrap();
        }
    }
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (1, 1), "{report:?}");
    assert_gone(&cgroups);
    rig.assert_instances(1);
}

fn a_handler_that_does_not_serve(host: &Host) {
    let (programs, mut rig) = rig(host);
    rig.template("template");
    let programs = programs.path();
    let (good, usual) = (rig.config.memory.clone(), rig.config.start_timeout);
    let useless = [
        (programs.join("nowhere"), "backend", "nowhere"),
        (script(programs, "refuses", "echo no; exit 3"), "backend", "exited with status 3"),
        (script(programs, "sleeps", "exec sleep 600"), "timeout", "to listen"),
        (install(programs, false), "backend", "page fault handler exited with status 0"),
    ];
    for (handler, kind, says) in useless {
        rig.config.start_timeout = if kind == "timeout" { Duration::from_secs(1) } else { usual };
        rig.config.memory = MemoryBackend::Uffd { handler };
        rig.restart();
        let spec = restored("template", "ready", true);
        let error = rig.provider().create_vm_with_spec(&id("clone"), &spec).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        rig.assert_instances(1);
    }
    (rig.config.memory, rig.config.start_timeout) = (good, usual);
    rig.restart();
    rig.clone_as("clone", "template", "ready");
    rig.counts_past("clone", rig.last_count("template") + 2);
}

fn memory_that_is_given_back_is_zero(_: &Host) {
    const PAGE_BYTES: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("memory"), dir.path().join("socket"));
    fs::write(&file, vec![7; 3 * PAGE_BYTES]).unwrap();
    let memory = Faulting::new(3 * PAGE_BYTES as u64).unwrap();
    let byte = |page: usize| {
        let mut byte = [1];
        memory.read(&mut byte, (page * PAGE_BYTES + 5) as u64);
        byte[0]
    };
    std::thread::scope(|scope| {
        let served = scope.spawn(|| serve(&socket, &file, true));
        wait_until("it listens", || socket.exists());
        let mut connection = None;
        wait_until("it can be talked to", || {
            connection = UnixStream::connect(&socket).ok();
            connection.is_some()
        });
        let connection = connection.unwrap();
        memory.hand_over(&connection).unwrap();
        assert_eq!((byte(0), byte(1)), (7, 7));
        memory.remove(PAGE_BYTES as u64, 2 * PAGE_BYTES).unwrap();
        assert_eq!((byte(0), byte(1), byte(2)), (7, 0, 0));
        drop(connection);
        served.join().unwrap().unwrap();
    });
}
