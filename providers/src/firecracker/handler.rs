//! The program that answers a clone's page faults, where memory is not mapped from the file.
//!
//! It gets the guest's userfaultfd on its socket and has to live as long as the guest, which
//! without it would stand still at the next fault while Firecracker says that it runs. So it
//! outlives hearth as the VM does, and either ends with the other: a VM without its handler is
//! failed, a handler without its VM is ended. It runs outside of jails, with hearth's own rights.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::FirecrackerBackend;
use super::machine::Machine;
use crate::backend::Place;
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::supervise::{AppendLog, Exit, Launch, Process, ProcessRecord};

/// In the instance's directory.
const RECORD: &str = "uffd.json";
const LOG: &str = "uffd.log";
const LOG_MAX_BYTES: u64 = 64 << 10;
/// How much of its words is given as the cause of an error, in bytes.
const LAST_WORDS_BYTES: usize = 1024;

/// The handler of one machine; most machines have none.
#[derive(Debug, Default)]
pub(super) struct Handler {
    process: Mutex<Option<Arc<Process>>>,
    /// How it ended before its machine did.
    lost: OnceLock<String>,
}

impl Handler {
    /// Ends it; does not wait for the end.
    pub(super) fn kill(&self) {
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    fn set(&self, process: Process) {
        *self.process.lock() = Some(Arc::new(process));
    }
}

impl Machine {
    /// The error of whatever failed because the handler ended before the machine did.
    pub(super) fn handler_error(&self) -> Option<VmRuntimeError> {
        let what = self.handler.lost.get()?.clone();
        let words = log(&self.vmm.dir).tail(LAST_WORDS_BYTES);
        Some(VmRuntimeError::Backend { what, source: Some(words.into()) })
    }

    /// From now on the machine ends with its handler.
    fn watch_handler(self: &Arc<Self>) {
        let Some(handler) = self.handler.process() else { return };
        let weak = Arc::downgrade(self);
        handler.on_exit(move |exit| {
            let Some(machine) = weak.upgrade() else { return };
            // One that ends because Firecracker does is not to blame, though its end may be
            // reported first.
            if machine.vmm.is_killed() || !machine.still_has_its_program() {
                return;
            }
            let reason = format!("its page fault handler {}", in_words(exit));
            let _ = machine.handler.lost.set(reason.clone());
            machine.vmm.give_up(reason);
        });
    }

    /// A process that ends loses its memory, and with it its program, before its connections.
    fn still_has_its_program(&self) -> bool {
        let process = self.vmm.process().filter(|process| process.exit().is_none());
        process.is_some_and(|process| {
            std::fs::read_link(format!("/proc/{}/exe", process.record().pid)).is_ok()
        })
    }
}

impl FirecrackerBackend {
    /// Starts the handler of a clone, and answers the name of its socket in the machine's home.
    /// Whoever calls this ends it should the clone fail.
    pub(super) fn launch_handler(
        &self,
        place: &Place,
        machine: &Arc<Machine>,
        program: &Path,
        memory: &Path,
    ) -> Result<String> {
        let home = machine.home();
        let socket_name = socket_name(place);
        let socket = home.root.join(&socket_name);
        // The path into a jail is longer than the address of a socket may be.
        let relative = socket.strip_prefix(&place.dir).unwrap_or(&socket);
        let arguments: [OsString; 2] = [relative.into(), memory.into()];
        let output = Arc::new(log(&place.dir));
        let name = format!("{}-uffd", place.uid);
        let mut launch = Launch::new(program, &arguments, &place.dir, &name, &output);
        launch.record = RECORD;
        machine.handler.set(self.supervisor.spawn(launch, vec![Arc::clone(&output)])?);
        machine.watch_handler();
        self.await_socket(machine, &socket_name)?;
        let admitted = home.admit(&socket_name);
        admitted.map_err(|error| {
            files::io_error("let Firecracker at its page fault handler".into(), error)
        })?;
        Ok(socket_name)
    }

    fn await_socket(&self, machine: &Machine, name: &str) -> Result<()> {
        let deadline = Deadline::after(self.config.start_timeout);
        let socket = machine.home().root.join(name);
        while !socket.exists() || !is_listening(name) {
            if let Some(error) = machine.handler_error() {
                return Err(error);
            }
            if !machine.vmm.is_alive() {
                return Err(machine.vmm.ended_error("while its page fault handler came up"));
            }
            if deadline.left().is_none() {
                let what = "a page fault handler, to listen,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: self.config.start_timeout });
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Takes up the handler of a machine that was taken up, if it has one.
    ///
    /// # Errors
    /// `Backend` when it has ended.
    pub(super) fn adopt_handler(&self, machine: &Arc<Machine>) -> Result<()> {
        let dir = &machine.vmm.dir;
        let Ok(record) = files::read_json::<ProcessRecord>(&dir.join(RECORD)) else {
            return Ok(());
        };
        let Some(process) = self.supervisor.adopt(record.clone(), dir, vec![Arc::new(log(dir))])
        else {
            self.supervisor.tidy(&record);
            let what = "its page fault handler ended while hearth did not run".to_owned();
            return Err(VmRuntimeError::Backend { what, source: None });
        };
        machine.handler.set(process);
        machine.watch_handler();
        Ok(())
    }

    /// Ends the handler, if there is one, waits for its end, bounded, and removes its cgroup.
    pub(super) fn end_handler(&self, machine: &Machine) {
        let Some(handler) = machine.handler.process.lock().take() else { return };
        // This end is wanted.
        handler.on_exit(|_| ());
        handler.kill();
        if handler.wait(self.config.kill_timeout).is_none() {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            tracing::warn!(process = ?handler.record(), %error, "a handler does not end");
        }
        self.supervisor.tidy(handler.record());
    }

    /// Removes the cgroup of the handler of an instance that nobody takes up; it has ended.
    pub(super) fn tidy_handler(&self, dir: &Path) {
        if let Ok(record) = files::read_json(&dir.join(RECORD)) {
            self.supervisor.tidy(&record);
        }
    }
}

/// In the machine's home: short, because the address of a socket is, and no other socket of this
/// host ends like it.
fn socket_name(place: &Place) -> String {
    let uid = place.uid.to_string();
    format!("uffd-{}.sock", uid.rsplit('-').next().unwrap_or(&uid))
}

/// Whether somebody listens on a socket that was bound to a path with this end. The file is there
/// an instant before, when a connection would be refused; and to connect for a try would be to
/// take Firecracker's turn, for many a handler accepts one connection alone.
fn is_listening(name: &str) -> bool {
    // Without the list there is the file alone to go by.
    let sockets = std::fs::read("/proc/net/unix");
    sockets.map_or(true, |sockets| lists_listener(&String::from_utf8_lossy(&sockets), name))
}

/// A line is: number, references, protocol, flags, type, state, inode, path.
fn lists_listener(sockets: &str, name: &str) -> bool {
    const ACCEPTS_CONNECTIONS: u32 = 1 << 16;
    let mut of_this_name = sockets.lines().filter(|line| line.ends_with(name));
    of_this_name.any(|line| {
        let flags = line.split_ascii_whitespace().nth(3);
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & ACCEPTS_CONNECTIONS != 0)
    })
}

fn log(dir: &Path) -> AppendLog {
    AppendLog::new(dir.join(LOG), LOG_MAX_BYTES)
}

fn in_words(exit: Exit) -> String {
    match exit {
        Exit::Status(status) => format!("exited with status {status}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::Unknown => "ended, and not as our child: how is unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_only_bound_is_not_listened_on() {
        let bound = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00000000 0001 01 41 uffd-1f.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 42 a b/uffd-2e.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 43\n";
        assert!(!lists_listener(bound, "uffd-1f.sock"));
        assert!(lists_listener(bound, "uffd-2e.sock"));
        assert!(!lists_listener(bound, "uffd-3d.sock"));
    }
}
