//! Memory that somebody else fills: a mapping of nothing, whose page faults a handler answers.
//!
//! The descriptor that is handed over is a real userfaultfd and the faults are real, so that the
//! handler does for the fake all that it does for the real one. But the fake's guest reads its
//! memory once, while it is loaded: whether a guest stands still whose handler ended later, and
//! what happens to one that gives memory back, the fake cannot prove.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::json;

use super::memory_file::{self, Found};

const PAGE_BYTES: u64 = 4096;
/// Faults of programs alone, not of the kernel on their behalf: everybody may have those.
const USER_MODE_ONLY: u32 = 1;
/// The version of the interface.
const API_VERSION: u64 = 0xAA;
/// The handler is told of pages that were given back.
const EVENT_REMOVE: u64 = 1 << 3;
/// Faults on pages that are not there.
const MODE_MISSING: u64 = 1;

const API: Opcode = opcode::read_write::<Api>(0xAA, 0x3F);
const REGISTER: Opcode = opcode::read_write::<Register>(0xAA, 0x00);

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    calls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    calls: u64,
}

/// Reads a guest's memory of so many `bytes` from the handler on the socket at `path`. Blocks
/// until it has answered, for ever if need be.
pub(super) fn read(path: &Path, bytes: u64) -> Result<Found, String> {
    // A process loads once, and holds both until it ends.
    static HELD: OnceLock<(UnixStream, Faulting)> = OnceLock::new();
    let connection = UnixStream::connect(path);
    let connection =
        connection.map_err(|error| format!("Failed to connect to UDS Unix stream: {error}"))?;
    let failed = |error: io::Error| format!("Failed to create UFFD object: {error}");
    let memory = Faulting::new(bytes).map_err(failed)?;
    memory.hand_over(&connection).map_err(failed)?;
    let (_, memory) = HELD.get_or_init(|| (connection, memory));
    memory_file::look(|into, offset| {
        memory.read(into, offset);
        Ok(())
    })
    .map_err(failed)
}

/// Memory whose faults somebody else answers; it is there until the process ends.
#[derive(Debug)]
pub(crate) struct Faulting {
    /// The address of its first byte.
    base: u64,
    bytes: u64,
    uffd: OwnedFd,
}

impl Faulting {
    /// So many `bytes` of it.
    ///
    /// # Errors
    /// Those of a host that lets nobody answer faults.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: only a mapping that is made here, and that nobody else knows, is registered.
        let uffd = unsafe { rustix::mm::userfaultfd(flags) }?;
        control::<API, _>(&uffd, Api { version: API_VERSION, features: EVENT_REMOVE, calls: 0 })?;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let private = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the place, so nothing that is mapped is replaced.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ, private)
        }?;
        let base = base.expose_provenance() as u64;
        control::<REGISTER, _>(
            &uffd,
            Register { start: base, bytes, mode: MODE_MISSING, calls: 0 },
        )?;
        Ok(Self { base, bytes, uffd })
    }

    /// Gives the descriptor to whoever is at the other end, and says what it is for.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) fn hand_over(&self, connection: &UnixStream) -> io::Result<()> {
        let regions = json!([{
            "base_host_virt_addr": self.base,
            "size": self.bytes,
            "offset": 0,
            "page_size": PAGE_BYTES,
            "page_size_kib": PAGE_BYTES,
        }]);
        let descriptors = [self.uffd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let text = regions.to_string();
        let body = [IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg(connection, &body, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Reads what is at `offset`, once the handler has brought it.
    pub(crate) fn read(&self, into: &mut [u8], offset: u64) {
        assert!(offset + into.len() as u64 <= self.bytes, "that is outside of the memory");
        let from: *const u8 = std::ptr::with_exposed_provenance((self.base + offset) as usize);
        // SAFETY: the source lies in our mapping, which is never unmapped, and `into` does not.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Gives `bytes` at `offset` back, as a balloon does. Blocks until the handler was told.
    ///
    /// # Errors
    /// Those of the host.
    pub(crate) fn remove(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let from = std::ptr::with_exposed_provenance_mut((self.base + offset) as usize);
        // SAFETY: the pages are of our mapping, and nobody holds a reference into it.
        Ok(unsafe { rustix::mm::madvise(from, bytes, Advice::LinuxDontNeed) }?)
    }
}

fn control<const CALL: Opcode, T>(uffd: &OwnedFd, mut argument: T) -> io::Result<()> {
    // SAFETY: each call above is defined with the size of the structure that it is made with.
    let call = unsafe { Updater::<CALL, T>::new(&mut argument) };
    // SAFETY: what is registered is a mapping of this module's alone.
    Ok(unsafe { ioctl(uffd, call) }?)
}
