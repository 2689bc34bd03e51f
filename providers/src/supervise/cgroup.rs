//! A cgroup for each process, outside of hearth's own: what stops hearth's service stops the
//! processes in its cgroup, and VMs are to live on.
//!
//! Best effort: without the right to make cgroups processes stay where hearth is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The directory that holds the cgroups of all processes.
const PARENT: &str = "hearth-vms";

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

    /// Removes a cgroup whose process has ended, and the parent with the last one.
    pub(super) fn remove(&self, dir: &Path) {
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
        if let Some(parent) = dir.parent().filter(|parent| parent.ends_with(PARENT)) {
            let _ = fs::remove_dir(parent);
        }
    }
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
