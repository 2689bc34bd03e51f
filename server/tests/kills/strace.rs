//! strace on one thread: to list what it calls, or to kill its process at one of these calls.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Answer;

/// What a thread does between two pieces of work.
const WAITING: [&str; 6] =
    ["futex", "restart_syscall", "epoll_wait", "sched_yield", "recvfrom", "clock_nanosleep"];

/// Why there can be no strace here, if so.
pub(crate) fn missing() -> Option<String> {
    let found = Command::new("strace").arg("--version").output();
    if !found.is_ok_and(|found| found.status.success()) {
        return Some("strace is missing (Debian: strace)".to_owned());
    }
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let is_allowed = tried.is_ok_and(|tried| tried.status.success());
    (!is_allowed).then(|| "this host forbids tracing".to_owned())
}

/// One system call of a run: the `nth` of that name by that thread, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) thread: &'static str,
    pub(crate) name: String,
    pub(crate) nth: u32,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {}", self.name, self.nth, self.thread)
    }
}

/// A strace that is attached; ended when it is dropped.
pub(crate) struct Strace {
    child: Child,
    log: PathBuf,
}

impl Strace {
    /// Attaches to the thread `tid`; its process is killed on entry of the system call `kill_at`. What
    /// the thread calls is written to `log`.
    pub(crate) fn attach(tid: u32, kill_at: Option<&Site>, log: &Path) -> Answer<Self> {
        let mut command = Command::new("strace");
        command.args(["-p", &tid.to_string(), "-o"]).arg(log);
        if let Some(Site { name, nth, .. }) = kill_at {
            // strace counts the calls of each name by themselves.
            command.arg(format!("--inject={name}:signal=KILL:when={nth}"));
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut said = String::new();
        BufReader::new(stderr).read_line(&mut said)?;
        let strace = Self { child, log: log.to_owned() };
        match said.contains("attached") {
            true => Ok(strace),
            false => Err(format!("strace does not attach: {said}").into()),
        }
    }

    /// Detaches, and answers the system calls that `thread` entered since it was attached, but for those
    /// by which a thread waits for work or lets another go on.
    pub(crate) fn detach(mut self, thread: &'static str) -> Answer<Vec<Site>> {
        self.end()?;
        let text = std::fs::read_to_string(&self.log)?;
        let mut counts = HashMap::new();
        let names = text.lines().filter_map(|line| line.split_once('(').map(|(name, _)| name));
        let is_work = |name: &&str| !WAITING.contains(name);
        // What is no name says how a call went on, or a signal.
        let names = names.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        let site = |name: &str| {
            let nth = counts.entry(name.to_owned()).or_insert(0);
            *nth += 1;
            Site { thread, name: name.to_owned(), nth: *nth }
        };
        Ok(names.filter(is_work).map(site).collect())
    }

    /// Detaches, and answers whether the process was killed.
    pub(crate) fn has_killed(mut self) -> Answer<bool> {
        self.end()?;
        Ok(std::fs::read_to_string(&self.log)?.contains("+++ killed by SIGKILL +++"))
    }

    fn end(&mut self) -> Answer<()> {
        // By its own signal it detaches and leaves the thread unharmed.
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.child.id())?;
            let pid = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
            rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
