//! Reads in the memory of a VM that maps it from a file, before its guest touches it.
//!
//! A clone maps the memory of its snapshot privately: each page comes in when the guest first touches
//! it, by a fault, and from a page cache that is cold by a read of the disk. Here this is done for it.
//! The mappings are found in `/proc/PID/maps` and read through `/proc/PID/mem`, page by page as the
//! VMM itself would read them: that puts the pages into its page table and copies none, so that clones
//! go on sharing them, and no page is dirty. A page that the guest then writes is still copied.
//!
//! Invariants:
//! - Both files are opened before the process is found alive by its pidfd. So they are of that process,
//!   and stay so: one that took its number later is not read.
//! - No more is read than the memory file holds, whatever the process has mapped, through one buffer.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::supervise::Vmm;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How far what cannot be read is left behind: a file that is shorter than its mapping has no end of
/// pages like that.
const SKIP_BYTES: u64 = 2 << 20;
/// A VMM has a few hundred mappings, of a hundred bytes each.
const MAPS_MAX_BYTES: u64 = 1 << 20;
/// How long a process may take to be gone after its memory is.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// What a guest's memory is mapped from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryFile<'a> {
    /// The file.
    pub(crate) path: &'a Path,
    /// What the VMM knows it as where it has a link or a copy of its own, which may be gone by
    /// now; empty when it never has.
    pub(crate) lent_as: &'a str,
}

impl<'a> MemoryFile<'a> {
    /// The file at `path`, which the VMM opens itself.
    #[cfg(feature = "qemu")]
    pub(crate) const fn at(path: &'a Path) -> Self {
        Self { path, lent_as: "" }
    }
}

/// Reads in what the process of `vmm` has mapped of `file`; answers how many bytes. Blocks for as long
/// as reading that much takes; ends early when the process does.
///
/// # Errors
/// `Unavailable` when the process has ended; `Backend` when the file is gone or this process may not
/// read the other's memory.
pub(crate) fn read_in(vmm: &Vmm, file: &MemoryFile<'_>) -> Result<u64> {
    let asked = "have its memory read in";
    let what = || format!("{}, asked to {asked}, has ended", vmm.program);
    let gone = || VmRuntimeError::Unavailable { what: what(), source: None };
    let process = vmm.process().ok_or_else(gone)?;
    let is_alive = || !process.has_ended();
    match touch(process.record().pid, file, &is_alive) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(match process.wait(LAST_BREATH) {
            Some(exit) => vmm.gone_error(exit, asked),
            None => gone(),
        }),
        Err(error) => {
            Err(files::io_error(format!("read in the memory of a {}", vmm.program), error))
        }
    }
}

/// As [`read_in`], of the process `pid`; `None` when it has ended.
fn touch(pid: u32, file: &MemoryFile<'_>, is_alive: &dyn Fn() -> bool) -> io::Result<Option<u64>> {
    let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
    let opened = open("mem").and_then(|memory| Ok((memory, open("maps")?)));
    if !is_alive() {
        return Ok(None);
    }
    let (memory, maps) = opened?;
    let identity = Identity::of(file)?;
    let mappings = identity.mappings(maps)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut touched, mut left) = (0, identity.length_bytes);
    for Mapping { mut start, end } in mappings {
        while start < end && left > 0 {
            let most = (end - start).min(left).min(CHUNK_BYTES as u64);
            let chunk = usize::try_from(most).unwrap_or(CHUNK_BYTES);
            let passed = match memory.read_at(&mut buffer[..chunk], start) {
                // Its memory went before it did.
                Ok(0) => return Ok(None),
                Ok(read) => {
                    touched += read as u64;
                    read as u64
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // Nothing is behind it, or it was taken away meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EFAULT)) => {
                    SKIP_BYTES - start % SKIP_BYTES
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
                Err(error) => return Err(error),
            };
            start += passed;
            left = left.saturating_sub(passed);
        }
    }
    Ok(is_alive().then_some(touched))
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
}

/// By what a mapping of the file is known.
struct Identity<'a> {
    /// As the kernel writes it. Not of every file system does it write the number that the file has.
    device_and_inode: (String, u64),
    path: Vec<u8>,
    lent_as: &'a [u8],
    length_bytes: u64,
}

impl<'a> Identity<'a> {
    fn of(file: &MemoryFile<'a>) -> io::Result<Self> {
        let metadata = fs::metadata(file.path)?;
        let device = metadata.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Self {
            device_and_inode: (format!("{major:02x}:{minor:02x}"), metadata.ino()),
            path: fs::canonicalize(file.path)?.into_os_string().into_encoded_bytes(),
            lent_as: file.lent_as.as_bytes(),
            length_bytes: metadata.len(),
        })
    }

    /// Those of the file that can be read, of what the kernel says that is mapped.
    fn mappings(&self, maps: impl io::Read) -> io::Result<Vec<Mapping>> {
        let mut lines = BufReader::new(maps.take(MAPS_MAX_BYTES));
        let (mut mappings, mut line) = (Vec::new(), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 {
            mappings.extend(self.mapping(line.trim_ascii_end()));
            line.clear();
        }
        Ok(mappings)
    }

    /// A line is: range, rights, offset, device, inode, and for files blanks and the path, which may
    /// have blanks in it.
    fn mapping(&self, line: &[u8]) -> Option<Mapping> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut text = || fields.next().and_then(|field| str::from_utf8(field).ok());
        let (range, rights, _offset) = (text()?, text()?, text()?);
        let (device, inode) = (text()?, text()?.parse::<u64>().ok()?);
        let path = fields.next()?.trim_ascii_start();
        let (start, end) = range.split_once('-')?;
        let is_same =
            (device, inode) == (self.device_and_inode.0.as_str(), self.device_and_inode.1);
        let is_ours = inode != 0 && (is_same || path == self.path || self.is_lent(path));
        let address = |text| u64::from_str_radix(text, 16).ok();
        let mapping = Mapping { start: address(start)?, end: address(end)? };
        (is_ours && rights.starts_with('r') && mapping.start < mapping.end).then_some(mapping)
    }

    /// Whether the path ends in the name that the file was lent under.
    fn is_lent(&self, path: &[u8]) -> bool {
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let name = path.rsplit(|byte| *byte == b'/').next();
        !self.lent_as.is_empty() && name == Some(self.lent_as)
    }
}

#[cfg(test)]
mod tests;
