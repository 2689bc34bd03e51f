//! The byte channel to an agent in the guest: a virtio serial port behind a socket of QEMU's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::arguments::AGENT;
use super::machine::Machine;
use super::socket;
use crate::error::{Result, VmRuntimeError};
use crate::provider::GuestChannel;

pub(super) struct Channel {
    // Dropped in this order: whoever takes the channel next finds the connection closed.
    stream: UnixStream,
    _taken: Taken,
}

/// QEMU serves one connection at a time, and lets others wait in silence: we say so instead.
struct Taken(Arc<AtomicBool>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Channel {
    pub(super) fn open(machine: &Machine, timeout: Duration) -> Result<Box<dyn GuestChannel>> {
        if machine.channel_taken.swap(true, Ordering::AcqRel) {
            let what = "the guest's channel".to_owned();
            return Err(VmRuntimeError::Exhausted { what, retry_after: None });
        }
        let taken = Taken(Arc::clone(&machine.channel_taken));
        let stream =
            socket::connect(&machine.dir, AGENT, timeout).map_err(
                |error| match socket::is_timeout(&error) {
                    true => VmRuntimeError::Timeout {
                        what: "the guest's channel".to_owned(),
                        after: timeout,
                    },
                    false => VmRuntimeError::unavailable("open the guest's channel", error),
                },
            )?;
        let mut channel = Self { stream, _taken: taken };
        let bounded = channel.set_timeout(timeout);
        bounded.map_err(|error| VmRuntimeError::unavailable("open the guest's channel", error))?;
        Ok(Box::new(channel))
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl GuestChannel for Channel {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        // No time at all would mean for ever.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)
    }
}
