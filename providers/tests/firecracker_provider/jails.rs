//! The jailer: roots, users, limits and process numbers of their own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hearth_providers::firecracker::{CgroupVersion, FirecrackerConfig, JailerConfig};
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};

use crate::Case;
use crate::firecracker_fake::Settings;
use crate::rig::{Host, Rig, id, kill, restored, snapshot_id, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("each_vm_has_a_root_and_a_user_of_its_own", each_vm_has_a_root_and_a_user_of_its_own),
    ("limits_of_cgroup_v1_bind_and_go", limits_of_cgroup_v1_bind_and_go),
    ("limits_of_cgroup_v2_bind_and_go", limits_of_cgroup_v2_bind_and_go),
    ("a_pid_namespace_changes_nothing", a_pid_namespace_changes_nothing),
    ("a_daemon_changes_nothing", a_daemon_changes_nothing),
    ("a_daemon_in_a_pid_namespace_changes_nothing", both),
    ("users_run_out_and_come_back", users_run_out_and_come_back),
    ("a_jail_that_was_left_is_no_obstacle", a_jail_that_was_left_is_no_obstacle),
    ("resource_limits_bind", resource_limits_bind),
];

fn jailed(host: &Host, configure: impl FnOnce(&mut JailerConfig)) -> Rig {
    Rig::with(host, &Settings::default(), |config: &mut FirecrackerConfig| {
        configure(config.jailer.as_mut().unwrap());
    })
}

fn user(rig: &Rig, name: &str) -> u32 {
    fs::metadata(format!("/proc/{}", rig.pid(name))).unwrap().uid()
}

/// By identity: a jailed process sees another path.
fn is_root_of(rig: &Rig, name: &str, root: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).unwrap();
    identity(Path::new(&format!("/proc/{}/root", rig.pid(name)))) == identity(root)
}

fn jail_of(rig: &Rig, name: &str) -> PathBuf {
    let dir = rig.instance_dir(name);
    let uid = dir.file_name().unwrap().to_owned();
    dir.join("jail").join("firecracker").join(uid).join("root")
}

fn each_vm_has_a_root_and_a_user_of_its_own(host: &Host) {
    let mut rig = jailed(host, |_| ());
    rig.template("template");
    rig.clone_as("one", "template", "ready");
    rig.clone_as("two", "template", "ready");
    let mut users: Vec<_> = ["template", "one", "two"].map(|name| user(&rig, name)).to_vec();
    users.sort_unstable();
    assert_eq!(users, [100_000, 100_001, 100_002]);
    for name in ["template", "one", "two"] {
        assert!(is_root_of(&rig, name, &jail_of(&rig, name)), "{name} is not in its jail");
    }
    assert!(!jail_of(&rig, "one").join("loaded.memory").exists(), "it is loaded");
    // Taken up, they keep their users, and no new VM gets one of them.
    rig.restart();
    rig.counts_past("one", rig.last_count("one"));
    rig.clone_as("three", "template", "ready");
    assert_eq!(user(&rig, "three"), 100_003);
    rig.provider().snapshot_vm(&id("one"), &snapshot_id("again")).unwrap();
    rig.clone_as("grandchild", "one", "again");
    rig.counts_past("grandchild", rig.last_count("grandchild") + 1);
    for name in ["template", "one", "two", "three", "grandchild"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

/// The cgroups of jails below a hierarchy, but for their parent.
fn cgroups(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below.join("hearth-jails")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn binds(host: &Host, version: CgroupVersion, hierarchy: &Path, limit: &str) {
    let rig = jailed(host, |jailer| {
        jailer.cgroup_version = version;
        jailer.cgroups = vec![limit.to_owned()];
    });
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    let (file, value) = limit.split_once('=').unwrap();
    for name in ["template", "clone"] {
        let uid = rig.provider().get_vm(&id(name)).unwrap().uid.to_string();
        let cgroup = hierarchy.join("hearth-jails").join(uid);
        assert_eq!(fs::read_to_string(cgroup.join(file)).unwrap().trim(), value);
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), rig.pid(name).to_string());
    }
    kill(rig.pid("clone"));
    wait_until("its end is seen", || rig.status("clone") == Some(VmStatus::Failed));
    let mine: Vec<_> = ["template", "clone"]
        .map(|name| rig.provider().get_vm(&id(name)).unwrap().uid.to_string())
        .to_vec();
    for name in ["template", "clone"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    let left = cgroups(hierarchy);
    let is_mine = |path: &PathBuf| mine.iter().any(|uid| path.ends_with(uid));
    assert!(!left.iter().any(is_mine), "{left:?}");
}

fn limits_of_cgroup_v1_bind_and_go(host: &Host) {
    binds(host, CgroupVersion::V1, Path::new("/sys/fs/cgroup/pids"), "pids.max=64");
}

fn limits_of_cgroup_v2_bind_and_go(host: &Host) {
    let mount = v2_mount().expect("the case is not run without it");
    binds(host, CgroupVersion::V2, &mount, "pids.max=64");
}

/// Where version 1 can limit the number of processes, or why it cannot.
pub(crate) fn missing_v1() -> Option<String> {
    let found = Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists();
    (!found).then(|| "this host has no pids controller of cgroup version 1".to_owned())
}

/// Where version 2 can limit the number of processes, or why it cannot.
pub(crate) fn missing_v2() -> Option<String> {
    let found = v2_mount().is_some();
    (!found).then(|| "this host has no pids controller of cgroup version 2".to_owned())
}

fn v2_mount() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from).into_iter().find(|mount| {
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        controllers.split_ascii_whitespace().any(|it| it == "pids")
    })
}

/// Boots, clones, restarts and destroys with jails that are made as configured.
fn changes_nothing(host: &Host, configure: impl FnOnce(&mut JailerConfig)) {
    let mut rig = jailed(host, configure);
    rig.template("template");
    rig.clone_as("clone", "template", "ready");
    for name in ["template", "clone"] {
        assert!(is_root_of(&rig, name, &jail_of(&rig, name)), "the process is the right one");
        let executable = fs::read_link(format!("/proc/{}/exe", rig.pid(name))).unwrap();
        assert!(!executable.ends_with("jailer"), "{executable:?}");
    }
    let pid = rig.pid("clone");
    rig.restart();
    assert_eq!(rig.pid("clone"), pid);
    rig.counts_past("clone", rig.last_count("clone"));
    kill(pid);
    wait_until("its end is seen", || rig.status("clone") == Some(VmStatus::Failed));
    for name in ["template", "clone"] {
        rig.provider().destroy_vm(&id(name)).unwrap();
    }
    rig.assert_instances(0);
}

fn a_pid_namespace_changes_nothing(host: &Host) {
    changes_nothing(host, |jailer| jailer.new_pid_ns = true);
}

fn a_daemon_changes_nothing(host: &Host) {
    changes_nothing(host, |jailer| jailer.daemonize = true);
}

fn both(host: &Host) {
    changes_nothing(host, |jailer| {
        jailer.new_pid_ns = true;
        jailer.daemonize = true;
    });
}

fn users_run_out_and_come_back(host: &Host) {
    let rig = jailed(host, |jailer| jailer.uid_count = 2);
    rig.template("template");
    rig.clone_as("one", "template", "ready");
    let spec = restored("template", "ready", true);
    let error = rig.provider().create_vm_with_spec(&id("two"), &spec).unwrap_err();
    assert_eq!(error.kind(), "exhausted", "{error}");
    assert!(error.to_string().contains("2 users from 100000"), "{error}");
    rig.assert_instances(2);
    rig.provider().destroy_vm(&id("one")).unwrap();
    rig.clone_as("two", "template", "ready");
    assert_eq!(user(&rig, "two"), 100_001);
}

fn a_jail_that_was_left_is_no_obstacle(host: &Host) {
    let rig = jailed(host, |_| ());
    rig.provider().create_vm_with_spec(&id("vm"), &rig.cold_spec()).unwrap();
    // As an earlier start leaves it that hearth did not live to clean up after.
    let jail = jail_of(&rig, "vm");
    fs::create_dir_all(jail.join("dev/net")).unwrap();
    fs::write(jail.join("dev/net/tun"), b"").unwrap();
    fs::write(jail.join("api.sock"), b"").unwrap();
    rig.provider().start_vm(&id("vm")).unwrap();
    rig.counts_past("vm", 1);
}

fn resource_limits_bind(host: &Host) {
    let rig = jailed(host, |jailer| jailer.resource_limits = vec!["no-file=512".to_owned()]);
    rig.boot("vm", &rig.cold_spec());
    let limits = fs::read_to_string(format!("/proc/{}/limits", rig.pid("vm"))).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = files.split_ascii_whitespace().nth(3);
    // The fake takes the argument as the real one does; it is the real one that sets the limit.
    assert!(host.firecracker.is_none() || soft == Some("512"), "{files}");
}
