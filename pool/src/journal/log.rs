//! The log: every change is appended, and what is not needed any more is left behind.
//!
//! An append is one write to the file of the newest segment, under a lock that nobody holds for longer
//! than that: never over an fsync. [`Log::tend`] does everything that takes its time: it begins a new
//! segment when one is full, and while less than half of the log is of records that there still are, it
//! copies those of the oldest segment to the end and removes the segment. So the order of the log is
//! always that of the changes, a record is whole wherever it lies, and a start reads the log from its
//! beginning to its end, whenever the last life ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_providers::beneath;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::frame::{Frame, Item, Table, Whole};
use super::index::{Index, Place};
use super::segments::{self, Broken, Cut, path};

/// When a segment is full.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;
/// A log of no more segments is left as it is, whatever is in it.
const LEAST_SEGMENTS: u64 = 4;
/// How much is copied by one append: others wait for that long.
const COPIED_BYTES: usize = 32 << 10;

/// A key and the value of its record.
pub(super) type Record = (Box<[u8]>, Vec<u8>);

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held by who tends it.
    turn: Mutex<()>,
    /// When a segment is full.
    segment_bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    len: u64,
    file: Arc<File>,
}

#[derive(Debug)]
struct State {
    /// All but the active one, the oldest first.
    sealed: VecDeque<Segment>,
    active: Segment,
    /// The files that were appended to since they were last fsynced, but for the active one's.
    unsynced: Vec<Arc<File>>,
    index: Index,
    /// The next frame's.
    number: u64,
    /// A part of a frame lies behind the end.
    is_torn: bool,
}

impl Log {
    /// Opens the log in `dir`, or makes it if there `may_be_none`; answers what was cut off its torn tail.
    /// A segment is full with `segment_bytes`. Blocks on the disk.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn open(
        dir: &Path,
        may_be_none: bool,
        segment_bytes: u64,
    ) -> Result<(Self, Option<Cut>), Broken> {
        let found = segments::open(dir)?;
        if found.segments.is_empty() && !may_be_none {
            return Err(Broken::Missing(path(dir, 1)));
        }
        let mut all = VecDeque::new();
        for (number, len) in found.segments {
            let file = open(dir, number, OFlags::empty()).map_err(Broken::Io)?;
            all.push_back(Segment { number, len, file });
        }
        let active = match all.pop_back() {
            Some(active) => active,
            None => create(dir, 1).map_err(Broken::Io)?,
        };
        let state = State {
            unsynced: all.iter().map(|segment| Arc::clone(&segment.file)).collect(),
            sealed: all,
            active,
            index: found.index,
            number: found.next.max(1),
            is_torn: false,
        };
        let (dir, state) = (dir.to_owned(), Mutex::new(state));
        Ok((Self { dir, state, turn: Mutex::default(), segment_bytes }, found.cut))
    }

    /// Appends a frame: the kernel has it then. Blocks for microseconds.
    ///
    /// # Errors
    /// Those of the file system; nothing was appended then, and it may be tried again.
    pub(super) fn append(&self, frame: &mut Frame) -> io::Result<()> {
        self.state.lock().append(frame)
    }

    /// Appends a frame, and fsyncs it and everything before it. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the file system; whether it was appended is then unknown.
    pub(super) fn append_durably(&self, frame: &mut Frame) -> io::Result<()> {
        self.append(frame)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        let (sealed, active) = {
            let state = self.state.lock();
            (state.unsynced.clone(), Arc::clone(&state.active.file))
        };
        for file in sealed.iter().chain([&active]) {
            file.sync_data()?;
        }
        let is_synced = |file: &Arc<File>| sealed.iter().any(|it| Arc::ptr_eq(it, file));
        self.state.lock().unsynced.retain(|file| !is_synced(file));
        Ok(())
    }

    /// The file that is appended to.
    pub(super) fn active(&self) -> PathBuf {
        path(&self.dir, self.state.lock().active.number)
    }

    /// The value of one record of [`Table::Control`]. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let find = |index: &Index| index.get(Table::Control, key).map(|at| (Box::from(key), at));
        Ok(self.read(|index| find(index).into_iter().collect())?.pop().map(|(_, value)| value))
    }

    /// The records of all leases, in the order of their uids. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn leases(&self) -> io::Result<Vec<Record>> {
        self.read(Index::leases)
    }

    /// All others whose key begins with `prefix`, in their order. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn control(&self, prefix: &str) -> io::Result<Vec<Record>> {
        self.read(|index| index.control(prefix.as_bytes()))
    }

    fn read(
        &self,
        select: impl FnOnce(&Index) -> Vec<(Box<[u8]>, Place)>,
    ) -> io::Result<Vec<Record>> {
        // A segment that is removed meanwhile is still there for who has its file.
        let (places, files) = {
            let state = self.state.lock();
            let all = state.sealed.iter().chain([&state.active]);
            let files: Vec<_> = all.map(|it| (it.number, Arc::clone(&it.file))).collect();
            (select(&state.index), files)
        };
        let one = |(key, place): (Box<[u8]>, Place)| {
            let found = files.binary_search_by_key(&place.segment, |(number, _)| *number);
            let (_, file) = &files[found.map_err(|_| damaged())?];
            let mut value = vec![0; place.len as usize];
            file.read_exact_at(&mut value, place.at.into())?;
            Ok((key, value))
        };
        places.into_iter().map(one).collect()
    }

    /// Whether [`Self::tend`] has something to do.
    pub(super) fn wants_tending(&self) -> bool {
        let state = self.state.lock();
        state.active.len >= self.segment_bytes || self.to_clean(&state).is_some()
    }

    /// Begins a new segment if the active one is full, and leaves the oldest behind while there is too
    /// much in the log that nobody needs. Blocks on the disk; appends go on meanwhile.
    ///
    /// # Errors
    /// Those of the file system; the log is as good as before.
    pub(super) fn tend(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        loop {
            if self.state.lock().active.len >= self.segment_bytes {
                self.begin_segment()?;
            }
            let oldest = self.to_clean(&self.state.lock());
            let Some((number, file)) = oldest else { return Ok(()) };
            self.leave_behind(number, &file)?;
        }
    }

    /// The oldest segment, if it is to be left behind.
    fn to_clean(&self, state: &State) -> Option<(u32, Arc<File>)> {
        let oldest = state.sealed.front()?;
        let total: u64 = state.sealed.iter().chain([&state.active]).map(|it| it.len).sum();
        let most = (LEAST_SEGMENTS * self.segment_bytes).max(2 * state.index.live_bytes());
        (total > most).then(|| (oldest.number, Arc::clone(&oldest.file)))
    }

    fn begin_segment(&self) -> io::Result<()> {
        let (number, file) = {
            let state = self.state.lock();
            (state.active.number + 1, Arc::clone(&state.active.file))
        };
        let next = create(&self.dir, number)?;
        // So that little is left to fsync behind the last frame.
        file.sync_data()?;
        let mut state = self.state.lock();
        if let Err(error) = state.append(&mut Frame::continues(number)) {
            drop(state);
            let _ = std::fs::remove_file(path(&self.dir, number));
            return Err(error);
        }
        let full = std::mem::replace(&mut state.active, next);
        state.unsynced.push(Arc::clone(&full.file));
        state.sealed.push_back(full);
        drop(state);
        self.sync()
    }

    /// Copies what is still needed of the oldest segment to the end, and removes it.
    fn leave_behind(&self, number: u32, file: &File) -> io::Result<()> {
        let bytes = read_all(file)?;
        let (mut at, mut copies) = (0, Vec::new());
        while at < bytes.len() {
            let frame = Whole::read(&bytes[at..]).ok_or_else(damaged)?;
            for item in frame.items() {
                // What is forgotten here was written here, or before: nobody needs to know any more.
                let Item::Put { table, key, at: within, len } = item else { continue };
                let value = &bytes[at + within..][..len];
                copies.push((table, key, (at + within) as u32, value));
            }
            at += frame.len();
            let copied: usize = copies.iter().map(|(_, _, _, value)| value.len()).sum();
            if copied >= COPIED_BYTES || at == bytes.len() {
                self.copy(number, copies.drain(..))?;
            }
        }
        self.append_durably(&mut Frame::oldest(number + 1))?;
        // One after the other: at most one of them is ever left for a start. One that cannot be removed is
        // tried again, and none before it is gone: a start would take the gap behind it for a loss.
        beneath::remove(&path(&self.dir, number))?;
        beneath::open_dir(&self.dir)?.sync_all()?;
        self.state.lock().sealed.pop_front();
        Ok(())
    }

    /// Appends those records anew that are still the newest of their keys.
    fn copy<'a>(
        &self,
        segment: u32,
        records: impl Iterator<Item = (Table, &'a [u8], u32, &'a [u8])>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut frame = Frame::new();
        for (table, key, at, value) in records {
            let here = Place { segment, at, len: value.len() as u32 };
            if state.index.get(table, key) == Some(here) {
                frame.put(table, key, |bytes| bytes.write_all(value))?;
            }
        }
        if frame.is_empty() { Ok(()) } else { state.append(&mut frame) }
    }
}

impl State {
    fn append(&mut self, frame: &mut Frame) -> io::Result<()> {
        let Segment { number: segment, len, file } = &mut self.active;
        if self.is_torn {
            file.set_len(*len)?;
            self.is_torn = false;
        }
        let at =
            u32::try_from(*len + frame.len() as u64).map(|end| end - frame.len() as u32).map_err(
                |_| io::Error::new(io::ErrorKind::FileTooLarge, "the journal's log is full"),
            )?;
        if let Err(error) = (&**file).write_all(frame.finish(self.number)?) {
            // Blocks that were set aside behind the end stay where nothing was written.
            self.is_torn = file.metadata().map_or(true, |found| found.len() != *len)
                && file.set_len(*len).is_err();
            return Err(error);
        }
        *len += frame.len() as u64;
        self.number += 1;
        self.index.apply(Whole::of(frame), *segment, at);
        Ok(())
    }
}

fn open(dir: &Path, number: u32, flags: OFlags) -> io::Result<Arc<File>> {
    beneath::open(&path(dir, number), OFlags::RDWR | OFlags::APPEND | flags).map(Arc::new)
}

/// Makes an empty segment that is there after a loss of power, too.
fn create(dir: &Path, number: u32) -> io::Result<Segment> {
    let file = open(dir, number, OFlags::CREATE | OFlags::TRUNC)?;
    file.sync_all()?;
    beneath::open_dir(dir)?.sync_all()?;
    Ok(Segment { number, len: 0, file })
}

/// All of a file, wherever it is appended to.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| damaged())?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a segment of the journal's log is not whole any more",
    )
}
