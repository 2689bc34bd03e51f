//! The byte channel to an agent in a guest, where it is a Unix socket of the VMM's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::error::{Result, VmRuntimeError};
use crate::local::socket;
use crate::model::EndpointKind;
use crate::provider::{GuestChannel, GuestStream};
use crate::turnstile::Taken;

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

/// The connection over `stream` for whoever has the VM; nothing of it is bounded by time.
///
/// # Errors
/// Those of the socket.
pub(crate) fn connection(
    kind: EndpointKind,
    half_closes: bool,
    stream: UnixStream,
    taken: Option<Taken>,
    timeout: Duration,
) -> Result<GuestStream> {
    let unbound = stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None));
    unbound.map_err(|error| opening(error, timeout))?;
    Ok(GuestStream::new(kind, half_closes, stream, taken))
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
