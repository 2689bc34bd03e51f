//! Processes that run VMs and outlive hearth.
//!
//! A [`Supervisor`] spawns them in a session and, where the host lets it, a cgroup of their own,
//! with nothing of hearth's: no descriptor, no environment, no signal at its death. Their input
//! is `/dev/null`, their output a file that only grows at its end and is kept small from its
//! front, their working directory the instance's.
//!
//! Starting one takes as long as the kernel needs to run a program: our page tables are not copied
//! (see `spawn`), and nobody waits for its cgroup (see `entrance`).
//!
//! Invariants:
//! - A process is named by a pidfd, never by its number: the number may be another's by the time
//!   it is used. A number read from disk counts only together with the boot it was given in, the
//!   moment at which it was given, and the directory in which the process works.
//! - One thread watches all processes, reaps those that are our children and reports each end
//!   once. The exit status of what is not our child is unknown, and said to be.
//! - Dropping a [`Process`] or the [`Supervisor`] ends no process.

pub(crate) mod cgroup;
mod entrance;
mod log;
mod process;
mod procfs;
mod spawn;
mod vmm;
mod watcher;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid,
};

use crate::backend::Reaped;
use crate::beneath;
use crate::env::{Deadline, Env as _, SystemEnv};
use crate::error::{Result, VmRuntimeError};
use crate::files;
pub use cgroup::Cgroups;
use entrance::Entrance;
pub use log::AppendLog;
pub use process::{Exit, Process, ProcessRecord};
pub use vmm::Vmm;
use watcher::{Watched, Watcher};

/// The record of an instance's process, in the instance's directory.
pub const RECORD: &str = "vmm.json";

/// What to run, and where.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program, by its path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// Its working directory, which also gets its record.
    pub dir: &'a Path,
    /// What its cgroup is called.
    pub name: &'a str,
    /// Where its output goes.
    pub output: &'a Arc<AppendLog>,
    /// Its record in `dir`: [`RECORD`] for the one that is the machine.
    pub record: &'a str,
    /// It gets a cgroup of its own from us. Not where `program` sees to that.
    pub enters_cgroup: bool,
    /// Where `program` only leads to the process.
    pub led: Option<Led<'a>>,
}

/// A process that the launched program leads to: one that works elsewhere in the end, or one that
/// the program leaves behind when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Led<'a> {
    /// What the process runs.
    pub executable: &'a Path,
    /// Where it works.
    pub home: &'a Path,
    /// The program ends and leaves the number of its process in this file.
    pub pid_file: Option<&'a Path>,
    /// How long it may take to end.
    pub timeout: Duration,
}

impl<'a> Launch<'a> {
    /// `program` with `arguments`, in `dir`, as the machine `name`.
    pub const fn new(
        program: &'a Path,
        arguments: &'a [OsString],
        dir: &'a Path,
        name: &'a str,
        output: &'a Arc<AppendLog>,
    ) -> Self {
        Self {
            program,
            arguments,
            dir,
            name,
            output,
            record: RECORD,
            enters_cgroup: true,
            led: None,
        }
    }
}

/// Spawns, adopts and watches processes. Dropping it ends none of them.
#[derive(Debug)]
pub struct Supervisor {
    watcher: Arc<Watcher>,
    /// `None` once it is being dropped.
    entrance: Option<Entrance>,
    threads: Vec<JoinHandle<()>>,
    cgroups: Cgroups,
}

impl Supervisor {
    /// Starts the threads that watch, and that move processes into cgroups.
    ///
    /// # Errors
    /// `Backend` when the host refuses the threads or their descriptors.
    pub fn new() -> Result<Self> {
        let failed = |error: io::Error| VmRuntimeError::backend("watch processes", error);
        procfs::close_inherited_on_exec().map_err(failed)?;
        let watcher = Arc::new(Watcher::new().map_err(failed)?);
        let watching = Arc::clone(&watcher);
        let thread = std::thread::Builder::new().name("hearth-watcher".to_owned());
        let thread = thread.spawn(move || watching.run()).map_err(failed)?;
        let cgroups = Cgroups::find();
        // From here on a failure ends the thread that watches, too.
        let mut supervisor = Self { watcher, entrance: None, threads: vec![thread], cgroups };
        let opened = Entrance::open(supervisor.cgroups.clone());
        let (entrance, thread) = opened.map_err(failed)?;
        supervisor.entrance = Some(entrance);
        supervisor.threads.push(thread);
        Ok(supervisor)
    }

    /// Where processes get cgroups of their own, or why they get none; for people.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Starts a process and writes its record. `bounded` are the files that it appends to: they
    /// are kept small while it is watched. Blocks until it has become the program.
    ///
    /// # Errors
    /// `Backend` when the program cannot be run; nothing then runs.
    pub fn spawn(&self, launch: Launch<'_>, bounded: Vec<Arc<AppendLog>>) -> Result<Process> {
        let what = || format!("run {}", launch.program.display());
        let failed = |error: io::Error| VmRuntimeError::backend(what(), error);
        procfs::check_executable(launch.program).map_err(failed)?;
        let output = launch.output.open_to_append().map_err(failed)?;
        let child = spawn::spawn(launch.program, launch.arguments, launch.dir, output.as_fd());
        let child = child.map_err(failed)?;
        let process = match launch.led.and_then(|led| Some((led, led.pid_file?))) {
            None => {
                // Nobody but our watcher reaps it, and it does not watch it yet: its number is
                // its own.
                let taken = self.take_child(&launch, to_number(child), bounded).map_err(failed);
                taken.inspect_err(|_| end_child(child))?
            }
            Some((led, pid_file)) => {
                let left = await_leader(child, led.timeout);
                let left = left.and_then(|()| left_in(pid_file, led.home, led.timeout));
                let taken = left.and_then(|pid| self.take_child(&launch, pid, bounded));
                taken.map_err(failed).inspect_err(|_| {
                    self.reap(launch.dir, led.timeout);
                })?
            }
        };
        files::write_json(&launch.dir.join(launch.record), process.record()).inspect_err(|_| {
            process.kill();
            process.wait(Duration::from_secs(5));
            self.tidy(process.record());
        })?;
        Ok(process)
    }

    fn take_child(
        &self,
        launch: &Launch<'_>,
        pid: u32,
        bounded: Vec<Arc<AppendLog>>,
    ) -> io::Result<Process> {
        let pidfd = pidfd_open(procfs::to_pid(pid)?, PidfdFlags::empty())?;
        let stat = procfs::Stat::read(pid)?;
        let entrance = self.entrance.as_ref().filter(|_| launch.enters_cgroup);
        let entered = entrance.and_then(|it| Some((it, self.cgroups.make(launch.name)?)));
        let cgroup = entered.as_ref().map(|(_, cgroup)| cgroup.clone());
        let executable = launch.led.map_or(launch.program, |led| led.executable);
        let record = ProcessRecord {
            pid,
            start_ticks: stat.start_ticks,
            boot_id: SystemEnv.boot_id(),
            executable: executable.to_owned(),
            cgroup,
        };
        let watched = Watched::new(pidfd, bounded);
        let watched = if entered.is_some() { watched.entering() } else { watched };
        let watched = Arc::new(watched);
        let process = Process::new(record, Arc::clone(&watched), &self.watcher)?;
        if let Some((entrance, cgroup)) = entered {
            entrance.enter(&watched, pid, cgroup);
        }
        Ok(process)
    }

    /// Takes up the process of `record` if it still runs, in `dir`, since the moment that the
    /// record says; `None` when it does not.
    pub fn adopt(
        &self,
        record: ProcessRecord,
        dir: &Path,
        bounded: Vec<Arc<AppendLog>>,
    ) -> Option<Process> {
        let pidfd = pidfd_open(procfs::to_pid(record.pid).ok()?, PidfdFlags::empty()).ok()?;
        let same_boot = record.boot_id == SystemEnv.boot_id();
        let stat = procfs::Stat::read(record.pid).ok()?;
        let same = same_boot
            && stat.start_ticks == record.start_ticks
            && !stat.is_dead()
            && procfs::works_in(record.pid, dir);
        let watched = Arc::new(Watched::new(pidfd, bounded));
        same.then(|| Process::new(record, watched, &self.watcher).ok())?
    }

    /// The process that works in `dir` though no record says so: hearth ended between spawning
    /// it and writing that down.
    pub fn find_unrecorded(&self, dir: &Path) -> Option<ProcessRecord> {
        let pid = *procfs::Below::of(dir).processes().first()?;
        let start_ticks = procfs::Stat::read(pid).ok()?.start_ticks;
        Some(ProcessRecord {
            pid,
            start_ticks,
            boot_id: SystemEnv.boot_id(),
            executable: procfs::executable(pid),
            cgroup: dir.file_name().and_then(|name| self.cgroups.existing(name)),
        })
    }

    /// Ends every process that works in or below `dir`, waits for up to `timeout` until they are
    /// gone, and removes their cgroup. Answers what there was.
    pub fn reap(&self, dir: &Path, timeout: Duration) -> Reaped {
        let deadline = Deadline::after(timeout);
        let mut ended: Vec<Pid> = Vec::new();
        loop {
            // Found anew each time: a number that was looked at once may be another's by now.
            let below = procfs::Below::of(dir);
            let found = below.processes();
            for pid in found.iter().filter_map(|pid| procfs::to_pid(*pid).ok()) {
                let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                if !below.holds(pid) {
                    continue;
                }
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                // Of a former life of hearth in this very process it may be a child.
                if watcher::has_ended(&pidfd, deadline.left().unwrap_or_default()) {
                    let _ = watcher::reap_child(pidfd.as_fd());
                }
                if !ended.contains(&pid) {
                    ended.push(pid);
                }
            }
            if found.is_empty() || deadline.left().is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let recorded = files::read_json::<ProcessRecord>(&dir.join(RECORD)).ok();
        let cgroup = recorded.and_then(|record| record.cgroup).filter(|it| cgroup::is_ours(it));
        let called = || dir.file_name().and_then(|name| self.cgroups.existing(name));
        let cgroup = cgroup.or_else(called);
        cgroup.iter().for_each(|cgroup| self.cgroups.remove(cgroup));
        let (processes, cgroups) = (ended.len(), usize::from(cgroup.is_some()));
        Reaped { processes, cgroups, ..Reaped::default() }
    }

    /// Removes a cgroup whose process has ended; one that is not there is none.
    pub fn remove_cgroup(&self, dir: &Path) {
        self.cgroups.remove(dir);
    }

    /// Removes the cgroup of a process that has ended.
    pub fn tidy(&self, record: &ProcessRecord) {
        record.cgroup.iter().for_each(|cgroup| self.cgroups.remove(cgroup));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watcher.stop();
        self.entrance = None;
        // A report of an end may hold the last reference: a thread cannot wait for itself.
        let itself = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| !itself(thread)) {
            let _ = thread.join();
        }
    }
}

/// Waits for a program that ends as soon as it has left its process behind.
fn await_leader(child: Pid, timeout: Duration) -> io::Result<()> {
    let pidfd = pidfd_open(child, PidfdFlags::empty()).inspect_err(|_| end_child(child))?;
    if !watcher::has_ended(&pidfd, timeout) {
        end_child(child);
        return Err(io::Error::other(format!("it did not end within {timeout:?}")));
    }
    match watcher::reap_child(pidfd.as_fd()) {
        Exit::Status(0) => Ok(()),
        Exit::Status(status) => Err(io::Error::other(format!("it ended with status {status}"))),
        Exit::Signal(signal) => Err(io::Error::other(format!("signal {signal} ended it"))),
        Exit::Unknown => Err(io::Error::other("it ended, nobody knows how")),
    }
}

/// The process named in `pid_file`, which works in `home`. One that has left its session writes
/// the file itself, after the program that led to it has ended.
fn left_in(pid_file: &Path, home: &Path, timeout: Duration) -> io::Result<u32> {
    let deadline = Deadline::after(timeout);
    loop {
        let text =
            String::from_utf8(beneath::read(pid_file).unwrap_or_default()).unwrap_or_default();
        if let Ok(pid) = text.trim().parse()
            && procfs::works_in(pid, home)
        {
            return Ok(pid);
        }
        if deadline.left().is_none() {
            return Err(io::Error::other(format!("it left no process ({text:?})")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn to_number(child: Pid) -> u32 {
    child.as_raw_nonzero().get().cast_unsigned()
}

/// Ends a child that nobody watches yet, and reaps it: until then its number is its own.
fn end_child(child: Pid) {
    let _ = kill_process(child, Signal::KILL);
    let again = |error| error == rustix::io::Errno::INTR;
    while waitpid(Some(child), WaitOptions::empty()).is_err_and(again) {}
}

#[cfg(test)]
mod tests;
