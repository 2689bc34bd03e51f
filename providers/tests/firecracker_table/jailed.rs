//! Rows on the jailer: its words, or the jail that it made and what runs in there.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::client::Client;
use crate::driver::Programs;
use crate::outcome::{Normaliser, Outcome, is_log};
use crate::process::{Process, command, fate, until};
use crate::row::Jailer;

/// How long a jailer that is refused may take to say so.
const REFUSAL: Duration = Duration::from_secs(20);

pub(crate) fn run(row: &Jailer, programs: &Programs, dir: &Path) -> Result<Outcome, String> {
    let normaliser = Normaliser::new(dir, &programs.firecracker);
    let name = std::fs::canonicalize(&programs.firecracker).map_err(|error| error.to_string())?;
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let root = dir.join(&name).join("table/root");
    let socket = root.join("run/api");
    let mut outcome = Outcome::default();
    for number in 1..=row.runs {
        let mut command = command(&programs.jailer, dir);
        for argument in &row.arguments {
            let argument = argument.replace("DIR", &dir.display().to_string());
            command.arg(argument.replace("PROGRAM", &programs.firecracker.display().to_string()));
        }
        let mut process = Process::spawn(command, dir, number, socket.clone())?;
        let leaves = ["--daemonize", "--new-pid-ns"].iter().any(|it| row.arguments.contains(it));
        let ended = settle(&mut process, leaves)?;
        let jailed = JailedProcess::find(&root, &name, &process, ended);
        if number < row.runs {
            drop(jailed);
            drop(process);
            let _ = std::fs::remove_file(&socket);
            continue;
        }
        outcome.fate = ended.map_or_else(|| "lives".to_owned(), fate);
        outcome.printed = words(&process, &normaliser);
        if let Some(jailed) = jailed {
            outcome.found = tree(&root, &name);
            outcome.found.push(jailed.describe(&socket, &normaliser)?);
        }
    }
    Ok(outcome)
}

/// Waits until the jailer has ended, or, unless it `leaves` another process behind, until there
/// is an API.
fn settle(process: &mut Process, leaves: bool) -> Result<Option<ExitStatus>, String> {
    let mut ended = None;
    let settled = until(|| {
        ended = process.ends_within(Duration::ZERO);
        ended.is_some() || (!leaves && UnixStream::connect(&process.socket).is_ok())
    });
    match settled {
        // One that goes on elsewhere has ended, and its API comes a little later.
        true if ended.is_some_and(|ended| ended.success()) => {
            until(|| {
                UnixStream::connect(&process.socket).is_ok()
                    || process.console().starts_with("Jailer")
            });
            Ok(ended)
        }
        true => Ok(ended.or_else(|| process.ends_within(Duration::ZERO))),
        false => Err(format!("neither ended nor serving after {REFUSAL:?}: {}", process.console())),
    }
}

/// The first line that was printed, without the log.
fn words(process: &Process, normaliser: &Normaliser) -> Vec<String> {
    let console = normaliser.text(&process.console());
    let lines = console.lines().filter(|line| !is_log(line) && !line.is_empty());
    lines.take(1).map(str::to_owned).collect()
}

/// What runs in a jail; it is ended when this is dropped.
struct JailedProcess {
    pid: Pid,
    /// It is the process that the jailer was.
    is_the_jailer: bool,
}

impl JailedProcess {
    fn find(root: &Path, name: &str, process: &Process, ended: Option<ExitStatus>) -> Option<Self> {
        if ended.is_some_and(|ended| !ended.success()) || !process.socket.exists() {
            return None;
        }
        let path = root.join(format!("{name}.pid"));
        until(|| std::fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()));
        let text = std::fs::read_to_string(path).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        Some(Self { pid: Pid::from_raw(pid.cast_signed())?, is_the_jailer: pid == process.id() })
    }

    fn describe(&self, socket: &Path, normaliser: &Normaliser) -> Result<String, String> {
        let mut client = Client::connect(socket).map_err(|error| error.to_string())?;
        let sent = client.send(b"GET / HTTP/1.1\r\n\r\n");
        sent.map_err(|error| error.to_string())?;
        let answer = client.receive(normaliser).map_err(|error| error.to_string())?;
        let body = answer.map_or_else(|| "nothing".to_owned(), |answer| answer.body);
        let pid = self.pid.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let files = limits.lines().find(|line| line.starts_with("Max open files"));
        let files = files.unwrap_or_default().split_whitespace().nth(3).unwrap_or_default();
        let (uid, gid, groups) = (field("Uid:"), field("Gid:"), field("Groups:"));
        let jailer = self.is_the_jailer;
        let levels = field("NSpid:").split(' ').count();
        Ok(format!(
            "process: the jailer itself: {jailer}, uid {uid}, gid {gid}, groups {groups:?}, \
             files {files}, namespaces of process ids {levels}, answers {body}"
        ))
    }
}

impl Drop for JailedProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }
}

/// What is in a jail, with modes and owners, but for the program's copy, which differs.
fn tree(root: &Path, program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let inside = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => "directory",
            kind if kind.is_char_device() => "device",
            kind if kind.is_socket() => "socket",
            _ => "file",
        };
        let (mode, uid, gid) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        let inside = inside.replace(program, "PROGRAM");
        // The device of page faults is there on some hosts alone.
        if !inside.ends_with("userfaultfd") {
            found.push(format!("/{inside}: {kind}, {mode:o}, owner {uid}:{gid}"));
        }
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| entry.path()));
    }
    found.sort();
    found
}
