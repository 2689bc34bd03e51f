//! What survives a restart: leases with their request ids, templates, pools, and whose state it
//! is.
//!
//! A lease is one record under its VM's uid, written anew at each turn of its life; the write
//! that first has it is the moment at which a VM changes hands. It reaches the kernel before
//! [`Journal::write_lease`] returns and is not fsynced: it must outlive this process, and no VM
//! outlives the host. What operators decide (templates, pools) is fsynced.
//!
//! Leases are messages of protobuf ([`message`]), all else is JSON. `meta` has the format's number: a reader of a
//! later version knows what it reads.
//!
//! It lies in a log of our own ([`log`]), to which every change is appended.
//!
//! On a bad day:
//! - **A write fails.** It is made again on space that was kept back: that handoff is the last. Until
//!   there is room again [`Journal::check_well`] refuses; releases go on.
//! - **The tail is torn**: it is cut at the last whole record, and said.
//! - **The body is damaged**: it is not opened, and the error says what to do.

mod format;
mod former;
mod frame;
mod index;
mod log;
mod message;
mod owner;
mod records;
mod reserve;
mod segments;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_providers::Uid;
use hearth_providers::env::Env;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::format::{FORMAT, Meta, STEPS};
use self::frame::Frame;
pub(crate) use self::frame::Table;
use self::log::{Log, Record, SEGMENT_BYTES};
pub use self::records::{LeaseRecord, RecordState, Source};
use self::reserve::Reserve;
use self::trouble::{damaged, parse, storage, unreadable, unusable};
use crate::error::Result;
use crate::metrics::JournalMetrics;

/// The kinds of what operators decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Templates, by id.
    Template,
    /// Pools, by id.
    Pool,
    /// Artifacts, by id.
    Artifact,
    /// Of the node itself: whether it drains.
    Node,
}

impl Control {
    #[cfg(test)]
    const ALL: [Self; 4] = [Self::Template, Self::Pool, Self::Artifact, Self::Node];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Template => "template/",
            Self::Pool => "pool/",
            Self::Artifact => "artifact/",
            Self::Node => "node/",
        }
    }

    fn key(self, id: &str) -> String {
        format!("{}{id}", self.prefix())
    }
}

/// What the keys of operations begin with, which are not fsynced.
const OPERATION: &str = "operation/";
/// What the keys of answers begin with, which are not fsynced either.
const REPLY: &str = "reply/";

/// The journal of one hearth.
pub struct Journal {
    log: Log,
    reserve: Reserve,
    /// VMs may be handed out: no write has failed since space was last kept back.
    is_well: AtomicBool,
    /// Held by who finds out whether it is well, and by who has found that it is not.
    turn: Mutex<()>,
    dir: PathBuf,
    state_uuid: Uid,
    is_new: bool,
    metrics: JournalMetrics,
    /// Locked for as long as this lives; closed last.
    _owner: File,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("state_uuid", &self.state_uuid).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in `dir`, or makes it. Blocks on the disk.
    ///
    /// A torn tail is cut and said in the log. A former format is led on to this one.
    ///
    /// # Errors
    /// `Storage` when another hearth has it open, when a newer one wrote it, or when it is damaged
    /// or cannot be read; what it says tells what to do.
    pub fn open(dir: &Path, env: &dyn Env) -> Result<Self> {
        Self::open_in_segments(dir, env, SEGMENT_BYTES)
    }

    fn open_in_segments(dir: &Path, env: &dyn Env, segment_bytes: u64) -> Result<Self> {
        let mut owner = owner::lock(dir)?;
        // Whose journal it is stands in the lock's file, too, once it is one.
        let mut had = String::new();
        owner.read_to_string(&mut had).map_err(storage)?;
        former::convert(dir)?;
        let opened = Log::open(dir, had.is_empty(), segment_bytes);
        let (log, cut) = opened.map_err(|broken| unusable(dir, broken))?;
        if let Some(cut) = &cut {
            tracing::warn!(
                file = %cut.file.display(), at = cut.at, bytes = cut.bytes,
                "the journal's tail was torn: it is cut at the last whole record"
            );
        }
        let found = Meta::read(&log)?;
        let is_new = found.is_none();
        let mut meta = match found {
            Some(meta) => meta,
            None if had.is_empty() => Meta::create(&log, env)?,
            None => return Err(damaged(dir, "its first record is missing")),
        };
        meta.migrate(&log, STEPS, FORMAT)?;
        if had.is_empty()
            && let Err(error) = owner.write_all(meta.state_uuid.to_string().as_bytes())
        {
            tracing::warn!(%error, "a lost first record would not be noticed");
        }
        let reserve = Reserve::new(dir);
        let kept = reserve.make();
        if let Err(error) = &kept {
            tracing::error!(%error, "no space can be kept back in the journal: nothing is handed out");
        }
        Ok(Self {
            log,
            reserve,
            is_well: AtomicBool::new(kept.is_ok()),
            turn: Mutex::default(),
            dir: dir.to_owned(),
            state_uuid: meta.state_uuid,
            is_new,
            metrics: JournalMetrics::new(),
            _owner: owner,
        })
    }

    /// Names this state directory for ever: what carries it is ours.
    pub const fn state_uuid(&self) -> Uid {
        self.state_uuid
    }

    /// It was made by this opening: there can be no VMs of ours.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Asked before a VM is touched: after a write that failed there must be room again, and one
    /// that matters to nobody must succeed first. Blocks on the disk only then.
    ///
    /// # Errors
    /// `Storage` while nothing is to be handed out.
    pub fn check_well(&self) -> Result<()> {
        if self.is_well.load(Ordering::Acquire) {
            return Ok(());
        }
        // What is found out and what is said of it are one step: no write that fails comes between.
        let _turn = self.turn.lock();
        if self.is_well.load(Ordering::Acquire) {
            return Ok(());
        }
        // Twice: the log may take what is kept back.
        for _ in 0..2 {
            self.reserve.make().map_err(|error| {
                let dir = self.dir.display();
                storage(format!("the disk of the journal in {dir} is full: {error}"))
            })?;
            let mut trial = put(b"trial", &())?;
            if let Err(failed) = self.log.append_durably(&mut trial) {
                self.write_again(&failed, || self.log.append_durably(&mut trial))?;
            }
            if self.reserve.is_held() {
                self.is_well.store(true, Ordering::Release);
                tracing::info!("the journal is well again: VMs are handed out");
                return Ok(());
            }
        }
        Err(storage("the journal can be written on the space kept back alone"))
    }

    /// Writes a lease's record: when it returns the kernel has it. Blocks for microseconds.
    ///
    /// # Errors
    /// `Storage`; whether the record was written is then unknown.
    pub fn write_lease(&self, record: &LeaseRecord) -> Result<()> {
        let _span = tracing::debug_span!("journal").entered();
        let begun = tokio::time::Instant::now();
        let mut frame = Frame::new();
        add_lease(&mut frame, record)?;
        let written = self.write(&mut frame);
        self.metrics.appended(begun.elapsed());
        written
    }

    /// Writes the records of several leases, all of them or none, for little more than one costs.
    /// Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// As [`Self::write_lease`].
    pub fn write_leases(&self, records: &[LeaseRecord]) -> Result<()> {
        let mut frame = Frame::new();
        for record in records {
            add_lease(&mut frame, record)?;
        }
        self.write(&mut frame)
    }

    /// Forgets a lease. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_lease(&self, uid: Uid) -> Result<()> {
        self.write(&mut removal(Frame::new(), Table::Leases, uid.as_bytes())?)
    }

    /// Every lease's record. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when one cannot be read; it is named.
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> {
        let one = |(key, value): Record| {
            let name = match <[u8; 16]>::try_from(&*key) {
                Ok(uid) => Uid::from_random(uid).to_string(),
                Err(_) => key.escape_ascii().to_string(),
            };
            message::read(&value).map_err(|why| unreadable(&format!("of the lease {name}"), &*why))
        };
        self.log.leases().map_err(storage)?.into_iter().map(one).collect()
    }

    /// Writes what an operator decided, and fsyncs it. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`; also while the disk is full, as what is kept back is for releases. Only whether
    /// the node drains is written then, too.
    pub fn write_control<T: Serialize>(&self, kind: Control, id: &str, value: &T) -> Result<()> {
        if kind != Control::Node {
            self.check_well()?;
        }
        let mut frame = Frame::durable();
        add(&mut frame, kind.key(id).as_bytes(), value)?;
        self.write_durably(&mut frame)
    }

    /// Forgets what an operator decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_control(&self, kind: Control, id: &str) -> Result<()> {
        let key = kind.key(id);
        self.write_durably(&mut removal(Frame::durable(), Table::Control, key.as_bytes())?)
    }

    /// Everything of one kind that operators decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn control<T: DeserializeOwned>(&self, kind: Control) -> Result<Vec<T>> {
        self.read_prefix(kind.prefix())
    }

    /// Writes a record as somebody else would: any text under any key.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) fn write_raw(&self, table: Table, key: &[u8], text: &[u8]) -> Result<()> {
        let mut frame = Frame::new();
        frame.put(table, key, |bytes| bytes.write_all(text)).map_err(storage)?;
        self.write(&mut frame)
    }

    fn read_prefix<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>> {
        let one = |(key, value): Record| parse(&key.escape_ascii().to_string(), &value);
        self.log.control(prefix).map_err(storage)?.into_iter().map(one).collect()
    }

    /// Writes where an operation stands. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn write_operation<T: Serialize>(&self, id: &str, value: &T) -> Result<()> {
        self.write(&mut put(format!("{OPERATION}{id}").as_bytes(), value)?)
    }

    /// Forgets an operation. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_operation(&self, id: &str) -> Result<()> {
        let key = format!("{OPERATION}{id}");
        self.write(&mut removal(Frame::new(), Table::Control, key.as_bytes())?)
    }

    /// Every operation. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn operations<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.read_prefix(OPERATION)
    }

    /// Writes what a call was answered. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn write_reply<T: Serialize>(&self, call: &str, value: &T) -> Result<()> {
        self.write(&mut put(format!("{REPLY}{call}").as_bytes(), value)?)
    }

    /// Forgets what a call was answered. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_reply(&self, call: &str) -> Result<()> {
        let key = format!("{REPLY}{call}");
        self.write(&mut removal(Frame::new(), Table::Control, key.as_bytes())?)
    }

    /// What every call was answered. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn replies<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.read_prefix(REPLY)
    }

    /// Whether [`Self::tend`] has something to do.
    pub fn wants_tending(&self) -> bool {
        self.log.wants_tending()
    }

    /// Begins a new segment of the log when one is full, and drops what nobody needs any more. Blocks on
    /// the disk, for as long as it takes to read and write some megabytes; writes go on meanwhile.
    ///
    /// # Errors
    /// `Storage`, and nothing is lost: it may be tried again.
    pub fn tend(&self) -> Result<()> {
        self.log.tend().map_err(storage)
    }

    fn write(&self, frame: &mut Frame) -> Result<()> {
        let Err(failed) = self.log.append(frame) else { return Ok(()) };
        let _turn = self.turn.lock();
        self.write_again(&failed, || self.log.append(frame))
    }

    fn write_durably(&self, frame: &mut Frame) -> Result<()> {
        let Err(failed) = self.log.append_durably(frame) else { return Ok(()) };
        let _turn = self.turn.lock();
        self.write_again(&failed, || self.log.append_durably(frame))
    }

    /// Makes a write again that has failed, with the space kept back for the log.
    fn write_again(
        &self,
        failed: &io::Error,
        write: impl FnOnce() -> io::Result<()>,
    ) -> Result<()> {
        // Nothing more is handed out, whatever becomes of this one. If it was not the disk, or there is
        // room again, the next acquire finds out.
        if self.is_well.swap(false, Ordering::AcqRel) {
            tracing::error!(error = %failed, "the journal cannot be written: nothing is handed out");
        }
        self.reserve.give_to(&self.log.active());
        write().map_err(storage)
    }
}

fn add_lease(frame: &mut Frame, record: &LeaseRecord) -> Result<()> {
    let message = |bytes: &mut Vec<u8>| {
        message::write(record, bytes);
        Ok(())
    };
    frame.put(Table::Leases, record.uid.as_bytes(), message).map_err(storage)
}

/// A frame with one record of [`Table::Control`].
fn put<T: Serialize>(key: &[u8], value: &T) -> Result<Frame> {
    let mut frame = Frame::new();
    add(&mut frame, key, value)?;
    Ok(frame)
}

fn add<T: Serialize>(frame: &mut Frame, key: &[u8], value: &T) -> Result<()> {
    let text = |bytes: &mut Vec<u8>| Ok(serde_json::to_writer(bytes, value)?);
    frame.put(Table::Control, key, text).map_err(storage)
}

fn removal(mut frame: Frame, table: Table, key: &[u8]) -> Result<Frame> {
    frame.remove(table, key).map_err(storage)?;
    Ok(frame)
}

/// A record of a lease, if it is one.
pub(crate) fn read_lease(text: &[u8]) -> Option<LeaseRecord> {
    message::read(text).ok()
}

/// What is written of a lease.
pub(crate) fn written_lease(record: &LeaseRecord) -> Vec<u8> {
    let mut text = Vec::new();
    message::write(record, &mut text);
    text
}

/// Looks through a log of these bytes, and again through what was left of it.
///
/// # Panics
/// When what was left is not whole, or more than there was.
pub(crate) fn fuzz_log(dir: &Path, log: &[u8]) {
    let path = segments::path(dir, 1);
    let look = || segments::open(dir).map(|found| found.cut);
    std::fs::write(&path, log).expect("a log");
    let cut = look();
    let left = std::fs::read(&path).expect("the log is there");
    match cut {
        Ok(cut) => {
            assert!(log.starts_with(&left), "nothing but its end is cut");
            assert!(cut.is_none_or(|cut| cut.at == left.len() as u64));
            assert!(matches!(look(), Ok(None)), "what was left is whole");
        }
        Err(_) => assert!(left == log, "what is damaged is left as it was"),
    }
}
