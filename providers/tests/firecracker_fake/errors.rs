//! The words in which the real one refuses, where several places use them.

use std::io;

pub(super) const ONLY_BEFORE_BOOT: &str =
    "The requested operation is not supported after starting the microVM.";
pub(super) const ONLY_AFTER_BOOT: &str =
    "The requested operation is not supported before starting the microVM.";
pub(super) const NO_MMDS_STORE: &str = "MMDS error: The MMDS data store is not initialized.";
pub(super) const NO_DEVICE: &str = "Failed perform action on device: Device not found";

/// A drive's file could not be opened.
pub(super) fn backing_file(error: &io::Error, path: &str) -> String {
    format!("Virtio backend error: Error manipulating the backing file: {error} {path}")
}

/// A vsock's socket could not be bound.
pub(super) fn bind(error: &io::Error) -> String {
    format!("Error binding to the host-side Unix socket: {error}")
}

/// A TAP is open elsewhere.
pub(super) fn busy_tap(name: &str) -> String {
    let busy = io::Error::from_raw_os_error(rustix::io::Errno::BUSY.raw_os_error());
    format!(
        "Open tap device failed: Error while creating ifreq structure: {busy}. Invalid TUN/TAP \
         Backend provided by {name}. Check our documentation on setting up the network devices."
    )
}
