//! A client of QEMU's monitor: a line asks, a line answers, with events between.
//!
//! Commands and answers are the types of `qapi`; the lines are read here, because each call has a
//! deadline as a whole, an answer is bounded, events are of no interest, and the end of the
//! stream is an error like others.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use qapi::{Command, Execute, qmp};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

use super::arguments::MONITOR;
use crate::env::Deadline;
use crate::local::socket;

/// The longest line that we take from QEMU.
const MAX_LINE_BYTES: usize = 4 << 20;

/// A connection to a monitor. QEMU serves one at a time.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
}

/// Why a command failed.
#[derive(Debug)]
pub(super) enum QmpError {
    /// QEMU says why it did not do it.
    Refused(String),
    /// There is no telling whether it did it. The connection is of no more use.
    Broken(io::Error),
}

impl From<io::Error> for QmpError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Qmp {
    /// Connects to the monitor of the instance in `dir`, and is ready for commands.
    pub(super) fn connect(dir: &Path, timeout: Duration) -> Result<Self, QmpError> {
        let deadline = Deadline::after(timeout);
        Self::greet(socket::connect(dir, MONITOR, timeout)?, deadline)
    }

    /// Hears the greeting at the other end of `stream`, and agrees on nothing but commands.
    fn greet(stream: UnixStream, deadline: Deadline) -> Result<Self, QmpError> {
        let mut qmp = Self { stream, received: Vec::new() };
        let greeting = qmp.receive(deadline)?;
        if greeting.get("QMP").is_none() {
            return Err(invalid(format!("QEMU greets with {greeting}")).into());
        }
        qmp.call(&qmp::qmp_capabilities { enable: None }, None, deadline)?;
        Ok(qmp)
    }

    /// Runs one command; all of it takes at most `timeout`.
    pub(super) fn execute<C: Command>(
        &mut self,
        command: &C,
        timeout: Duration,
    ) -> Result<C::Ok, QmpError> {
        self.call(command, None, Deadline::after(timeout))
    }

    /// Gives QEMU an open file, and answers the name that it can open it by, in the same mode. It has it
    /// until `remove_fd`, or until this connection has ended and it is not in use.
    pub(super) fn give_file(
        &mut self,
        file: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<(i64, String), QmpError> {
        let command = qmp::add_fd { fdset_id: None, opaque: None };
        let set = self.call(&command, Some(file), Deadline::after(timeout))?.fdset_id;
        Ok((set, format!("/dev/fdset/{set}")))
    }

    fn call<C: Command>(
        &mut self,
        command: &C,
        file: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<C::Ok, QmpError> {
        let mut line =
            serde_json::to_vec(&Execute::<&C>::from(command)).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.set_write_timeout(Some(left(deadline)?))?;
        let sent = file.map_or(Ok(0), |file| send_with(&self.stream, &line, file))?;
        self.stream.write_all(&line[sent..])?;
        loop {
            let mut answer = self.receive(deadline)?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(serde_json::from_value(result.take()).map_err(io::Error::from)?);
            }
            if let Some(error) = answer.get("error") {
                let text = error.get("desc").and_then(Value::as_str).map(str::to_owned);
                return Err(QmpError::Refused(text.unwrap_or_else(|| error.to_string())));
            }
        }
    }

    fn receive(&mut self, deadline: Deadline) -> io::Result<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.received.len() > MAX_LINE_BYTES {
                return Err(invalid("QEMU's answer has no end".to_owned()));
            }
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends the beginning of `bytes` with `file` beside it, and answers how many it were.
fn send_with(stream: &UnixStream, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    if !beside.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::NOSIGNAL;
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, flags)?)
}

fn left(deadline: Deadline) -> io::Result<Duration> {
    deadline.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What hearth asks of a monitor, asked of one that says `answers` whatever it hears, and then ends.
pub(super) fn fuzz(answers: &[u8]) {
    let Some(stream) = crate::fuzzing::peer(answers) else { return };
    let timeout = crate::fuzzing::TIMEOUT;
    let Ok(mut qmp) = Qmp::greet(stream, Deadline::after(timeout)) else { return };
    for _ in 0..8 {
        let ended = [
            qmp.execute(&qmp::query_status {}, timeout).map(drop),
            qmp.execute(&qmp::query_migrate {}, timeout).map(drop),
            qmp.execute(&qmp::query_block {}, timeout).map(drop),
            qmp.execute(&qmp::cont {}, timeout).map(drop),
        ];
        if ended.iter().all(|it| matches!(it, Err(QmpError::Broken(_)))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A monitor that says all of `lines` at once to whoever connects, then reads to the end.
    fn monitor(dir: &Path, lines: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(dir.join(MONITOR)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            io::read_to_string(stream).unwrap()
        })
    }

    #[test]
    fn events_are_passed_over_and_refusals_told() {
        let dir = tempfile::tempdir().unwrap();
        let script = concat!(
            "{\"QMP\": {}}\r\n{\"return\": {}}\r\n",
            "{\"event\": \"OF_THE_FUTURE\"}\n{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n",
        );
        let monitor = monitor(dir.path(), script);
        let mut qmp = Qmp::connect(dir.path(), TIMEOUT).unwrap();
        qmp.execute(&qmp::stop {}, TIMEOUT).unwrap();
        let refused = qmp.execute(&qmp::cont {}, TIMEOUT);
        assert!(matches!(refused, Err(QmpError::Refused(why)) if why == "not now"));
        let ended = qmp.execute(&qmp::cont {}, TIMEOUT);
        let eof = io::ErrorKind::UnexpectedEof;
        assert!(matches!(ended, Err(QmpError::Broken(error)) if error.kind() == eof));
        drop(qmp);
        let asked = monitor.join().unwrap();
        assert!(asked.contains("{\"execute\":\"stop\""), "{asked}");
    }

    #[test]
    fn a_silent_monitor_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(dir.path().join(MONITOR)).unwrap();
        let silent = Qmp::connect(dir.path(), Duration::from_millis(20));
        assert!(matches!(silent, Err(QmpError::Broken(error)) if socket::is_timeout(&error)));
    }
}
