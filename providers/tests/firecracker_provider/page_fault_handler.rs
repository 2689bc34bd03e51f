//! A page fault handler: a program that fills a clone's memory as the guest touches it.
//!
//! The test binary is that program when it is asked to be. It serves one guest, page by page,
//! and ends with it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde::Deserialize;

use crate::firecracker_fake::write_program;

/// The first argument of a process that is to be the handler.
const FAITHFUL: &str = "--page-fault-handler";
/// The same, of one that leaves as soon as it is needed.
const FAITHLESS: &str = "--faithless-page-fault-handler";

/// Messages of the kernel have this size.
const MESSAGE_BYTES: usize = 32;
const PAGE_FAULT: u8 = 0x12;
const REMOVE: u8 = 0x15;

const COPY: Opcode = opcode::read_write::<Copy>(0xAA, 0x03);
const ZEROPAGE: Opcode = opcode::read_write::<ZeroPage>(0xAA, 0x04);

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct ZeroPage {
    start: u64,
    bytes: u64,
    mode: u64,
    zeroed: i64,
}

/// Guest memory as Firecracker describes it.
#[derive(Debug, Deserialize)]
struct Region {
    base_host_virt_addr: u64,
    size: u64,
    /// In the memory file.
    offset: u64,
    page_size: u64,
}

/// Installs the program into `dir`; answers its path. A faithless one gets the guest's faults
/// and leaves.
pub(crate) fn install(dir: &Path, is_faithful: bool) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let role = if is_faithful { FAITHFUL } else { FAITHLESS };
    script(dir, role, &format!("exec '{}' {role} \"$@\"", test.display()))
}

/// Writes a program of the shell's `words` into `dir`.
pub(crate) fn script(dir: &Path, name: &str, words: &str) -> PathBuf {
    let path = dir.join(name.trim_start_matches('-'));
    write_program(&path, &format!("#!/bin/sh\n{words}\n"));
    path
}

/// Is the program when this process was started for that; answers how it ended.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    let is_faithful = role == FAITHFUL;
    if !is_faithful && role != FAITHLESS {
        return None;
    }
    let (socket, memory) = (arguments.next()?, arguments.next()?);
    Some(match serve(socket.as_ref(), memory.as_ref(), is_faithful) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("page faults are not answered any more: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Serves the guest that comes to `socket` out of the file `memory` until it is gone.
///
/// # Errors
/// Whatever keeps a fault from being answered.
pub(crate) fn serve(socket: &Path, memory: &Path, is_faithful: bool) -> io::Result<()> {
    let memory = File::open(memory)?;
    let (connection, _) = UnixListener::bind(socket)?.accept()?;
    let (regions, uffd) = receive(&connection)?;
    if !is_faithful {
        return Ok(());
    }
    let mut guest = Guest { memory, regions, uffd, removed: Vec::new(), waiting: Vec::new() };
    // The connection says nothing more: only that it ended, with the guest.
    while !guest.await_event(&connection)? {
        guest.read_events()?;
        guest.answer()?;
    }
    Ok(())
}

/// What Firecracker says: where the guest's memory is, and the descriptor that comes with it.
fn receive(connection: &UnixStream) -> io::Result<(Vec<Region>, OwnedFd)> {
    let (mut text, mut descriptor) = (Vec::new(), None);
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(connection, &mut into, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last().or(descriptor);
            }
        }
        text.extend_from_slice(&bytes[..received.bytes]);
        match (serde_json::from_slice(&text), descriptor) {
            (Ok(regions), Some(uffd)) => return Ok((regions, uffd)),
            (_, kept) => descriptor = kept,
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The guest that is served.
struct Guest {
    memory: File,
    regions: Vec<Region>,
    uffd: OwnedFd,
    /// What it has given back; there it reads zeros.
    removed: Vec<Range<u64>>,
    /// Addresses that it waits for.
    waiting: Vec<u64>,
}

impl Guest {
    /// Waits until there is something to do; true when the guest is gone.
    fn await_event(&self, connection: &UnixStream) -> io::Result<bool> {
        // What could not be answered yet is tried again, event or not.
        let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let timeout = (!self.waiting.is_empty()).then_some(&soon);
        let mut ready =
            [PollFd::new(connection, PollFlags::RDHUP), PollFd::new(&self.uffd, PollFlags::IN)];
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(!ready[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_events(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64 * MESSAGE_BYTES];
        let count = match rustix::io::read(&self.uffd, &mut bytes) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for message in bytes[..count].chunks_exact(MESSAGE_BYTES) {
            let number = |at: usize| {
                let field = message[at..at + 8].first_chunk().copied();
                field.map_or(0, u64::from_ne_bytes)
            };
            match message[0] {
                PAGE_FAULT => self.waiting.push(number(16)),
                REMOVE => self.removed.push(number(8)..number(16)),
                event => return Err(io::Error::other(format!("event {event:#x} is unknown"))),
            }
        }
        Ok(())
    }

    /// Answers what is waited for, as far as the kernel lets us now.
    fn answer(&mut self) -> io::Result<()> {
        for address in std::mem::take(&mut self.waiting) {
            match self.bring(address) {
                // It is there already: another processor has touched it, too. Or nobody needs it
                // any more, for the guest has ended.
                Ok(()) | Err(Errno::EXIST | Errno::SRCH) => {}
                // Something was given back meanwhile: that has to be read first.
                Err(Errno::AGAIN) => self.waiting.push(address),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn bring(&self, address: u64) -> Result<(), Errno> {
        let of = |region: &&Region| {
            (region.base_host_virt_addr..region.base_host_virt_addr + region.size)
                .contains(&address)
        };
        let region = self.regions.iter().find(of).ok_or(Errno::FAULT)?;
        let bytes = region.page_size;
        let page = address - (address - region.base_host_virt_addr) % bytes;
        if self.removed.iter().any(|removed| removed.contains(&page)) {
            return self.call::<ZEROPAGE, _>(ZeroPage { start: page, bytes, mode: 0, zeroed: 0 });
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| Errno::INVAL)?];
        let offset = region.offset + (page - region.base_host_virt_addr);
        self.memory.read_exact_at(&mut content, offset).map_err(|_| Errno::IO)?;
        let from = content.as_ptr().expose_provenance() as u64;
        self.call::<COPY, _>(Copy { to: page, from, bytes, mode: 0, copied: 0 })
    }

    fn call<const CALL: Opcode, T>(&self, mut argument: T) -> Result<(), Errno> {
        // SAFETY: each call above is defined with the size of the structure that it is made with.
        let call = unsafe { Updater::<CALL, T>::new(&mut argument) };
        // SAFETY: only pages that the guest waits for are written, and only whole buffers are read.
        unsafe { ioctl(&self.uffd, call) }
    }
}
