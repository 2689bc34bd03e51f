//! Which devices this machine has, as far as the agent cares.

use std::fs;
use std::path::{Path, PathBuf};

/// Name that the host gives the virtio-serial port of the guest channel.
const PORT_NAME: &str = "agent";

/// Kinds of virtio devices, by the numbers that its standard gives them.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Virtio {
    /// A disk.
    Block = 2,
    /// A console, or serial ports.
    Console = 3,
}

/// The device of the guest channel: the virtio-serial port named `agent`, else the second
/// serial port, else the second virtio console. `None` when there is none of them, yet.
pub(crate) fn guest_channel() -> Option<PathBuf> {
    let second_console = || Some(PathBuf::from("/dev/hvc1")).filter(|path| path.exists());
    virtio_port(PORT_NAME).or_else(second_serial).or_else(second_console)
}

/// Whether a virtio bus of this machine has a device of this `kind`.
pub(crate) fn is_present(kind: Virtio) -> bool {
    let Ok(devices) = fs::read_dir("/sys/bus/virtio/devices") else { return false };
    devices.flatten().any(|device| {
        let told = fs::read_to_string(device.path().join("device")).unwrap_or_default();
        let number =
            told.trim().strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        number == Some(kind as u32)
    })
}

/// The device of the virtio-serial port that the host named `name`.
fn virtio_port(name: &str) -> Option<PathBuf> {
    let port = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|told| told.trim() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name())).filter(|path| path.exists())
}

/// The second serial port if there is one: its node exists whether or not there is.
fn second_serial() -> Option<PathBuf> {
    let kind = fs::read_to_string("/sys/class/tty/ttyS1/type").ok()?;
    (kind.trim() != "0").then(|| PathBuf::from("/dev/ttyS1"))
}
