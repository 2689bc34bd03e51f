//! The byte channel to an agent in a guest, where it is a Unix socket of the VMM's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Result, VmRuntimeError};
use crate::local::socket;
use crate::provider::GuestChannel;

/// Whether somebody has the channel of a machine: one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turnstile(Arc<Mutex<bool>>);

/// The right to have it; given back when dropped.
pub(crate) struct Taken(Arc<Mutex<bool>>);

impl Turnstile {
    /// # Errors
    /// `Exhausted` while another has it: a VMM would let others wait in silence.
    pub(crate) fn take(&self) -> Result<Taken> {
        if std::mem::replace(&mut *self.0.lock(), true) {
            let what = "the guest's channel".to_owned();
            return Err(VmRuntimeError::Exhausted { what, retry_after: None });
        }
        Ok(Taken(Arc::clone(&self.0)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.lock() = false;
    }
}

/// A channel that is open.
pub(crate) struct SocketChannel {
    // Dropped in this order: whoever takes the channel next finds the connection closed.
    stream: UnixStream,
    _taken: Taken,
}

impl SocketChannel {
    /// The channel behind `stream`, each of whose reads and writes takes at most `timeout`.
    pub(crate) fn over(
        stream: UnixStream,
        taken: Taken,
        timeout: Duration,
    ) -> Result<Box<dyn GuestChannel>> {
        let mut channel = Self { stream, _taken: taken };
        channel.set_timeout(timeout).map_err(|error| opening(error, timeout))?;
        Ok(Box::new(channel))
    }
}

/// What became of opening a channel.
pub(crate) fn opening(error: io::Error, timeout: Duration) -> VmRuntimeError {
    if socket::is_timeout(&error) {
        let what = "the guest's channel".to_owned();
        return VmRuntimeError::Timeout { what, after: timeout };
    }
    VmRuntimeError::unavailable("open the guest's channel", error)
}

impl Read for SocketChannel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for SocketChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl GuestChannel for SocketChannel {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        // No time at all would mean for ever.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)
    }
}
