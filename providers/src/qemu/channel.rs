//! The byte channel to an agent in the guest: a virtio serial port behind a socket of QEMU's.

use std::time::Duration;

use super::arguments::AGENT;
use super::machine::Machine;
use crate::error::Result;
use crate::local::channel::{SocketChannel, connection, opening};
use crate::local::socket;
use crate::model::EndpointKind;
use crate::provider::{GuestChannel, GuestStream};

/// Opens the machine's channel.
///
/// # Errors
/// `Exhausted` while another has it; `Timeout` or `Unavailable` when QEMU does not take it.
pub(super) fn open(machine: &Machine, timeout: Duration) -> Result<Box<dyn GuestChannel>> {
    let taken = machine.channel.take()?;
    let stream = socket::connect(machine.dir(), AGENT, timeout);
    SocketChannel::over(stream.map_err(|error| opening(error, timeout))?, taken, timeout)
}

/// Connects whoever has the VM to its channel. A serial port has no ends: QEMU takes the end of one half
/// of the socket for the end of the connection.
///
/// # Errors
/// As for [`open`].
pub(super) fn connect(machine: &Machine, timeout: Duration) -> Result<GuestStream> {
    let taken = machine.channel.take()?;
    let stream = socket::connect(machine.dir(), AGENT, timeout);
    let stream = stream.map_err(|error| opening(error, timeout))?;
    connection(EndpointKind::Unix, false, stream, Some(taken), timeout)
}
