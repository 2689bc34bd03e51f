//! One thread that waits for the end of every process, and meanwhile keeps their files small.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::log::AppendLog;
use super::process::Exit;
use crate::env::{Env as _, SystemEnv};

/// How often the files of processes are looked at.
const TRIM_PERIOD: Duration = Duration::from_secs(1);
/// How long a process that has ended waits for its move into a cgroup, which takes milliseconds.
const MAX_ENTERING: Duration = Duration::from_secs(10);
/// The key of the event that wakes the thread; those of processes follow.
const WAKE: u64 = 0;

type Report = Box<dyn FnOnce(Exit) + Send>;

/// A process that is watched.
pub(super) struct Watched {
    pidfd: OwnedFd,
    bounded: Vec<Arc<AppendLog>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// It is being moved into its cgroup, by its number, which it has to keep until then.
    entering: bool,
    exit: Option<Exit>,
    report: Option<Report>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("exit", &self.exit()).finish_non_exhaustive()
    }
}

impl Watched {
    pub(super) fn new(pidfd: OwnedFd, bounded: Vec<Arc<AppendLog>>) -> Self {
        Self { pidfd, bounded, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The same, of a process that is not reaped before [`Self::entered`].
    pub(super) fn entering(self) -> Self {
        self.state.lock().entering = true;
        self
    }

    /// Its number is not needed any more.
    pub(super) fn entered(&self) {
        self.state.lock().entering = false;
        self.changed.notify_all();
    }

    fn await_entered(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| state.entering, MAX_ENTERING);
    }

    pub(super) fn kill(&self) {
        // It fails when there is nothing left to kill.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(super) fn has_ended(&self) -> bool {
        has_ended(&self.pidfd, Duration::ZERO)
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.state.lock().exit
    }

    pub(super) fn wait(&self, timeout: Duration) -> Option<Exit> {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| state.exit.is_none(), timeout);
        state.exit
    }

    pub(super) fn on_exit(&self, report: Report) {
        let mut state = self.state.lock();
        match state.exit {
            Some(exit) => {
                drop(state);
                report(exit);
            }
            None => state.report = Some(report),
        }
    }

    fn ended(&self, exit: Exit) {
        let mut state = self.state.lock();
        let report = state.report.take();
        state.exit = Some(exit);
        self.changed.notify_all();
        drop(state);
        if let Some(report) = report {
            report(exit);
        }
    }
}

/// Waits for up to `timeout` until a process has ended.
pub(super) fn has_ended(pidfd: &OwnedFd, timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut ended, Some(&timeout)).is_ok_and(|count| count > 0)
}

/// Takes the exit status of a process that has ended; unknown when it is not our child, or
/// somebody has taken it already.
pub(super) fn reap_child(pidfd: BorrowedFd<'_>) -> Exit {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let exited = status.exit_status().map(Exit::Status);
                return exited
                    .or_else(|| status.terminating_signal().map(Exit::Signal))
                    .unwrap_or(Exit::Unknown);
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return Exit::Unknown,
        }
    }
}

#[derive(Debug)]
pub(super) struct Watcher {
    epoll: OwnedFd,
    wake: OwnedFd,
    watching: Mutex<Watching>,
}

#[derive(Debug, Default)]
struct Watching {
    by_key: HashMap<u64, Arc<Watched>>,
    last_key: u64,
    is_stopped: bool,
}

impl Watcher {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            wake,
            watching: Mutex::new(Watching { last_key: WAKE, ..Watching::default() }),
        })
    }

    pub(super) fn add(&self, watched: &Arc<Watched>) -> io::Result<u64> {
        let key = {
            let mut watching = self.watching.lock();
            watching.last_key += 1;
            let key = watching.last_key;
            watching.by_key.insert(key, Arc::clone(watched));
            key
        };
        let data = epoll::EventData::new_u64(key);
        let added = epoll::add(&self.epoll, &watched.pidfd, data, epoll::EventFlags::IN);
        added.inspect_err(|_| drop(self.watching.lock().by_key.remove(&key)))?;
        // The first one ends the thread's sleep without an end.
        self.ring();
        Ok(key)
    }

    pub(super) fn remove(&self, key: u64) {
        let removed = self.watching.lock().by_key.remove(&key);
        if let Some(watched) = removed {
            let _ = epoll::delete(&self.epoll, &watched.pidfd);
        }
    }

    pub(super) fn stop(&self) {
        self.watching.lock().is_stopped = true;
        self.ring();
    }

    fn ring(&self) {
        // It fails only when it has been rung four billion times already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// The thread's life.
    pub(super) fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut trimmed_at = SystemEnv.boot_time();
        while let Some(idle) = self.is_idle() {
            let period = Timespec { tv_sec: TRIM_PERIOD.as_secs().cast_signed(), tv_nsec: 0 };
            events.clear();
            let waited =
                epoll::wait(&self.epoll, spare_capacity(&mut events), (!idle).then_some(&period));
            if let Err(error) = waited
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "cannot wait for the end of processes any more");
                return;
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => drop(rustix::io::read(&self.wake, &mut [0; 8])),
                    key => self.ended(key),
                }
            }
            if SystemEnv.boot_time().saturating_sub(trimmed_at) >= TRIM_PERIOD {
                trimmed_at = SystemEnv.boot_time();
                self.trim();
            }
        }
    }

    fn ended(&self, key: u64) {
        let removed = self.watching.lock().by_key.remove(&key);
        if let Some(watched) = removed {
            let _ = epoll::delete(&self.epoll, &watched.pidfd);
            watched.await_entered();
            watched.ended(reap_child(watched.pidfd.as_fd()));
        }
    }

    /// Whether there is nothing to watch; `None` when it is to end.
    fn is_idle(&self) -> Option<bool> {
        let watching = self.watching.lock();
        (!watching.is_stopped).then_some(watching.by_key.is_empty())
    }

    fn trim(&self) {
        let all: Vec<_> = self.watching.lock().by_key.values().cloned().collect();
        all.iter().flat_map(|watched| &watched.bounded).for_each(|log| log.trim());
    }
}
