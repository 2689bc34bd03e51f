//! The guest: a counter on the console, an agent behind vsock, and memory that snapshots hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::env::{Env as _, SystemEnv};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::console::Console;
use super::disk::Files;

/// What is in the guest's memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The snapshot that this is of, as its state file names it.
    pub(super) snapshot: String,
    pub(super) count: u64,
    pub(super) pings: u64,
    pub(super) boot_id: String,
    pub(super) name: Option<String>,
    /// What the guest keeps when it has no writable drive.
    pub(super) files: Files,
}

/// The guest as its VMM and its agent's connections share it.
#[derive(Debug)]
pub(super) struct Guest {
    state: Mutex<State>,
    changed: Condvar,
    pub(super) console: Arc<Console>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) runs: bool,
    /// What the host sends on vsock no longer arrives.
    pub(super) is_deaf: bool,
    pub(super) memory: Memory,
    /// The first drive that can be written to.
    pub(super) drive: Option<File>,
    /// The interfaces, each with the host's device.
    pub(super) interfaces: Vec<(String, String)>,
    /// The open connections, by the host's port.
    pub(super) connections: BTreeMap<u32, UnixStream>,
    /// Connections that a snapshot ended; the host sees that after the resume.
    ended_connections: Vec<UnixStream>,
}

impl Guest {
    pub(super) fn new(console: Arc<Console>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), console })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The state, once the guest runs and hears. It stands still while this is held.
    pub(super) fn when_it_hears(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| !state.runs || state.is_deaf);
        state
    }

    /// Switches the guest on; it does not run yet.
    pub(super) fn boot(&self) {
        let mut state = self.state.lock();
        state.memory = Memory { boot_id: SystemEnv.uid().to_string(), ..Memory::default() };
        self.console.guest("READY\n");
    }

    /// Starts counting, paused or not.
    pub(super) fn count(self: &Arc<Self>, every: Duration) {
        let guest = Arc::clone(self);
        std::thread::spawn(move || {
            let mut state = guest.state.lock();
            loop {
                guest.changed.wait_while(&mut state, |state| !state.runs);
                state.memory.count += 1;
                let count = state.memory.count;
                guest.console.guest(&format!("count {count}\n"));
                MutexGuard::unlocked(&mut state, || std::thread::sleep(every));
            }
        });
    }

    pub(super) fn pause(&self) {
        self.state.lock().runs = false;
    }

    /// Lets the guest run, and the host see which connections have ended.
    pub(super) fn resume(&self, is_deaf: bool) {
        let mut state = self.state.lock();
        (state.runs, state.is_deaf) = (true, is_deaf);
        for connection in state.ended_connections.drain(..) {
            // It may have gone already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Ends every connection, as a snapshot does.
    pub(super) fn end_connections(&self) {
        let mut state = self.state.lock();
        let open = std::mem::take(&mut state.connections);
        state.ended_connections.extend(open.into_values());
    }
}
