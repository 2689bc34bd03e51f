//! A guest that is only remembered, or kept in a file, and its channel.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use crate::agent::MAX_LINE_BYTES;
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::model::{CONSOLE_TAIL_BYTES, EndpointKind, Failure, NetworkInterface, VmStatus};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream};
use crate::turnstile::{Taken, Turnstile};

/// The most that a guest's console keeps, in bytes.
const MAX_CONSOLE_BYTES: usize = 64 * 1024;
/// The most that a guest's files may hold together, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The most that a guest which is paused is asked, in bytes.
const MAX_ASKED_BYTES: usize = 64 * 1024;
/// How often a guest that somebody is connected to is looked at: it may be paused, or gone.
const LOOK: Duration = Duration::from_millis(50);

/// What a snapshot captures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Guest {
    runs: bool,
    counter: u64,
    boot_id: String,
    name: Option<String>,
    files: BTreeMap<String, String>,
    interfaces: Vec<NetworkInterface>,
}

impl Guest {
    pub(super) fn switched_off(interfaces: Vec<NetworkInterface>) -> Self {
        Self { interfaces, ..Self::default() }
    }

    /// The guest as a restore finds it: it runs when it is told to.
    pub(super) fn at_rest(&self) -> Self {
        Self { runs: false, ..self.clone() }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        let files = self.files.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>();
        (size_of::<Self>() + files) as u64
    }

    pub(super) fn replace_interfaces(&mut self, overrides: &[NetworkInterface]) -> Result<()> {
        for wanted in overrides {
            let found = self.interfaces.iter_mut().find(|it| it.iface_id == wanted.iface_id);
            let found = found.ok_or_else(|| VmRuntimeError::InvalidSpec {
                field: "network_overrides",
                reason: format!("the snapshot has no interface {:?}", wanted.iface_id),
            })?;
            found.clone_from(wanted);
        }
        Ok(())
    }

    fn answer(&mut self, request: &str) -> Answer {
        let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
        let answer = match verb {
            "ping" => {
                self.counter += 1;
                let name = self.name.as_deref().unwrap_or("-");
                format!("pong counter={} boot_id={} name={name}", self.counter, self.boot_id)
            }
            "name" => {
                self.name = Some(rest.to_owned());
                format!("ok name={rest}")
            }
            "echo" => format!("echo {rest}"),
            "write" => match rest.split_once(' ') {
                Some((file, text)) if self.has_room(file, text) => {
                    self.files.insert(file.to_owned(), text.to_owned());
                    format!("ok bytes={}", text.len())
                }
                Some(_) => "error no space left".to_owned(),
                None => "error write takes a file and a text".to_owned(),
            },
            "read" => match self.files.get(rest) {
                Some(text) => format!("data {text}"),
                None => "error no such file".to_owned(),
            },
            "interfaces" => {
                let pairs = self.interfaces.iter();
                let pairs = pairs.map(|it| format!(" {}={}", it.iface_id, it.host_dev_name));
                format!("interfaces{}", pairs.collect::<String>())
            }
            "poweroff" => return Answer::Ends("the guest powered itself off"),
            "panic" => return Answer::Ends("the guest panicked"),
            _ => "error unknown request".to_owned(),
        };
        Answer::Line(answer)
    }

    fn has_room(&self, file: &str, text: &str) -> bool {
        let used: usize = self.files.iter().map(|(name, text)| name.len() + text.len()).sum();
        used + file.len() + text.len() <= MAX_FILE_BYTES
    }
}

enum Answer {
    Line(String),
    Ends(&'static str),
}

/// A guest and what is around it.
pub struct Machine {
    guest: Mutex<Guest>,
    console: Mutex<Vec<u8>>,
    failure: Mutex<Option<Failure>>,
    killed: AtomicBool,
    /// It was made of a spec and never ran. Read and written with `guest` locked.
    untouched: AtomicBool,
    /// Where it is kept; nowhere when it ends with this process.
    file: Option<PathBuf>,
    channel: Turnstile,
    env: Arc<dyn Env>,
    ended: Arc<dyn Fn(Failure) + Send + Sync>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("guest", &self.guest).finish_non_exhaustive()
    }
}

impl Machine {
    /// The machine of `kept`, which is written to `file` from now on.
    pub(super) fn new(
        kept: Kept,
        file: Option<PathBuf>,
        env: Arc<dyn Env>,
        ended: Arc<dyn Fn(Failure) + Send + Sync>,
    ) -> Self {
        Self {
            guest: Mutex::new(kept.guest),
            console: Mutex::new(kept.console.into_bytes()),
            failure: Mutex::new(kept.failure),
            killed: AtomicBool::new(false),
            untouched: AtomicBool::new(kept.status == VmStatus::Created),
            file,
            channel: Turnstile::default(),
            env,
            ended,
        }
    }

    /// Lets the guest run. One that never ran boots, also when it comes from a snapshot.
    pub(super) fn run(&self, boot_id: &str) -> Result<()> {
        self.check_alive()?;
        let mut guest = self.guest.lock();
        guest.runs = true;
        if guest.boot_id.is_empty() {
            guest.boot_id = boot_id.to_owned();
            self.print("READY\n");
        }
        self.untouched.store(false, Ordering::Release);
        self.keep(&guest)
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.check_alive()?;
        let mut guest = self.guest.lock();
        guest.runs = false;
        self.keep(&guest)
    }

    /// Writes down how it stands, where it is kept at all.
    pub(super) fn save(&self) -> Result<()> {
        self.keep(&self.guest.lock())
    }

    fn keep(&self, guest: &Guest) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let failure = self.failure();
        let status = match (&failure, guest.runs, self.untouched.load(Ordering::Acquire)) {
            (Some(_), ..) => VmStatus::Failed,
            (None, true, _) => VmStatus::Running,
            (None, false, true) => VmStatus::Created,
            (None, false, false) => VmStatus::Stopped,
        };
        let console = String::from_utf8_lossy(&self.console.lock()).into_owned();
        Kept { guest: guest.clone(), status, failure, console }.write(file)
    }

    pub(super) fn capture(&self) -> Result<Guest> {
        self.check_alive()?;
        Ok(self.guest.lock().clone())
    }

    /// Ends the guest by itself, for `reason`.
    pub fn fail(&self, reason: &str) {
        self.guest.lock().runs = false;
        let console = self.console.lock();
        let tail = &console[console.len().saturating_sub(CONSOLE_TAIL_BYTES)..];
        let failure = Failure {
            reason: reason.to_owned(),
            time: self.env.now(),
            exit_status: None,
            console_tail: String::from_utf8_lossy(tail).into_owned(),
        };
        drop(console);
        self.failure.lock().get_or_insert_with(|| failure.clone());
        if let Err(error) = self.save() {
            tracing::warn!(%error, "a guest's end is not written down");
        }
        (self.ended)(failure);
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().clone()
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
    }

    pub(super) fn answers(&self) -> bool {
        self.check_alive().is_ok() && self.guest.lock().runs
    }

    pub(super) fn console(&self, offset: u64, max: usize) -> ConsoleChunk {
        let console = self.console.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(console.len());
        let bytes = console[start..].iter().copied().take(max).collect::<Vec<_>>();
        ConsoleChunk { offset: start as u64, next_offset: (start + bytes.len()) as u64, bytes }
    }

    fn print(&self, text: &str) {
        let mut console = self.console.lock();
        if console.len() + text.len() <= MAX_CONSOLE_BYTES {
            console.extend_from_slice(text.as_bytes());
        }
    }

    fn check_alive(&self) -> Result<()> {
        let gone = self.killed.load(Ordering::Acquire) || self.failure.lock().is_some();
        match gone {
            true => Err(VmRuntimeError::Backend { what: "the guest is gone".into(), source: None }),
            false => Ok(()),
        }
    }
}

/// One conversation with a guest.
pub(super) struct Channel {
    machine: Arc<Machine>,
    asked: Vec<u8>,
    answers: Vec<u8>,
    taken: Option<Taken>,
}

impl Channel {
    pub(super) fn open(machine: &Arc<Machine>) -> Result<Box<dyn GuestChannel>> {
        Ok(Box::new(Self::over(machine)?))
    }

    fn over(machine: &Arc<Machine>) -> Result<Self> {
        let taken = Some(machine.channel.take()?);
        let machine = Arc::clone(machine);
        Ok(Self { machine, asked: Vec::new(), answers: Vec::new(), taken })
    }
}

/// Connects whoever has the VM to its agent: the other end of a pair of sockets is served by a thread of
/// its own, until it is closed or the guest is gone.
pub(super) fn connect(machine: &Arc<Machine>) -> Result<GuestStream> {
    let mut channel = Channel::over(machine)?;
    let failed = |error| VmRuntimeError::backend("make a pair of sockets", error);
    let (theirs, ours) = UnixStream::pair().map_err(failed)?;
    ours.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let thread = std::thread::Builder::new().name("hearth-guest".to_owned());
    let taken = channel.taken.take();
    let served = thread.spawn(move || drop(channel.serve(&ours)));
    served.map_err(|error| VmRuntimeError::backend("start a thread", error))?;
    Ok(GuestStream::new(EndpointKind::Unix, true, theirs, taken))
}

impl Channel {
    /// Answers what comes over `socket`, and closes it when no more comes.
    fn serve(&mut self, mut socket: &UnixStream) -> io::Result<()> {
        let mut bytes = [0; MAX_LINE_BYTES];
        let mut is_open = true;
        while is_open {
            if self.asked.len() < MAX_ASKED_BYTES {
                match socket.read(&mut bytes) {
                    Ok(0) => is_open = false,
                    Ok(count) => self.write_all(&bytes[..count])?,
                    Err(error) if is_silence(&error) => {}
                    Err(error) => return Err(error),
                }
            } else {
                // It is paused, and takes no more.
                std::thread::sleep(LOOK);
            }
            loop {
                match self.read(&mut bytes) {
                    Ok(0) => return Ok(()),
                    Ok(count) => socket.write_all(&bytes[..count])?,
                    Err(error) if is_silence(&error) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.machine.check_alive().is_err() {
            return Ok(0);
        }
        while self.machine.answers()
            && let Some(end) = self.asked.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.asked.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let answer = match line.len() > MAX_LINE_BYTES {
                true => Answer::Line("error line too long".to_owned()),
                false => {
                    let mut guest = self.machine.guest.lock();
                    let answer = guest.answer(line.trim_end());
                    match self.machine.keep(&guest) {
                        Ok(()) => answer,
                        Err(error) => Answer::Line(format!("error it is not kept: {error}")),
                    }
                }
            };
            match answer {
                Answer::Line(answer) => self.answers.extend_from_slice(answer.as_bytes()),
                Answer::Ends(reason) => {
                    self.machine.print(&format!("{reason}\n"));
                    self.answers.extend_from_slice(b"ok\n");
                    self.machine.fail(reason);
                    break;
                }
            }
            self.answers.push(b'\n');
        }
        // The beginning of a line that no end makes short enough.
        if self.machine.answers()
            && self.asked.len() > MAX_LINE_BYTES
            && !self.asked.contains(&b'\n')
        {
            self.asked.clear();
            self.answers.extend_from_slice(b"error line too long\n");
        }
        if self.answers.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let count = self.answers.len().min(into.len());
        into[..count].copy_from_slice(&self.answers[..count]);
        self.answers.drain(..count);
        Ok(count)
    }
}

impl GuestChannel for Channel {
    fn set_timeout(&mut self, _: Duration) -> io::Result<()> {
        // Nobody else answers meanwhile: what is not there at once never will be.
        Ok(())
    }
}
