//! A cgroup for each process, outside of hearth's own: what stops hearth's service stops the
//! processes in its cgroup, and VMs are to live on.
//!
//! Best effort: without the right to make cgroups processes stay where hearth is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::statfs;

/// The directory that holds the cgroups of all processes.
const PARENT: &str = "hearth-vms";
/// The one that holds those that a jailer makes for us.
pub(crate) const PARENT_OF_JAILS: &str = "hearth-jails";

/// Where processes get cgroups of their own.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// Beside hearth's own cgroup; or why there is none.
    parent: Result<PathBuf, String>,
}

impl std::fmt::Display for Cgroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.parent {
            Ok(parent) => write!(f, "{}", parent.display()),
            Err(reason) => write!(f, "none: {reason}"),
        }
    }
}

impl Cgroups {
    /// Looks for a hierarchy that we may write to: version 2, else the one of the service
    /// manager, else the one that counts processes.
    pub fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut reason = "there is no cgroup hierarchy".to_owned();
        for beside in candidates(&mounts, &own) {
            let parent = beside.join(PARENT);
            match make_and_remove(&parent) {
                Ok(()) => return Self { parent: Ok(parent) },
                Err(error) => reason = format!("{}: {error}", parent.display()),
            }
        }
        Self { parent: Err(reason) }
    }

    /// Makes the cgroup `name`; `None` when that does not work.
    pub(super) fn make(&self, name: &str) -> Option<PathBuf> {
        let dir = self.parent.as_ref().ok()?.join(name);
        let made = make(&dir).inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "a process stays in our own cgroup");
        });
        made.is_ok().then_some(dir)
    }

    /// Moves a process into the cgroup `dir`; it stays where it is, and the cgroup goes, when that
    /// does not work. Blocks for some ten milliseconds.
    pub(super) fn enter(&self, dir: &Path, pid: u32) {
        if let Err(error) = fs::write(dir.join("cgroup.procs"), pid.to_string()) {
            // A process that has ended meanwhile has nothing to enter.
            let ended = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
            if !ended {
                tracing::warn!(dir = %dir.display(), %error, "a process stays in our own cgroup");
            }
            self.remove(dir);
        }
    }

    pub(super) fn existing(&self, name: &OsStr) -> Option<PathBuf> {
        let dir = self.parent.as_ref().ok()?.join(name);
        dir.is_dir().then_some(dir)
    }

    /// Removes a cgroup whose process has ended, and the parent with the last one. What is no cgroup of ours
    /// is left alone: the directory's name may be what somebody wrote into a record.
    pub(super) fn remove(&self, dir: &Path) {
        if dir.exists() && !is_ours(dir) {
            tracing::warn!(dir = %dir.display(), "a record names it, and it is no cgroup of ours");
            return;
        }
        // The kernel may need a moment after the end of the last process.
        for _ in 0..100 {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(dir = %dir.display(), %error, "could not remove a cgroup");
                    break;
                }
                Ok(()) | Err(_) => break,
            }
        }
        let parent = dir.parent().filter(|parent| parent.ends_with(PARENT));
        if let Some(parent) = parent.filter(|parent| is_cgroup(parent)) {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Whether there is a cgroup `dir` that can be of a process of ours: right below a directory for those, wherever
/// that is, since hearth may have run in another cgroup when it was made.
pub(super) fn is_ours(dir: &Path) -> bool {
    let plain = |it| matches!(it, Component::RootDir | Component::Normal(_));
    let parent = dir.parent().and_then(Path::file_name);
    let is_named = parent.is_some_and(|it| it == PARENT || it == PARENT_OF_JAILS);
    is_named && dir.components().all(plain) && is_cgroup(dir)
}

/// Whether `dir` is a directory of a cgroup hierarchy.
fn is_cgroup(dir: &Path) -> bool {
    // The numbers of version 1 and version 2; the field's type differs by architecture.
    statfs(dir).is_ok_and(|it| it.f_type == 0x0027_e0eb || it.f_type == 0x6367_7270)
}

/// Another instance may remove the shared parent between the two steps of making a cgroup.
fn make(dir: &Path) -> io::Result<()> {
    let made = fs::create_dir_all(dir);
    made.or_else(|_| fs::create_dir_all(dir))
}

fn make_and_remove(parent: &Path) -> io::Result<()> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let probe = parent.join(format!("probe-{}-{number}", std::process::id()));
    make(&probe)?;
    let writable = fs::OpenOptions::new().write(true).open(probe.join("cgroup.procs")).map(drop);
    let _ = fs::remove_dir(&probe);
    let _ = fs::remove_dir(parent);
    writable
}

/// The directories beside our own cgroup, the best first.
fn candidates(mounts: &str, own: &str) -> Vec<PathBuf> {
    // hierarchy-id:controllers:path, where version 2 has no controllers.
    let own_path = |controllers: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next()? == controllers).then(|| fields.next()).flatten()
        })
    };
    let hierarchy = |kind: &str, option: &str, controllers: &str| {
        let path = own_path(controllers)?;
        let mount = mounts.lines().find_map(|line| mount_point(line, kind, option))?;
        let beside = Path::new(path).parent().unwrap_or(Path::new("/"));
        Some(mount.join(beside.strip_prefix("/").unwrap_or(beside)))
    };
    [
        hierarchy("cgroup2", "", ""),
        hierarchy("cgroup", "name=systemd", "name=systemd"),
        hierarchy("cgroup", "pids", "pids"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The mount point of a line of mountinfo, if it is of this kind and has this option.
fn mount_point(line: &str, kind: &str, option: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let options = (filesystem.next()? == kind).then(|| filesystem.nth(1))??;
    let fits = option.is_empty() || options.split(',').any(|found| found == option);
    fits.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cgroup_of_ours_is_left_alone() {
        let elsewhere = tempfile::tempdir().unwrap();
        let planted = elsewhere.path().join(PARENT).join("planted");
        fs::create_dir_all(&planted).unwrap();
        let cgroups = Cgroups::find();
        cgroups.remove(&planted);
        assert!(planted.is_dir(), "it is not of a cgroup's file system");
        let Some(own) = cgroups.make("cgroup-test") else { return };
        let parent = own.parent().unwrap();
        for other in [parent, &own.join("../cgroup-test"), Path::new("/sys/fs/cgroup")] {
            assert!(!is_ours(other), "{}", other.display());
        }
        assert!(is_ours(&own));
        cgroups.remove(&own);
        assert!(!own.exists());
        assert!(!is_ours(&own), "it is gone");
    }

    #[test]
    fn a_cgroup_is_sought_beside_our_own() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let own = "9:name=systemd:/\n0::/system.slice/hearth.service\n";
        let found = candidates(mounts, own);
        let expected = ["/sys/fs/cgroup/unified/system.slice", "/sys/fs/cgroup/systemd"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(candidates("", own).is_empty());
    }
}
