//! Jails: a root directory, a user and limits of its own for each VM, by Firecracker's jailer.
//!
//! The jail lies in the instance's directory, so it goes with it, and on one file system with
//! the drives and snapshots that are linked into it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::blueprint::Jail;
use super::config::{CgroupVersion, JailerConfig};
use crate::error::{Result, VmRuntimeError};
use crate::supervise::cgroup::PARENT_OF_JAILS;

/// In the instance's directory: what the jailer calls its base directory.
const BASE: &str = "jail";

/// Gives jails to machines.
#[derive(Debug)]
pub(super) struct Jails {
    pub(super) program: PathBuf,
    pub(super) config: JailerConfig,
    binary: PathBuf,
    /// What the jailer calls the program: its file's name.
    binary_name: String,
    /// Where cgroups with limits are made: one directory for each hierarchy in use.
    cgroup_parents: Vec<PathBuf>,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

/// A user that a machine has, until this is dropped.
#[derive(Debug)]
pub(super) struct UserLease {
    uid: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl Drop for UserLease {
    fn drop(&mut self) {
        self.taken.lock().remove(&self.uid);
    }
}

impl Jails {
    /// # Errors
    /// `Backend` when this host or user cannot make jails as configured, saying why.
    pub(super) fn new(program: PathBuf, config: JailerConfig, binary: &Path) -> Result<Self> {
        let refuse = |what: String| VmRuntimeError::Backend { what, source: None };
        if !rustix::process::geteuid().is_root() {
            return Err(refuse("the jailer needs root, and this is another user".to_owned()));
        }
        let last = config.uid_count.checked_sub(1).and_then(|n| config.first_uid.checked_add(n));
        if config.first_uid == 0 || last.is_none_or(|last| last == u32::MAX) {
            let (first, count) = (config.first_uid, config.uid_count);
            return Err(refuse(format!("{count} users from {first} on are no range for jails")));
        }
        // The jailer follows links, and calls the program what it finds at their end.
        let binary = &binary.canonicalize().unwrap_or_else(|_| binary.to_owned());
        let name = binary.file_name().and_then(|name| name.to_str());
        let binary_name = name.ok_or_else(|| {
            refuse(format!("{} is no name that a jail can have", binary.display()))
        })?;
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let cgroup_parents = cgroup_parents(&mounts, &config).map_err(refuse)?;
        Ok(Self {
            program,
            binary: binary.to_owned(),
            binary_name: binary_name.to_owned(),
            cgroup_parents,
            config,
            taken: Arc::default(),
        })
    }

    /// The jail of the machine `id`, with a user that no other machine has.
    ///
    /// # Errors
    /// `Exhausted` when all users of the range are taken.
    pub(super) fn assign(&self, id: &str) -> Result<(Jail, UserLease)> {
        let (first, count) = (self.config.first_uid, self.config.uid_count);
        let mut taken = self.taken.lock();
        let uid = (first..first + count).find(|uid| !taken.contains(uid));
        let uid = uid.ok_or_else(|| VmRuntimeError::Exhausted {
            what: format!("the jailer's range of {count} users from {first} on"),
            retry_after: None,
        })?;
        taken.insert(uid);
        let root = Path::new(BASE).join(&self.binary_name).join(id).join("root");
        let cgroups = self.cgroup_parents.iter().map(|parent| parent.join(id)).collect();
        Ok((Jail { uid, root, cgroups }, self.lease(uid)))
    }

    /// Takes the user of a machine that lives already.
    pub(super) fn adopt(&self, jail: &Jail) -> UserLease {
        self.taken.lock().insert(jail.uid);
        self.lease(jail.uid)
    }

    /// The jailer's arguments for the machine `id` in `dir`, before those of Firecracker.
    pub(super) fn arguments(&self, id: &str, dir: &Path, jail: &Jail) -> Vec<OsString> {
        let config = &self.config;
        let user = jail.uid.to_string();
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--id", id.into());
        add("--exec-file", self.binary.clone().into());
        add("--uid", user.clone().into());
        add("--gid", user.into());
        add("--chroot-base-dir", dir.join(BASE).into());
        if !config.cgroups.is_empty() {
            let version = if config.cgroup_version == CgroupVersion::V1 { "1" } else { "2" };
            add("--cgroup-version", version.into());
            add("--parent-cgroup", PARENT_OF_JAILS.into());
        }
        config.cgroups.iter().for_each(|limit| add("--cgroup", limit.into()));
        config.netns.iter().for_each(|netns| add("--netns", netns.into()));
        config.resource_limits.iter().for_each(|limit| add("--resource-limit", limit.into()));
        let flags = [("--new-pid-ns", config.new_pid_ns), ("--daemonize", config.daemonize)];
        arguments.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag.into()));
        arguments.push("--".into());
        arguments
    }

    /// Where the jailer leaves the number of a process that is not its own.
    pub(super) fn pid_file(&self, home: &Path) -> Option<PathBuf> {
        let leaves = self.config.new_pid_ns || self.config.daemonize;
        leaves.then(|| home.join(format!("{}.pid", self.binary_name)))
    }

    /// Whether the limits bind `pid`: it is in every cgroup that was to be made for it.
    ///
    /// # Errors
    /// `Backend` naming the first that it is not in.
    pub(super) fn check_limits(&self, jail: &Jail, pid: u32) -> Result<()> {
        for dir in &jail.cgroups {
            let members = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            if !members.lines().any(|member| member.parse() == Ok(pid)) {
                let what = format!("the limits of {} do not bind process {pid}", dir.display());
                return Err(VmRuntimeError::Backend { what, source: None });
            }
        }
        Ok(())
    }

    fn lease(&self, uid: u32) -> UserLease {
        UserLease { uid, taken: Arc::clone(&self.taken) }
    }
}

/// Where the jailer will make its cgroups: below the mount of each controller that has a limit,
/// or below the one of version 2.
fn cgroup_parents(mounts: &str, config: &JailerConfig) -> Result<Vec<PathBuf>, String> {
    let mounted = |kind: &str, controller: Option<&str>| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (path, of, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
            let has = |wanted: &str| options.split(',').any(|option| option == wanted);
            (of == kind && controller.is_none_or(has)).then(|| PathBuf::from(path))
        })
    };
    let mut parents = BTreeSet::new();
    for limit in &config.cgroups {
        let file = limit.split_once('=').map(|(file, _)| file);
        let controller = file.and_then(|file| file.split_once('.')).map(|(name, _)| name);
        let controller = controller.ok_or_else(|| format!("{limit:?} is no file=value"))?;
        let mount = match config.cgroup_version {
            CgroupVersion::V1 => mounted("cgroup", Some(controller)),
            CgroupVersion::V2 => mounted("cgroup2", None).filter(|mount| {
                let available = std::fs::read_to_string(mount.join("cgroup.controllers"));
                available.is_ok_and(|it| it.split_ascii_whitespace().any(|it| it == controller))
            }),
        };
        let mount = mount.ok_or_else(|| {
            format!("this host has no {controller} controller of {:?}", config.cgroup_version)
        })?;
        parents.insert(mount.join(PARENT_OF_JAILS));
    }
    Ok(parents.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jails(config: JailerConfig) -> Jails {
        let binary = PathBuf::from("/bin/firecracker");
        Jails {
            program: "/bin/jailer".into(),
            config,
            binary_name: "firecracker".to_owned(),
            binary,
            cgroup_parents: Vec::new(),
            taken: Arc::default(),
        }
    }

    #[test]
    fn users_are_given_once_and_again_when_they_are_free() {
        let jails = jails(JailerConfig { first_uid: 100, uid_count: 2, ..JailerConfig::new() });
        let (one, _kept) = jails.assign("one").unwrap();
        let (two, other) = jails.assign("two").unwrap();
        assert_eq!((one.uid, two.uid), (100, 101));
        assert_eq!(jails.assign("three").unwrap_err().kind(), "exhausted");
        drop(other);
        assert_eq!(jails.assign("three").unwrap().0.uid, 101);
        let adopted = Jail { uid: 101, ..two };
        let _adopted = jails.adopt(&adopted);
        assert_eq!(jails.assign("four").unwrap_err().kind(), "exhausted");
    }

    #[test]
    fn every_setting_becomes_an_argument() {
        let jails = jails(JailerConfig {
            cgroup_version: CgroupVersion::V1,
            cgroups: vec!["pids.max=64".to_owned()],
            netns: Some("/run/netns/vms".into()),
            resource_limits: vec!["no-file=512".to_owned()],
            new_pid_ns: true,
            ..JailerConfig::new()
        });
        let (jail, _lease) = jails.assign("id").unwrap();
        let arguments = jails.arguments("id", Path::new("/state/x"), &jail);
        let text: Vec<_> = arguments.iter().map(|it| it.to_string_lossy()).collect();
        assert_eq!(
            text.join(" "),
            "--id id --exec-file /bin/firecracker --uid 100000 --gid 100000 \
             --chroot-base-dir /state/x/jail --cgroup-version 1 --parent-cgroup hearth-jails \
             --cgroup pids.max=64 --netns /run/netns/vms --resource-limit no-file=512 \
             --new-pid-ns --"
        );
        assert_eq!(jail.root, Path::new("jail/firecracker/id/root"));
        assert!(jails.pid_file(Path::new("/r")).is_some());
    }

    #[test]
    fn limits_want_their_controllers() {
        let mounts = "cgroup /cg/pids cgroup rw,pids 0 0\ncgroup2 /cg/two cgroup2 rw 0 0\n";
        let config = |limit: &str| JailerConfig {
            cgroup_version: CgroupVersion::V1,
            cgroups: vec![limit.to_owned()],
            ..JailerConfig::new()
        };
        let found = cgroup_parents(mounts, &config("pids.max=64")).unwrap();
        assert_eq!(found, [PathBuf::from("/cg/pids/hearth-jails")]);
        assert!(cgroup_parents(mounts, &config("memory.max=1")).is_err());
        assert!(cgroup_parents(mounts, &config("pids")).is_err());
    }
}
