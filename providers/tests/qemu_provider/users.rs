//! QEMUs that become a user of their own. Where this is not root they are refused, which is shown instead.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use hearth_providers::env::SystemEnv;
use hearth_providers::model::SnapshotSource;
use hearth_providers::qemu::{QemuBackend, QemuConfig};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{VmProvider as _, VmQuery as _, VmRuntimeError, VmStatus};

use crate::rig::{
    LONG, Rig, ask, cold_spec, counts_past, id, ping, restored, snapshot_id, template_pong,
};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_user_of_its_own_has_no_rights", a_user_of_its_own_has_no_rights),
    ("a_user_of_its_own_reaches_nothing", a_user_of_its_own_reaches_nothing),
    ("vms_stay_who_they_are_when_the_user_changes", vms_stay_who_they_are),
];

/// Of a user that no machine has.
const ONE: &str = "7071:7072";
const OTHER: &str = "7073:7074";

fn of(user: &str) -> QemuConfig {
    QemuConfig { user: Some(user.parse().unwrap()), ..QemuConfig::default() }
}

/// Whether QEMUs can become users here; where they cannot, hearth says why.
fn can_become() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let refused = QemuBackend::new(of(ONE), std::sync::Arc::new(SystemEnv)).unwrap_err();
        assert!(matches!(refused, VmRuntimeError::Backend { .. }), "{refused}");
        assert!(refused.to_string().contains("only where hearth is root"), "{refused}");
    }
    is_root
}

/// What the kernel says of a process of `name` after `field`.
fn status(rig: &Rig, name: &str, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", rig.pid(name))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn uid(rig: &Rig, name: &str) -> String {
    status(rig, name, "Uid:").split(' ').next().unwrap().to_owned()
}

/// From boot to a clone of a clone: a QEMU that has become another user opens no path of the state directory.
fn a_user_of_its_own_has_no_rights() {
    if !can_become() {
        return;
    }
    let rig = Rig::with(of(ONE));
    let provider = rig.provider();
    provider.create_vm_with_spec(&id("booted"), &cold_spec()).unwrap();
    provider.start_vm(&id("booted")).unwrap();
    wait_ready(provider, &id("booted"), &Readiness::AgentAnswers, LONG).unwrap();
    provider.snapshot_vm(&id("booted"), &snapshot_id("first")).unwrap();
    let of = |name| SnapshotSource::Name(id(name));
    provider.create_vm_with_spec(&id("clone"), &restored(of("booted"), "first", true)).unwrap();
    assert_eq!(ask(provider, "clone", "write note clone"), "ok bytes=5");
    provider.snapshot_vm(&id("clone"), &snapshot_id("second")).unwrap();
    provider.create_vm_with_spec(&id("third"), &restored(of("clone"), "second", true)).unwrap();
    assert_eq!(ask(provider, "third", "read note"), "data clone");
    provider.stop_vm(&id("third")).unwrap();
    provider.start_vm(&id("third")).unwrap();
    rig.clone_as("of-root");
    for name in ["booted", "clone", "third", "of-root"] {
        ping(provider, name);
        assert_eq!(status(&rig, name, "Uid:"), "7071 7071 7071 7071", "{name}");
        assert_eq!(status(&rig, name, "Gid:"), "7072 7072 7072 7072", "{name}");
        assert_eq!(status(&rig, name, "Groups:"), "7072", "{name}");
        for rights in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(status(&rig, name, rights), "0000000000000000", "{name} {rights}");
        }
        // Its filter is there, and no program that it could start would be more than it is.
        assert_eq!(status(&rig, name, "Seccomp:"), "2", "{name}");
        assert_eq!(status(&rig, name, "NoNewPrivs:"), "1", "{name}");
    }
}

/// Everything that a VM has on disk stays root's, and the way to it closed to the user.
fn a_user_of_its_own_reaches_nothing() {
    if !can_become() {
        return;
    }
    let rig = Rig::with(of(ONE));
    // The server closes the state directory itself; here everybody may pass it and what is above.
    for open in [rig.state.parent().unwrap(), &rig.state] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    rig.clone_as("one");
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("later")).unwrap();
    let mut count = 0;
    let mut dirs: Vec<_> = ["instances", "snapshots"].map(|it| rig.state.join(it)).into();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            assert_eq!((found.uid(), found.gid()), (0, 0), "{}", path.display());
            assert!(!is_seen_by_user(&path), "{}", path.display());
            count += 1;
            if found.is_dir() {
                dirs.push(path);
            }
        }
    }
    assert!(count > 10, "instances and snapshots were looked at: {count}");
    assert!(is_seen_by_user(&rig.state), "as what is open to it is");
    // Nor can one that is the user look into another.
    let files = format!("/proc/{}/fd/0", rig.pid("one"));
    assert!(!is_seen_by_user(Path::new(&files)) && Path::new(&files).exists());
}

fn is_seen_by_user(path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "7071", "--regid", "7072", "--clear-groups", "test", "-e"]);
    let status = command.arg(path).status().unwrap();
    // 127: it was not run.
    assert!(status.code().is_some_and(|code| code <= 1), "{status}");
    status.success()
}

/// From no user to one, to another and back: what runs goes on as who it is, and each restore and start is by the
/// configuration of the moment, whoever wrote the snapshot.
fn vms_stay_who_they_are() {
    if !can_become() {
        return;
    }
    let mut rig = Rig::new();
    rig.clone_as("of-root");
    rig.provider().create_vm_with_spec(&id("created"), &cold_spec()).unwrap();
    let pid = rig.pid("of-root");
    for (count, (config, user)) in
        [(of(ONE), "7071"), (of(OTHER), "7073"), (QemuConfig::default(), "0")]
            .into_iter()
            .enumerate()
    {
        let report = rig.restart_with(config);
        assert_eq!((report.adopted, report.reaped_instances), (2 + 2 * count, 0), "{report:?}");
        // What was there is as it was, whoever wrote its files.
        assert_eq!((rig.pid("of-root"), uid(&rig, "of-root")), (pid, "0".to_owned()));
        counts_past(rig.provider(), "of-root", template_pong().counter);
        if count == 0 {
            rig.provider().start_vm(&id("created")).unwrap();
            wait_ready(rig.provider(), &id("created"), &Readiness::AgentAnswers, LONG).unwrap();
        }
        assert_eq!(uid(&rig, "created"), "7071");
        // Of one by another: a snapshot of each that runs, and a clone of that.
        for source in ["of-root", "created"] {
            let (name, snapshot) = (format!("{source}-{user}"), format!("as-{user}"));
            rig.provider().snapshot_vm(&id(source), &snapshot_id(&snapshot)).unwrap();
            let spec = restored(SnapshotSource::Name(id(source)), &snapshot, true);
            rig.provider().create_vm_with_spec(&id(&name), &spec).unwrap();
            ping(rig.provider(), &name);
            assert_eq!(uid(&rig, &name), user, "{name}");
        }
    }
    // Their end is seen, and brought about, whoever they are.
    for name in ["of-root", "created", "of-root-7071", "created-7073", "created-0"] {
        rig.provider().pause_vm(&id(name)).unwrap();
        assert_eq!(rig.provider().status(&id(name)), Some(VmStatus::Stopped));
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(3);
}
