//! The byte channel to an agent in the guest: a port of its vsock, behind a Unix socket.
//!
//! The host connects and says `CONNECT <port>`; Firecracker answers `OK <host port>` once the
//! guest has taken the connection, and closes it when nobody listens there.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::home::VSOCK;
use super::machine::Machine;
use crate::env::Deadline;
use crate::error::Result;
use crate::local::channel::{SocketChannel, connection, opening};
use crate::local::socket;
use crate::model::EndpointKind;
use crate::provider::{GuestChannel, GuestStream};

/// The longest line that Firecracker answers with.
const MAX_LINE_BYTES: usize = 64;

/// Connects to `port` of the machine's guest.
///
/// # Errors
/// `Exhausted` while another has the channel; `Unavailable` when nobody listens on the port;
/// `Timeout` when the guest does not take the connection.
pub(super) fn open(
    machine: &Machine,
    port: u32,
    timeout: Duration,
) -> Result<Box<dyn GuestChannel>> {
    let taken = machine.channel.take()?;
    let stream = connect(machine, port, timeout);
    SocketChannel::over(stream.map_err(|error| opening(error, timeout))?, taken, timeout)
}

/// Connects whoever has the VM to `port` of its guest; to its agent's port one at a time.
///
/// # Errors
/// As for [`open`].
pub(super) fn attach(
    machine: &Machine,
    port: u32,
    is_exclusive: bool,
    timeout: Duration,
) -> Result<GuestStream> {
    let taken = is_exclusive.then(|| machine.channel.take()).transpose()?;
    let stream = connect(machine, port, timeout).map_err(|error| opening(error, timeout))?;
    connection(EndpointKind::Vsock, true, stream, taken, timeout)
}

fn connect(machine: &Machine, port: u32, timeout: Duration) -> io::Result<UnixStream> {
    let deadline = Deadline::after(timeout);
    ask(socket::connect(&machine.home_path(), VSOCK, timeout)?, port, deadline, timeout)
}

/// Asks for a port at the other end of `stream`, which then is the way to it.
fn ask(
    mut stream: UnixStream,
    port: u32,
    deadline: Deadline,
    timeout: Duration,
) -> io::Result<UnixStream> {
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    // Byte by byte: what follows the line is the agent's.
    while !line.ends_with(b"\n") && line.len() < MAX_LINE_BYTES {
        let left = deadline.left().ok_or(io::ErrorKind::TimedOut)?;
        stream.set_read_timeout(Some(left))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => {
                let why = format!("nobody listens on port {port} of the guest's vsock");
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, why));
            }
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    match line.starts_with(b"OK ") {
        true => Ok(stream),
        false => {
            let said = String::from_utf8_lossy(&line).into_owned();
            Err(io::Error::new(io::ErrorKind::InvalidData, said))
        }
    }
}

/// Asks for a port of one that says `answer` whatever it hears, and then ends.
pub(super) fn fuzz(answer: &[u8]) {
    let Some(stream) = crate::fuzzing::peer(answer) else { return };
    let timeout = crate::fuzzing::TIMEOUT;
    let _ = ask(stream, 1024, Deadline::after(timeout), timeout);
}
