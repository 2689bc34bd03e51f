//! The checks of `hearth doctor`, each of which looks at one thing and changes nothing.

use std::fs;
use std::path::Path;

use crate::config::dirs;
use crate::privileges::{self, Need};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::Check;

/// Open files that a hearth needs: a few for each VM and connection.
const FEW_OPEN_FILES: u64 = 4096;
const TOO_FEW_OPEN_FILES: u64 = 256;
/// Space for a template of the test guest and some clones.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;
const LITTLE_MEMORY_KIB: u64 = 1 << 20;

/// Whether VMs get cgroups of their own, of which a provider says where.
#[cfg(all(any(feature = "qemu", feature = "firecracker"), target_os = "linux"))]
pub(super) fn cgroups(fact: &str) -> Check {
    match fact {
        none if none.starts_with("none") => Check::warn(
            "cgroups",
            format!("VMs get no cgroup of their own ({none})"),
            "nothing, under systemd with KillMode=process, as in deploy/systemd; elsewhere run as root, else \
             what ends hearth's cgroup ends its VMs",
        ),
        parent => Check::ok("cgroups", format!("VMs get theirs below {parent}")),
    }
}

/// Whether the guest of the default template is there, where the server looks for it.
pub fn guest(given: Option<&Path>) -> Check {
    let remedy = "scripts/guest; or go without a default template: `default_template.enabled = false` \
                  in the file, and `hearth templates create` with files of your own";
    match dirs::find_guest(given) {
        Ok(guest) => Check::ok("guest", format!("{}", guest.kernel.display())),
        Err(why) => Check::fail("guest", why, remedy),
    }
}

/// Whether the state directory can be made and written, and has room.
pub(super) fn state(directory: &Path) -> Check {
    let shown = directory.display();
    if let Err(why) = writable(directory) {
        let remedy = "run as another user, or say another one: serve --state DIR";
        return Check::fail("state", format!("{shown}: {why}"), remedy);
    }
    let free = statvfs(existing(directory)).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    match free {
        Ok(free) if free < LITTLE_SPACE_BYTES => Check::warn(
            "state",
            format!("{shown} has only {} MiB left", free >> 20),
            "make room, or say another one: serve --state DIR",
        ),
        Ok(free) => Check::ok("state", format!("{shown}, {} MiB free", free >> 20)),
        Err(error) => Check::warn("state", format!("{shown}: free space: {error}"), ""),
    }
}

/// Whether the runtime directory can be made, and lies in memory. The server's own choice is below
/// `/run/hearth` where it may write there, else the state directory.
pub(super) fn runtime(given: Option<&Path>, state: &Path) -> Check {
    let usual = Path::new("/run/hearth");
    let directory = given.unwrap_or(if writable(usual).is_ok() { usual } else { state });
    let shown = directory.display();
    match (writable(directory), is_tmpfs(existing(directory))) {
        (Err(why), _) => Check::fail(
            "runtime",
            format!("{shown}: {why}"),
            "run as another user, or say another one: serve --runtime DIR",
        ),
        (Ok(()), Some(false)) => Check::warn(
            "runtime",
            format!("{shown} is not on tmpfs: a handoff may wait for the disk's own journal"),
            "serve --runtime DIR with a directory on tmpfs",
        ),
        (Ok(()), Some(true)) => Check::ok("runtime", format!("{shown}, on tmpfs")),
        (Ok(()), None) => Check::ok("runtime", shown.to_string()),
    }
}

/// Whether enough files can be open at once.
pub(super) fn open_files() -> Check {
    let limits = getrlimit(Resource::Nofile);
    let show = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
    let message = format!("{} (at most {})", show(limits.current), show(limits.maximum));
    let remedy = "ulimit -n 65536, or LimitNOFILE= of the service";
    match limits.current {
        Some(current) if current < TOO_FEW_OPEN_FILES => Check::fail("open-files", message, remedy),
        Some(current) if current < FEW_OPEN_FILES => Check::warn("open-files", message, remedy),
        _ => Check::ok("open-files", message),
    }
}

/// How much memory there is for guests.
pub(super) fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    match available {
        None => Check::warn("memory", "this system does not say what is available", ""),
        Some(kib) if kib < LITTLE_MEMORY_KIB => Check::warn(
            "memory",
            format!("only {} MiB available", kib >> 10),
            "smaller guests or fewer warm VMs: hearth pools update POOL --depth N",
        ),
        Some(kib) => Check::ok("memory", format!("{} MiB available", kib >> 10)),
    }
}

/// Whether this user has the capabilities that VMs take (`needs`), and none where they take none.
pub(super) fn privileges(needs: &[Need]) -> Check {
    const NAME: &str = "privileges";
    let missing = privileges::missing(needs);
    match (needs, missing.as_slice(), privileges::is_privileged()) {
        ([], _, true) => Check::warn(
            NAME,
            "this user has capabilities, as root has, and VMs of this kind take none",
            "run hearth as a user of its own, as deploy/systemd/hearth.service does; or, as root, have each QEMU \
             become one: providers.NAME.user",
        ),
        ([], _, false) => Check::ok(NAME, "no capabilities, and none are needed"),
        (_, [], _) => Check::ok(NAME, "all capabilities that confining VMs takes"),
        (_, missing, _) => {
            let each = missing.iter().map(|need| format!("{} ({})", need.name, need.why));
            let message = format!("without {}", each.collect::<Vec<_>>().join(", "));
            let remedy =
                "grant them, as jailed-firecracker.conf or qemu-user.conf of deploy/systemd does";
            Check::fail(NAME, message, remedy)
        }
    }
}

/// Whether VMs can outlive a hearth that is started like this.
pub(super) fn process() -> Check {
    match std::process::id() {
        1 => Check::warn(
            "process",
            "this is process 1: when hearth ends here, the kernel ends its VMs with it",
            "run hearth on the host, or expect that: with a container its engine ends all that is in it",
        ),
        pid => Check::ok("process", format!("not process 1 (it is {pid}): VMs outlive hearth")),
    }
}

/// Whether `directory` can be written or, when there is none yet, made.
fn writable(directory: &Path) -> Result<(), String> {
    let nearest = existing(directory);
    if !nearest.is_dir() {
        return Err(format!("{} is not a directory", nearest.display()));
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        match nearest == directory {
            true => format!("cannot be written: {error}"),
            false => format!("cannot be made in {}: {error}", nearest.display()),
        }
    })
}

/// The nearest directory at or above `directory` that exists.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Whether `path` lies in memory; `None` where that cannot be told.
fn is_tmpfs(path: &Path) -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        // The number of tmpfs; the field's type differs by architecture.
        rustix::fs::statfs(path).ok().map(|it| it.f_type == 0x0102_1994)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_directory_that_can_be_made_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let check = state(&directory.path().join("not/yet"));
        assert_ne!(check.status, Outcome::Fail, "{check:?}");
    }

    #[test]
    fn a_file_in_place_of_a_directory_fails_and_says_what_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let check = state(&file.join("state"));
        assert_eq!(check.status, Outcome::Fail);
        assert!(check.remedy.contains("--state"), "{check:?}");
    }

    #[test]
    fn a_missing_guest_says_what_makes_one() {
        let directory = tempfile::tempdir().unwrap();
        let check = guest(Some(directory.path()));
        assert_eq!(check.status, Outcome::Fail);
        assert!(check.remedy.contains("scripts/guest"), "{check:?}");
    }
}
