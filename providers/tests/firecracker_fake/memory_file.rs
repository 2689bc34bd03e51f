//! Memory files: as long as the guest's memory, and mostly holes.
//!
//! Two places hold data: the page of the guest's kernel, written when it boots, and what the
//! guest does with its memory, as JSON. A diff holds the first only if it was written since the
//! last snapshot, so one that was not laid over its base lacks the kernel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::bodies::SnapshotType;
use super::guest::Memory;

const PAGE_BYTES: usize = 4096;
const KERNEL_OFFSET: u64 = 0x1_0000;
const KERNEL: &[u8] = b"the guest's kernel";
const MEMORY_OFFSET: u64 = 0x2_0000;
const MAX_MEMORY_BYTES: usize = 0x1_0000;

/// What a memory file is found to be.
#[derive(Debug)]
pub(super) enum Found {
    /// The memory of a guest.
    Memory(Memory),
    /// Something that a guest cannot run in.
    Unusable,
}

/// Writes a guest's memory. A file of the same length is written into, as the real one does.
pub(super) fn write(
    path: &Path,
    kind: SnapshotType,
    bytes: u64,
    memory: &Memory,
    kernel_is_dirty: bool,
) -> Result<(), String> {
    let failed = |what: &str, error: &io::Error| {
        format!("Cannot perform {what} on the memory backing file: {error}")
    };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| failed("open", &error))?;
    let length = file.metadata().map_err(|error| failed("get_metadata", &error))?.len();
    if kind == SnapshotType::Full || length != bytes {
        file.set_len(0).map_err(|error| failed("truncate", &error))?;
    }
    file.set_len(bytes).map_err(|error| failed("set_length", &error))?;
    let mut text = serde_json::to_vec(memory).expect("memory is JSON");
    text.resize((text.len() + 1).next_multiple_of(PAGE_BYTES), 0);
    assert!(text.len() <= MAX_MEMORY_BYTES, "the guest keeps too much in memory");
    let written = file.write_all_at(&text, MEMORY_OFFSET);
    let written = written.and_then(|()| match kind == SnapshotType::Full || kernel_is_dirty {
        true => {
            let mut page = KERNEL.to_vec();
            page.resize(PAGE_BYTES, 0);
            file.write_all_at(&page, KERNEL_OFFSET)
        }
        false => Ok(()),
    });
    written.map_err(|error| format!("Cannot write memory file: {error}"))
}

/// Reads a guest's memory of so many `bytes`, which stays mapped as the real one maps it: privately, and
/// no page of it is touched that way. Nothing is ever written back.
pub(super) fn read(path: &Path, bytes: u64) -> Result<Found, String> {
    let file = File::open(path).map_err(|error| format!("Failed to load guest memory: {error}"))?;
    let failed = |error: io::Error| format!("Failed to restore guest memory: {error}");
    if file.metadata().map_err(failed)?.len() < bytes {
        let reason = "Total sum of memory regions exceeds largest possible file offset";
        return Err(format!("Failed to restore guest memory: {reason}"));
    }
    let length = usize::try_from(bytes).map_err(|error| failed(io::Error::other(error)))?;
    let (rights, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: the kernel picks addresses that nothing else has, and nobody is told of them.
    let mapped = unsafe { mmap(std::ptr::null_mut(), length, rights, flags, &file, 0) };
    mapped.map_err(|error| failed(error.into()))?;
    look(|into, offset| file.read_exact_at(into, offset)).map_err(failed)
}

/// Looks for a guest in memory that `read` reads, at an offset.
pub(super) fn look(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Found> {
    let mut kernel = [0; KERNEL.len()];
    read(&mut kernel, KERNEL_OFFSET)?;
    let mut text = vec![0; MAX_MEMORY_BYTES];
    read(&mut text, MEMORY_OFFSET)?;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    Ok(match (kernel == KERNEL, serde_json::from_slice(&text[..end])) {
        (true, Ok(memory)) => Found::Memory(memory),
        _ => Found::Unusable,
    })
}
