//! Connections to sockets in an instance's directory, however long its path is.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::beneath;

/// Connects to the socket `name` in `dir`: by way of its descriptor, for the address of a socket holds
/// 108 bytes, and so that a link that its program has put in its place leads to nobody else's socket.
/// Waits for up to `timeout` while the other side is busy.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` while nobody listens there; `WouldBlock` past the timeout;
/// `InvalidInput` or `ELOOP` where something else has the name.
pub(crate) fn connect(dir: &Path, name: &str, timeout: Duration) -> io::Result<UnixStream> {
    let opened = beneath::socket(&dir.join(name))?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// True of errors that say that the time was up.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
