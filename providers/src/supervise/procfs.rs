//! What `/proc` says of a process.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::Pid;

/// The kernel counts start times in hundredths of a second for every program, whatever it uses
/// itself (`USER_HZ`, on all architectures that we run on).
pub(super) const TICKS_PER_SECOND: u64 = 100;

/// The fields of `/proc/<pid>/stat` that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) has_terminal: bool,
    pub(super) start_ticks: u64,
}

impl Stat {
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text:?}")))
    }

    /// The name of the program is in parentheses and may hold any character, parentheses and
    /// blanks among them: what follows the last one is fields.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let terminal: i32 = fields.nth(3)?.parse().ok()?;
        let start_ticks = fields.nth(14)?.parse().ok()?;
        Some(Self { state, has_terminal: terminal != 0, start_ticks })
    }

    /// A zombie only waits for its parent.
    pub(super) const fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

pub(super) fn to_pid(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::Error::other(format!("{pid} is no process id")))
}

/// Refuses what cannot be run, before anything is.
pub(super) fn check_executable(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// The program that a process runs; empty when it is not to be seen.
pub(super) fn executable(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// Whether the working directory of a process is `dir`, by identity, not by name.
pub(super) fn works_in(pid: u32, dir: &Path) -> bool {
    let (Ok(its), Ok(ours)) = (fs::metadata(format!("/proc/{pid}/cwd")), fs::metadata(dir)) else {
        return false;
    };
    (its.dev(), its.ino()) == (ours.dev(), ours.ino())
}

/// A directory and those below it, by identity: a process that has changed its root, or mounts,
/// still works in one of them, whatever the path is that it sees.
#[derive(Debug)]
pub(super) struct Below(HashSet<(u64, u64)>);

impl Below {
    pub(super) fn of(dir: &Path) -> Self {
        let mut identities = HashSet::new();
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            let Ok(metadata) = fs::symlink_metadata(&dir) else { continue };
            if metadata.is_dir() && identities.insert((metadata.dev(), metadata.ino())) {
                let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
                let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|it| it.is_dir());
                left.extend(entries.filter(is_dir).map(|entry| entry.path()));
            }
        }
        Self(identities)
    }

    /// The process works in one of them.
    pub(super) fn holds(&self, pid: Pid) -> bool {
        let cwd = fs::metadata(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        cwd.is_ok_and(|cwd| self.0.contains(&(cwd.dev(), cwd.ino())))
    }

    /// The living processes that work there, but for this one and those that have a terminal:
    /// somebody looks around there.
    pub(super) fn processes(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers = processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id());
        let ours = |pid: &u32| {
            to_pid(*pid).is_ok_and(|pid| self.holds(pid))
                && Stat::read(*pid).is_ok_and(|stat| !stat.is_dead() && !stat.has_terminal)
        };
        numbers.filter(ours).collect()
    }
}

/// Marks every descriptor of this process but the three standard ones as close-on-exec. What we
/// open is marked from the start; what our own parent left open is not, and a VM would keep it
/// open for its life: a pipe of a build, say, whose reader waits for its end.
pub(super) fn close_inherited_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number > 2) else { continue };
        // SAFETY: if it was closed since it was listed, the two calls below fail and change nothing.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = fcntl_getfd(descriptor) {
            let _ = fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let rest = "S 1 7 7 34816 7 4194560 1 2 3 4 5 6 7 8 20 0 4 0 987654 1 2";
        let stat = Stat::parse(&format!("7 (a) b) Z (c) {rest}")).unwrap();
        assert_eq!(stat, Stat { state: 'S', has_terminal: true, start_ticks: 987_654 });
        assert!(!stat.is_dead());
        assert_eq!(Stat::parse("7 (cut short"), None);
        assert_eq!(Stat::parse("7 (cut) S 1 2"), None);
    }

    #[test]
    fn this_process_is_alive_and_works_where_it_works() {
        let pid = std::process::id();
        assert!(!Stat::read(pid).unwrap().is_dead());
        assert!(works_in(pid, &std::env::current_dir().unwrap()));
        assert!(!works_in(pid, Path::new("/proc")));
        let here = std::env::current_dir().unwrap();
        assert!(!Below::of(&here.join("src")).processes().contains(&pid), "never ourselves");
    }
}
