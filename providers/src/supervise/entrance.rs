//! One thread that moves new processes into their cgroups.
//!
//! At each move the kernel waits until every processor has passed a point of rest: some ten
//! milliseconds, as many as a whole restore takes. So a process comes up meanwhile, and nobody
//! waits for its move but the watcher: a process is moved by its number, which is its own until
//! it is reaped. Should hearth end before the move, the process stays in hearth's cgroup.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::cgroup::Cgroups;
use super::watcher::Watched;

/// The most processes that wait; whoever starts one more waits, too.
const MAX_WAITING: usize = 256;

/// Where processes wait for their move. Dropped, it lets the thread finish and end.
#[derive(Debug)]
pub(super) struct Entrance(SyncSender<Entering>);

/// A process on its way into a cgroup.
#[derive(Debug)]
struct Entering {
    watched: Arc<Watched>,
    pid: u32,
    cgroup: PathBuf,
}

impl Entrance {
    pub(super) fn open(cgroups: Cgroups) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("hearth-cgroups".to_owned());
        let thread = thread.spawn(move || run(&cgroups, &receiver))?;
        Ok((Self(sender), thread))
    }

    /// Has the process moved into `cgroup`, soon; says so to `watched`, also when it failed.
    pub(super) fn enter(&self, watched: &Arc<Watched>, pid: u32, cgroup: PathBuf) {
        let entering = Entering { watched: Arc::clone(watched), pid, cgroup };
        if let Err(unsent) = self.0.send(entering) {
            unsent.0.watched.entered();
        }
    }
}

fn run(cgroups: &Cgroups, waiting: &Receiver<Entering>) {
    for Entering { watched, pid, cgroup } in waiting {
        // Of one that is not reaped the number is not yet another's.
        cgroups.enter(&cgroup, pid);
        watched.entered();
    }
}
