//! The files of the log, as a start finds them: whole, torn, or damaged.
//!
//! The log lies in *segments*, `1.log`, `2.log` and so on, each of which begins where the one before
//! has ended. Frames have numbers that follow each other, so nothing is missing in between unnoticed.
//!
//! - What is not whole and has nothing whole behind it is a **torn tail**: it is cut at the end of the last
//!   whole frame.
//! - So is what lies from a page on that was never written, or from the end of a segment that the next one
//!   does not follow: the host lost power, and the kernel had not written everything in its order. But only
//!   if nothing that was fsynced lies behind it.
//! - Anything else is **damage**, and nobody but a person may decide what is given up.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hearth_providers::beneath;
use rustix::fs::OFlags;

use super::frame::{Item, MAGIC, Whole};
use super::index::Index;

/// Half a page.
static ZEROS: [u8; 2048] = [0; 2048];

/// What was cut off the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The file.
    pub(super) file: PathBuf,
    /// Where the last whole frame ends.
    pub(super) at: u64,
    /// How many bytes lay behind it, in this file and those after it.
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
    /// A file of it is not there.
    Missing(PathBuf),
}

/// A log that is whole, as far as it goes.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its segments by their numbers, which follow each other, and how long each is. None: it is new.
    pub(super) segments: Vec<(u32, u64)>,
    pub(super) index: Index,
    /// The number of the next frame.
    pub(super) next: u64,
    pub(super) cut: Option<Cut>,
}

/// The file of a segment.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number}.log"))
}

/// Reads the log in `dir`, and cuts its tail where that is torn. Blocks on the disk.
///
/// # Errors
/// [`Broken`]; nothing was changed then.
pub(super) fn open(dir: &Path) -> Result<Found, Broken> {
    let numbers = list(dir).map_err(Broken::Io)?;
    if let Some(gap) = numbers.windows(2).find(|two| two[1] != two[0] + 1) {
        return Err(Broken::Missing(path(dir, gap[0] + 1)));
    }
    let read = |number| beneath::read(&path(dir, number)).map_err(Broken::Io);
    let mut reader = Reader { oldest: 1, ..Reader::default() };
    let mut ahead = numbers.first().map(|number| read(*number)).transpose()?;
    for (position, number) in numbers.iter().enumerate() {
        let Some(bytes) = ahead.take() else { break };
        let rest = &numbers[position + 1..];
        let end = reader.read(*number, &bytes);
        reader.found.segments.push((*number, end as u64));
        ahead = rest.first().map(|number| read(*number)).transpose()?;
        if end == bytes.len() && ahead.as_ref().is_none_or(|next| reader.goes_on_in(next)) {
            continue;
        }
        if !is_torn(&bytes[end..], rest.iter().map(|number| read(*number)))? {
            let (number, at) = match rest.first() {
                Some(next) if end == bytes.len() => (*next, 0),
                _ => (*number, end as u64),
            };
            return Err(Broken::Body { file: path(dir, number), at });
        }
        reader.found.cut = cut(dir, *number, end, bytes.len(), rest).map_err(Broken::Io)?;
        reader.continues = None;
        break;
    }
    reader.finish(dir)
}

/// The numbers of the segments in `dir`, in their order.
fn list(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|it| it == "log")) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[derive(Default)]
struct Reader {
    found: Found,
    /// The oldest segment that counts.
    oldest: u32,
    /// Where the segment that was read last says that it goes on.
    continues: Option<u32>,
}

impl Reader {
    /// Takes up the frames of a segment; answers where the last whole one ends that follows on the one
    /// before.
    fn read(&mut self, segment: u32, bytes: &[u8]) -> usize {
        self.continues = None;
        let mut at = 0;
        while let Some(frame) = Whole::read(&bytes[at..]).filter(|_| self.continues.is_none()) {
            let Ok(frame_at) = u32::try_from(at) else { break };
            let is_first = self.found.next == 0;
            if !is_first && frame.number != self.found.next {
                break;
            }
            self.found.next = frame.number + 1;
            for item in frame.items() {
                match item {
                    Item::Oldest(number) => self.oldest = number,
                    Item::Continues(number) => self.continues = Some(number),
                    Item::Put { .. } | Item::Remove { .. } => {}
                }
            }
            self.found.index.apply(frame.items(), segment, frame_at);
            at += frame.len();
        }
        at
    }

    /// Whether the frames of the next segment, if it has any, follow on those that were read.
    fn goes_on_in(&self, next: &[u8]) -> bool {
        Whole::read(next)
            .is_none_or(|frame| self.found.next == 0 || frame.number == self.found.next)
    }

    /// Removes the segments that do not count any more: a life which was killed had copied what was
    /// needed of them, and not removed them yet.
    fn finish(mut self, dir: &Path) -> Result<Found, Broken> {
        let segments = &mut self.found.segments;
        let (Some((first, _)), Some((last, _))) = (segments.first(), segments.last()) else {
            return Ok(self.found);
        };
        if *first > self.oldest {
            return Err(Broken::Missing(path(dir, self.oldest)));
        }
        if let Some(next) = self.continues.filter(|next| next > last) {
            return Err(Broken::Missing(path(dir, next)));
        }
        let oldest = self.oldest.min(*last);
        for (number, _) in segments.iter().filter(|(number, _)| *number < oldest) {
            std::fs::remove_file(path(dir, *number)).map_err(Broken::Io)?;
        }
        segments.retain(|(number, _)| *number >= oldest);
        Ok(self.found)
    }
}

/// Whether `broken`, which nothing whole begins, and all segments after it may be cut.
fn is_torn(
    broken: &[u8],
    rest: impl Iterator<Item = Result<Vec<u8>, Broken>>,
) -> Result<bool, Broken> {
    let mut gap = Gap { is_unwritten: false };
    if !gap.may_go_on(broken) {
        return Ok(false);
    }
    // Where a segment ends too early for the next one, its end was never written.
    gap.is_unwritten |= Whole::is_cut_short(broken);
    for bytes in rest {
        if !gap.may_go_on(&bytes?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What lies behind the last frame that follows on those before it.
struct Gap {
    /// Something of it was never written.
    is_unwritten: bool,
}

impl Gap {
    /// Whether these bytes, too, may be cut: what is whole in them lies behind what was never written, and
    /// was not fsynced.
    fn may_go_on(&mut self, bytes: &[u8]) -> bool {
        let (mut at, mut from) = (0, 0);
        while let Some(begin) = find(bytes, from) {
            let Some(frame) = Whole::read(&bytes[begin..]) else {
                from = begin + 1;
                continue;
            };
            self.is_unwritten |= has_unwritten_page(&bytes[at..begin]);
            if frame.is_durable || !self.is_unwritten {
                return false;
            }
            at = begin + frame.len();
            from = at;
        }
        self.is_unwritten |= has_unwritten_page(&bytes[at..]);
        true
    }
}

/// Where the next frame may begin, from `from` on.
fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(MAGIC.len()).position(|window| window == MAGIC);
    found.map(|at| from + at)
}

/// Whether there is a page of zeros, wherever pages begin.
fn has_unwritten_page(bytes: &[u8]) -> bool {
    // It has half a page of them within halves counted from anywhere.
    bytes.chunks_exact(ZEROS.len()).any(|half| half == ZEROS)
}

/// Cuts the log at byte `at` of a segment that is `len` long, and removes those after it.
fn cut(dir: &Path, number: u32, at: usize, len: usize, rest: &[u32]) -> io::Result<Option<Cut>> {
    let (file, mut bytes) = (path(dir, number), len - at);
    // From the last on: what is left is a log at any time.
    for number in rest.iter().rev() {
        let path = path(dir, *number);
        bytes += usize::try_from(std::fs::metadata(&path)?.len()).unwrap_or(usize::MAX);
        std::fs::remove_file(path)?;
    }
    if at < len {
        let file: File = beneath::open(&file, OFlags::WRONLY)?;
        file.set_len(at as u64)?;
        file.sync_all()?;
    }
    Ok((bytes > 0).then_some(Cut { file, at: at as u64, bytes: bytes as u64 }))
}
