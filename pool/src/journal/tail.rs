//! Looks through the store's log before the store does: whether its tail is torn or its body
//! damaged.
//!
//! The store writes a batch for each change: a start with the number of items, the items, a
//! checksum of them, an end. Left alone it would refuse a batch in the tail whose checksum is
//! wrong, and silently forget everything behind a batch in the middle whose frame is broken. Both
//! are decided here instead:
//!
//! - What is not whole and has nothing whole behind it is a **torn tail**: it is cut at the end
//!   of the last whole batch.
//! - So is what lies from a page on that was never written (the host lost power, and the kernel
//!   had not written the pages in their order), if nothing that was fsynced lies behind it.
//! - Anything else is **damage**, and nobody but a person may decide what is given up.
//!
//! Zeros at the end are neither: the store makes its files larger than what is in them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hearth_providers::beneath;
use rustix::fs::OFlags;

use super::Control;

const PAGE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 64 * PAGE_BYTES;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// What was cut off the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The file.
    pub(super) file: PathBuf,
    /// Where the last whole batch ends.
    pub(super) at: u64,
    /// How many bytes lay behind it, zeros at the end not counted.
    pub(super) bytes: u64,
}

/// Why the log cannot be used.
#[derive(Debug)]
pub(super) enum Broken {
    /// It cannot be read or cut.
    Io(io::Error),
    /// Something in its middle is not whole.
    Body {
        /// The file.
        file: PathBuf,
        /// Where it begins.
        at: u64,
    },
}

/// The file that the store appends to: the one with the highest number.
pub(super) fn active(dir: &Path) -> io::Result<Option<PathBuf>> {
    Ok(logs(dir)?.pop())
}

/// Checks every file of the log, and cuts the active one at the end of its last whole batch.
/// Blocks on the disk.
///
/// # Errors
/// [`Broken`].
pub(super) fn cut_torn(dir: &Path) -> Result<Option<Cut>, Broken> {
    let logs = logs(dir).map_err(Broken::Io)?;
    let Some((active, sealed)) = logs.split_last() else { return Ok(None) };
    for file in sealed {
        let bytes = read(file).map_err(Broken::Io)?;
        let whole = whole_batches(&bytes, 0);
        // It was fsynced before the next one was begun: nothing in it can be torn.
        if whole < bytes.len() {
            return Err(Broken::Body { file: file.clone(), at: whole as u64 });
        }
    }
    let bytes = read(active).map_err(Broken::Io)?;
    let whole = whole_batches(&bytes, 0);
    let at = whole as u64;
    if !is_torn(&bytes, whole) {
        return Err(Broken::Body { file: active.clone(), at });
    }
    truncate(active, at).map_err(Broken::Io)?;
    let lost = (bytes.len() - whole) as u64;
    Ok((lost > 0).then(|| Cut { file: active.clone(), at, bytes: lost }))
}

/// The log's files in their order.
fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|it| it == "jnl")) {
            numbered.push((number, path));
        }
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// What is in a file, without the zeros at its end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = beneath::open(path, OFlags::RDONLY)?;
    let (mut bytes, mut zeros) = (Vec::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        if chunk[..count] == ZEROS[..count] {
            zeros += count;
            continue;
        }
        bytes.resize(bytes.len() + zeros, 0);
        zeros = 0;
        bytes.extend_from_slice(&chunk[..count]);
    }
    // The last byte of a batch is not zero.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    Ok(bytes)
}

fn truncate(path: &Path, len: u64) -> io::Result<()> {
    let file = beneath::open(path, OFlags::WRONLY)?;
    if file.metadata()?.len() != len {
        file.set_len(len)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Where the batches that follow each other from `begin` on end.
fn whole_batches(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin;
    while let Some(batch) = batch(&bytes[at..]) {
        at += batch.len;
    }
    at
}

/// Whether what is not whole from `at` on may be cut.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    let candidates = bytes.iter().enumerate().skip(at + 1).filter(|(_, byte)| **byte == START);
    let mut whole = candidates.filter_map(|(begin, _)| Some((begin, batch(&bytes[begin..])?)));
    let Some((next, first)) = whole.next() else { return true };
    let has_unwritten_page =
        (at.next_multiple_of(PAGE_BYTES)..next).step_by(PAGE_BYTES).any(|page| {
            bytes.get(page..page + PAGE_BYTES).is_some_and(|it| *it == ZEROS[..PAGE_BYTES])
        });
    has_unwritten_page && !first.is_fsynced && !whole.any(|(_, batch)| batch.is_fsynced)
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What the store writes behind each batch.
const TRAILER: &[u8] = b"FJL\x03";

struct Batch {
    len: usize,
    /// It has what operators decided.
    is_fsynced: bool,
}

/// The whole batch that `bytes` begin with.
fn batch(bytes: &[u8]) -> Option<Batch> {
    let mut rest = Rest(bytes);
    (rest.byte()? == START).then_some(())?;
    let count = rest.number::<4>()?;
    // Numbers of changes are far below; this bit is the store's own.
    (rest.number::<8>()? >> 63 == 0).then_some(())?;
    let (items, mut is_fsynced) = (rest.0, false);
    for _ in 0..count {
        match rest.byte()? {
            ITEM => {
                // The kind of change, and how it is compressed: not at all.
                (rest.byte()? <= 2 && rest.byte()? == 0).then_some(())?;
                let _keyspace = rest.number::<8>()?;
                let key_len = rest.number::<2>()?;
                let value_len = rest.number::<4>()?;
                (rest.number::<4>()? == value_len).then_some(())?;
                is_fsynced |= Control::is_key(rest.take(key_len)?);
                rest.take(value_len)?;
            }
            CLEAR => drop(rest.number::<8>()?),
            _ => return None,
        }
    }
    let items = &items[..items.len() - rest.0.len()];
    (rest.byte()? == END).then_some(())?;
    let checksum = rest.number::<8>()?;
    (rest.take(TRAILER.len())? == TRAILER).then_some(())?;
    (checksum as u64 == xxhash_rust::xxh3::xxh3_64(items)).then_some(())?;
    Some(Batch { len: bytes.len() - rest.0.len(), is_fsynced })
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A number of `N` bytes, the lowest first.
    fn number<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}
