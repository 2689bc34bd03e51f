//! Guests that are not reached as they should be.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmId;
use hearth_providers::VmRuntimeError::{Exhausted, InvalidTransition};
use hearth_providers::error::Result;
use hearth_providers::model::EndpointKind;
use hearth_providers::provider::{GuestChannel, GuestStream};
use parking_lot::Mutex;

use crate::deviant::Deviation;

pub(crate) const ALL: &[Deviation] = &[
    ("a guest channel has several holders", |it| {
        it.channel = Box::new(|inner, vm_id| match inner.guest_channel(vm_id) {
            Err(Exhausted { .. }) => Ok(Box::new(Silent)),
            done => done,
        });
    }),
    ("a guest channel is never free again", |it| {
        let kept: Arc<Mutex<Vec<Arc<Kept>>>> = Arc::default();
        it.channel = Box::new(move |inner, vm_id| {
            let channel = Arc::new(Mutex::new(inner.guest_channel(vm_id)?));
            kept.lock().push(Arc::clone(&channel));
            Ok(Box::new(Shared(channel)))
        });
    }),
    ("a stopped guest can be talked to", |it| {
        it.channel = Box::new(|inner, vm_id| match inner.guest_channel(vm_id) {
            Err(InvalidTransition { .. }) => Ok(Box::new(Silent)),
            done => done,
        });
    }),
    ("a stopped guest can be connected to", |it| {
        it.connect = Box::new(|inner, vm_id, port| match inner.connect_vm(vm_id, *port) {
            Err(InvalidTransition { .. }) => Ok(unconnected()),
            done => done,
        });
    }),
    ("a connection leads nowhere", |it| {
        it.connect = Box::new(|inner, vm_id, port| {
            let (_, held) = inner.connect_vm(vm_id, *port)?.into_parts();
            let (theirs, ours) = UnixStream::pair().expect("there are sockets");
            Ok(GuestStream::new(EndpointKind::Unix, true, theirs, (ours, held)))
        });
    }),
    ("a stopped VM is alive", |it| {
        it.probe =
            Box::new(|inner, vm_id, probe, timeout| match inner.probe(vm_id, probe, timeout) {
                Err(InvalidTransition { .. }) => Ok(()),
                done => done,
            });
    }),
    ("a stop loses memory", |it| {
        let starts: Arc<Mutex<HashMap<VmId, u32>>> = Arc::default();
        let started = Arc::clone(&starts);
        it.start = Box::new(move |inner, vm_id| {
            inner.start_vm(vm_id)?;
            *starts.lock().entry(vm_id.clone()).or_default() += 1;
            Ok(())
        });
        it.channel = Box::new(move |inner, vm_id| {
            let boots = started.lock().get(vm_id).copied().unwrap_or_default();
            let restored = inner.get_vm(vm_id).is_some_and(|vm| vm.restored_from.is_some());
            twisted(inner.guest_channel(vm_id)?, move |line| {
                let rebooted = line.starts_with("pong ") && restored && boots > 0;
                rebooted.then(|| line.replacen("boot_id=", &format!("boot_id={boots}"), 1))
            })
        });
    }),
    ("the console always begins at the beginning", |it| {
        it.console = Box::new(|inner, vm_id, _, max| inner.console(vm_id, 0, max));
    }),
    ("the console ignores how much was asked for", |it| {
        it.console = Box::new(|inner, vm_id, offset, _| inner.console(vm_id, offset, 1 << 20));
    }),
    ("the console miscounts", |it| {
        it.console = Box::new(|inner, vm_id, offset, max| {
            let mut chunk = inner.console(vm_id, offset, max)?;
            chunk.next_offset += u64::from(!chunk.bytes.is_empty());
            Ok(chunk)
        });
    }),
];

/// A connection to nobody.
fn unconnected() -> GuestStream {
    let (theirs, ours) = UnixStream::pair().expect("there are sockets");
    GuestStream::new(EndpointKind::Unix, true, theirs, ours)
}

type Kept = Mutex<Box<dyn GuestChannel>>;

/// Nobody is at the other end.
struct Silent;

impl Read for Silent {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Write for Silent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl GuestChannel for Silent {
    fn set_timeout(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

struct Shared(Arc<Kept>);

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(into)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}

impl GuestChannel for Shared {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.0.lock().set_timeout(timeout)
    }
}

/// What is answered instead, knowing the question.
type Twist = Box<dyn FnMut(&str, &str) -> Option<String> + Send>;

/// A channel whose answers are twisted line by line.
struct Twisted {
    channel: Box<dyn GuestChannel>,
    twist: Twist,
    asked: Vec<u8>,
    heard: Vec<u8>,
    answers: Vec<u8>,
}

/// A channel that answers what `twist` makes of a line, where it makes something of it.
pub(crate) fn twisted(
    channel: Box<dyn GuestChannel>,
    mut twist: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> Result<Box<dyn GuestChannel>> {
    overheard(channel, move |_, answer| twist(answer))
}

/// As [`twisted`], with the last line that was asked.
pub(crate) fn overheard(
    channel: Box<dyn GuestChannel>,
    twist: impl FnMut(&str, &str) -> Option<String> + Send + 'static,
) -> Result<Box<dyn GuestChannel>> {
    let (asked, heard, answers) = (Vec::new(), Vec::new(), Vec::new());
    Ok(Box::new(Twisted { channel, twist: Box::new(twist), asked, heard, answers }))
}

impl Read for Twisted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.answers.is_empty() {
            let mut bytes = [0; 512];
            let count = self.channel.read(&mut bytes)?;
            if count == 0 {
                return Ok(0);
            }
            self.heard.extend_from_slice(&bytes[..count]);
            while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let asked = String::from_utf8_lossy(&self.asked).into_owned();
                let asked = asked.trim_end().rsplit('\n').next().unwrap_or_default();
                let twisted = (self.twist)(asked, line.trim_end());
                let line = twisted.map_or_else(|| line.into_owned(), |line| line + "\n");
                self.answers.extend_from_slice(line.as_bytes());
            }
        }
        let count = self.answers.len().min(into.len());
        into[..count].copy_from_slice(&self.answers[..count]);
        self.answers.drain(..count);
        Ok(count)
    }
}

impl Write for Twisted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.channel.write(bytes)?;
        self.asked.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.channel.flush()
    }
}

impl GuestChannel for Twisted {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.channel.set_timeout(timeout)
    }
}
