//! The program that answers a clone's page faults, where memory is not mapped from the file.
//!
//! It gets the guest's userfaultfd on its socket and has to live as long as the guest, which
//! without it would stand still at the next fault while Firecracker says that it runs. So it
//! outlives hearth as the VM does, and with it ends the VM.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::FirecrackerBackend;
use super::machine::Machine;
use crate::backend::Place;
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::supervise::{AppendLog, Launch, Process, ProcessRecord};

/// In the machine's home.
const SOCKET: &str = "uffd.sock";
/// In the instance's directory.
const RECORD: &str = "uffd.json";
const LOG: &str = "uffd.log";
const LOG_MAX_BYTES: u64 = 64 << 10;

impl FirecrackerBackend {
    /// Starts the handler of a clone, and answers the name of its socket in the machine's home.
    pub(super) fn launch_handler(
        &self,
        place: &Place,
        machine: &Machine,
        program: &Path,
        memory: &Path,
    ) -> Result<&'static str> {
        let home = machine.home();
        let socket = home.root.join(SOCKET);
        let relative = socket.strip_prefix(&place.dir).unwrap_or(&socket);
        let arguments: [OsString; 2] = [relative.into(), memory.into()];
        let output = Arc::new(AppendLog::new(place.dir.join(LOG), LOG_MAX_BYTES));
        let name = format!("{}-uffd", place.uid);
        let mut launch = Launch::new(program, &arguments, &place.dir, &name, &output);
        launch.record = RECORD;
        let process = self.supervisor.spawn(launch, vec![Arc::clone(&output)])?;
        let deadline = Deadline::after(self.config.start_timeout);
        let ready = loop {
            if socket.exists() {
                break home.admit(SOCKET).map_err(|error| {
                    files::io_error("let Firecracker at its page fault handler".into(), error)
                });
            }
            if process.exit().is_some() || deadline.left().is_none() {
                let what = format!("{}, to listen for page faults,", program.display());
                break Err(VmRuntimeError::Backend {
                    what,
                    source: Some(output.tail(1024).into()),
                });
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        *machine.handler.lock() = Some(process);
        ready.map(|()| SOCKET)
    }

    /// From now on the machine ends with its handler.
    pub(super) fn watch_handler(machine: &Arc<Machine>) {
        if let Some(handler) = &*machine.handler.lock() {
            let weak = Arc::downgrade(machine);
            handler.on_exit(move |exit| {
                if let Some(machine) = weak.upgrade().filter(|machine| !machine.vmm.is_killed()) {
                    let reason = format!("its page fault handler ended ({exit:?})");
                    machine.vmm.give_up(reason);
                }
            });
        }
    }

    pub(super) fn adopt_handler(&self, machine: &Machine) {
        let dir = &machine.vmm.dir;
        let Ok(record) = files::read_json::<ProcessRecord>(&dir.join(RECORD)) else { return };
        let log = Arc::new(AppendLog::new(dir.join(LOG), LOG_MAX_BYTES));
        match self.supervisor.adopt(record.clone(), dir, vec![log]) {
            Some(process) => *machine.handler.lock() = Some(process),
            None => {
                self.supervisor.tidy(&record);
                machine.vmm.give_up("its page fault handler ended".to_owned());
            }
        }
    }

    pub(super) fn end_handler(&self, machine: &Machine) {
        let handler: Option<Process> = machine.handler.lock().take();
        if let Some(handler) = handler {
            handler.kill();
            if handler.wait(self.config.kill_timeout).is_none() {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                tracing::warn!(process = ?handler.record(), %error, "a handler does not end");
            }
            self.supervisor.tidy(handler.record());
        }
    }
}
