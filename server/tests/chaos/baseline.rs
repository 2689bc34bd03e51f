//! What the host has that is ours: nothing, before and after.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::hearth::{Answer, Host};
use crate::kind::Kind;

/// Directories of cgroups lie at most so deep.
const CGROUP_DEPTH: usize = 6;

/// What is left of a hearth that has ended, and of its VMs, of which `uids` names all.
pub(crate) fn left(host: &Host, kind: &dyn Kind, uids: &[String]) -> Answer<Vec<String>> {
    let dir = host.dir().canonicalize()?;
    let dir = dir.to_string_lossy();
    let mut left = processes_about(&dir);
    left.extend(mounts_below(&dir));
    left.extend(loop_devices_on(&dir));
    left.extend(sockets_in_use_below(&dir));
    left.extend(sockets_below(host.dir()));
    let (state, runtime) = (host.state(), host.runtime());
    let emptied = ["instances", "snapshots", "names"].map(|name| state.join(name));
    left.extend(emptied.iter().chain([&runtime.join("names")]).flat_map(|dir| entries(dir)));
    left.extend(entries(&runtime).into_iter().filter(|entry| !entry.ends_with("/names")));
    left.extend(cgroups(&uids.iter().cloned().collect()));
    left.extend(kind.left(uids)?);
    Ok(left)
}

/// Processes that run below `dir`, or whose arguments name it.
pub(crate) fn processes_about(dir: &str) -> Vec<String> {
    let about = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let is_ours = line.contains(dir) || cwd.starts_with(dir);
        is_ours.then(|| format!("process {pid} in {}: {line}", cwd.display()))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(about).collect()
}

pub(crate) fn mounts_below(dir: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| point.starts_with(dir)).map(|point| format!("mount {point}")).collect()
}

fn loop_devices_on(dir: &str) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files =
        devices.filter_map(|it| fs::read_to_string(it.path().join("loop/backing_file")).ok());
    files.filter(|file| file.starts_with(dir)).map(|file| format!("loop on {file}")).collect()
}

/// Sockets that somebody listens on or is connected to.
fn sockets_in_use_below(dir: &str) -> Vec<String> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let paths = sockets.lines().filter_map(|line| line.split_ascii_whitespace().nth(7));
    paths.filter(|path| path.starts_with(dir)).map(|path| format!("socket {path}")).collect()
}

/// Sockets among the files.
fn sockets_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(sockets_below(&entry.path())),
            Ok(kind) if kind.is_socket() => found.push(format!("file {}", entry.path().display())),
            _ => {}
        }
    }
    found
}

fn entries(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|entry| format!("file {}", entry.path().display())).collect()
}

/// Cgroups that are called after one of `names`, in any hierarchy.
pub(crate) fn cgroups(names: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_str().is_some_and(|name| names.contains(name)) {
                found.push(format!("cgroup {}", entry.path().display()));
            } else if depth < CGROUP_DEPTH {
                dirs.push((entry.path(), depth + 1));
            }
        }
    }
    found
}
