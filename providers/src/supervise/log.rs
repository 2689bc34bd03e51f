//! A file that another process appends to, kept small from its front.
//!
//! The front is given back to the file system by punching a hole, so that the file keeps its
//! length, the writer notices nothing, and an offset means the same byte for ever, also after a
//! restart. Where the file system has no holes the file is cut to nothing; offsets then count on
//! for as long as this value lives.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};

use crate::beneath;
use crate::provider::ConsoleChunk;

/// Holes begin and end at blocks.
const BLOCK_BYTES: u64 = 4096;

/// A file that grows at its end only. It need not exist yet.
#[derive(Debug)]
pub struct AppendLog {
    path: PathBuf,
    max_bytes: u64,
    cut: Mutex<Cut>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    /// Where the file's first byte is, counted from the first that was ever written.
    base: u64,
    /// How much of the file is a hole.
    hole: u64,
}

impl AppendLog {
    /// The file at `path`, of which at least the last `max_bytes` are kept, and not much more
    /// than twice as many.
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        let hole = beneath::open(&path, OFlags::RDONLY)
            .and_then(|file| Ok(seek(&file, SeekFrom::Data(0))?));
        let cut = Cut { base: 0, hole: hole.unwrap_or(0) };
        Self { path, max_bytes, cut: Mutex::new(cut) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for a process that will write to it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_to_append(&self) -> io::Result<File> {
        beneath::open(&self.path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
    }

    /// At most `max` bytes from `offset` on, or from the first that is still there. Empty while
    /// there is no file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, offset: u64, max: usize) -> io::Result<ConsoleChunk> {
        let cut = self.cut.lock();
        let file = match beneath::open(&self.path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(ConsoleChunk::default());
            }
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len();
        let start = offset.saturating_sub(cut.base).max(cut.hole).min(end);
        let count = usize::try_from(end - start).unwrap_or(usize::MAX).min(max);
        let mut bytes = vec![0; count];
        let count = read_at(&file, &mut bytes, start)?;
        bytes.truncate(count);
        let offset = cut.base + start;
        Ok(ConsoleChunk { offset, next_offset: offset + count as u64, bytes })
    }

    /// The last `max` bytes as text; what cannot be read is left out.
    pub fn tail(&self, max: usize) -> String {
        let end = std::fs::symlink_metadata(&self.path).map_or(0, |metadata| metadata.len());
        let base = self.cut.lock().base;
        let read = self.read((base + end).saturating_sub(max as u64), max);
        read.map_or_else(|_| String::new(), |chunk| String::from_utf8_lossy(&chunk.bytes).into())
    }

    /// Gives the front back once there is twice as much as is to be kept.
    pub fn trim(&self) {
        let mut cut = self.cut.lock();
        let length = std::fs::symlink_metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length.saturating_sub(cut.hole) <= 2 * self.max_bytes {
            return;
        }
        let Ok(file) = beneath::open(&self.path, OFlags::WRONLY) else { return };
        let hole = (length - self.max_bytes) / BLOCK_BYTES * BLOCK_BYTES;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&file, flags, 0, hole).is_ok() {
            cut.hole = hole;
        } else if file.set_len(0).is_ok() {
            *cut = Cut { base: cut.base + length, hole: 0 };
        }
    }
}

fn read_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], start + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_front_goes_and_offsets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let log = AppendLog::new(dir.path().join("log"), 8192);
        assert_eq!(log.read(0, 10).unwrap(), ConsoleChunk::default());
        let mut writer = log.open_to_append().unwrap();
        for number in 0..5000_u64 {
            writer.write_all(&number.to_be_bytes()).unwrap();
        }
        log.trim();
        writer.write_all(b"the end").unwrap();
        let chunk = log.read(0, 8).unwrap();
        assert!(chunk.offset > 0 && 40_000 - chunk.offset >= 8192, "{}", chunk.offset);
        assert_eq!(chunk.bytes, (chunk.offset / 8).to_be_bytes());
        assert_eq!(log.read(40_000, 100).unwrap().bytes, b"the end");
        assert_eq!(log.tail(3), "end");
        let again = AppendLog::new(dir.path().join("log"), 8192);
        assert_eq!(again.read(0, 8).unwrap(), chunk, "also after a restart");
    }
}
