//! What survives a restart: leases with their request ids, templates, pools, and whose state it
//! is.
//!
//! A lease is one record under its VM's uid, written anew at each turn of its life; the write
//! that first has it is the moment at which a VM changes hands. It reaches the kernel before
//! [`Journal::write_lease`] returns and is not fsynced: it must outlive this process, and no VM
//! outlives the host. What operators decide (templates, pools) is fsynced.
//!
//! Records are JSON with a format number in `meta`: a reader of a later version knows what it
//! reads, and so does a person at night.
//!
//! On a bad day:
//! - **A write fails.** The store refuses every later one, so it is opened anew, on space that was
//!   kept back, and the write is made again: that handoff is the last. Until there is room again
//!   [`Journal::check_well`] refuses; releases go on.
//! - **The tail is torn**: it is cut at the last whole record, and said.
//! - **The body is damaged**: it is not opened, and the error says what to do.

mod format;
mod records;
mod reserve;
mod store;
mod tail;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::PersistMode;
use hearth_providers::Uid;
use hearth_providers::beneath;
use hearth_providers::directory::make_private_dir;
use hearth_providers::env::Env;
use parking_lot::RwLock;
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::format::{FORMAT, Meta, STEPS};
pub use self::records::{LeaseRecord, RecordState, Source};
use self::reserve::Reserve;
use self::store::Store;
use crate::error::{Error, Result};
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
    const ALL: [Self; 4] = [Self::Template, Self::Pool, Self::Artifact, Self::Node];

    /// Whether a key is of something that is fsynced.
    fn is_key(key: &[u8]) -> bool {
        key == b"meta" || Self::ALL.iter().any(|kind| key.starts_with(kind.prefix().as_bytes()))
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Template => "template/",
            Self::Pool => "pool/",
            Self::Artifact => "artifact/",
            Self::Node => "node/",
        }
    }
}

/// What the keys of operations begin with, which are not fsynced.
const OPERATION: &str = "operation/";
/// What the keys of answers begin with, which are not fsynced either.
const REPLY: &str = "reply/";

/// The journal of one hearth.
pub struct Journal {
    opened: RwLock<Opened>,
    reserve: Reserve,
    dir: PathBuf,
    state_uuid: Uid,
    is_new: bool,
    metrics: JournalMetrics,
    /// Locked for as long as this lives; closed last.
    _owner: File,
}

/// The store, which is opened anew after a write that failed.
struct Opened {
    store: Option<Store>,
    /// How often it was opened: who finds it changed has been helped by another.
    life: u64,
    /// When it could not be opened.
    failed_at: Option<tokio::time::Instant>,
    /// VMs may be handed out: no write has failed since space was last kept back.
    is_well: bool,
}

impl Opened {
    fn attempt(&self, change: impl Fn(&Store) -> fjall::Result<()>) -> Result<()> {
        let store = self.store.as_ref().ok_or_else(closed)?;
        change(store).map_err(storage)
    }
}

/// How long after a failed try the store is not opened anew.
const PAUSE: Duration = Duration::from_millis(100);

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
        let mut owner = lock(dir)?;
        // Whose journal it is stands in the lock's file, too, once it is one.
        let mut had = String::new();
        owner.read_to_string(&mut had).map_err(storage)?;
        if !had.is_empty() {
            store::check_parts(dir)?;
        }
        store::cut_torn(dir)?;
        if had.is_empty() {
            store::clear_unfinished(dir)?;
        }
        let store = Store::open(dir)?;
        let found = store::guarded(dir, || Meta::read(&store))?;
        let is_new = found.is_none();
        let mut meta = match found {
            Some(meta) => meta,
            None if had.is_empty() => Meta::create(&store, env)?,
            None => {
                let what = "the journal is damaged: its first record is missing";
                return Err(storage(format!("{what}. {}", advice(dir))));
            }
        };
        store::guarded(dir, || meta.migrate(&store, STEPS, FORMAT))?;
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
            opened: RwLock::new(Opened {
                store: Some(store),
                life: 0,
                failed_at: None,
                is_well: kept.is_ok(),
            }),
            reserve,
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
        if self.opened.read().is_well {
            return Ok(());
        }
        // What is found out and what is said of it are one step: no write comes between.
        let mut opened = self.opened.write();
        if opened.is_well {
            return Ok(());
        }
        // Twice: a store that was closed takes what is kept back with it into its new life.
        for _ in 0..2 {
            self.reserve.make().map_err(|error| {
                let dir = self.dir.display();
                storage(format!("the disk of the journal in {dir} is full: {error}"))
            })?;
            let life = opened.life;
            let trial = |store: &Store| store.control.insert("trial", "");
            if let Err(failed) = opened.attempt(trial) {
                self.write_anew(&mut opened, life, &failed, trial)?;
            }
            opened.is_well = self.reserve.is_held();
            if opened.is_well {
                tracing::info!("the journal is well again: VMs are handed out");
                return Ok(());
            }
        }
        Err(storage("the journal can be written on the space kept back alone"))
    }

    /// Writes a lease's record: when it returns the kernel has it. Blocks for microseconds; after
    /// a write that failed, for as long as it takes to open the store anew.
    ///
    /// # Errors
    /// `Storage`; whether the record was written is then unknown.
    pub fn write_lease(&self, record: &LeaseRecord) -> Result<()> {
        let _span = tracing::debug_span!("journal").entered();
        let begun = tokio::time::Instant::now();
        let text = encode(record)?;
        let written = self.write(|store| store.leases.insert(record.uid.as_bytes(), &*text));
        self.metrics.appended(begun.elapsed());
        written
    }

    /// Writes the records of several leases, all of them or none, for little more than one costs.
    /// Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// As [`Self::write_lease`].
    pub fn write_leases(&self, records: &[LeaseRecord]) -> Result<()> {
        let texts: Vec<_> = records.iter().map(encode).collect::<Result<_>>()?;
        self.write(|store| {
            let mut batch = store.database.batch().durability(Some(PersistMode::Buffer));
            for (record, text) in records.iter().zip(&texts) {
                batch.insert(&store.leases, record.uid.as_bytes(), &**text);
            }
            batch.commit()
        })
    }

    /// Forgets a lease. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_lease(&self, uid: Uid) -> Result<()> {
        self.write(|store| store.leases.remove(uid.as_bytes()))
    }

    /// Every lease's record. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when one cannot be read; it is named.
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> {
        self.read(|store| {
            let one = |guard: fjall::Guard| {
                let (key, value) = guard.into_inner().map_err(storage)?;
                let name = match <[u8; 16]>::try_from(&*key) {
                    Ok(uid) => Uid::from_random(uid).to_string(),
                    Err(_) => key.escape_ascii().to_string(),
                };
                parse(&format!("of the lease {name}"), &value)
            };
            store.leases.iter().map(one).collect()
        })
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
        let (key, text) = (format!("{}{id}", kind.prefix()), encode(value)?);
        self.write(|store| {
            store.control.insert(&*key, &*text)?;
            store.database.persist(PersistMode::SyncAll)
        })
    }

    /// Forgets what an operator decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_control(&self, kind: Control, id: &str) -> Result<()> {
        let key = format!("{}{id}", kind.prefix());
        self.write(|store| {
            store.control.remove(&*key)?;
            store.database.persist(PersistMode::SyncAll)
        })
    }

    /// Everything of one kind that operators decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn control<T: DeserializeOwned>(&self, kind: Control) -> Result<Vec<T>> {
        self.read_prefix(kind.prefix())
    }

    /// Writes a record as somebody else would: any text under any key. Of a key of 16 bytes it is a
    /// lease's.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) fn write_raw(&self, key: &[u8], text: &[u8]) -> Result<()> {
        self.write(|store| match key.len() {
            16 => store.leases.insert(key, text),
            _ => store.control.insert(key, text),
        })
    }

    fn read_prefix<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>> {
        self.read(|store| {
            let one = |guard: fjall::Guard| {
                let (key, value) = guard.into_inner().map_err(storage)?;
                parse(&key.escape_ascii().to_string(), &value)
            };
            store.control.prefix(prefix).map(one).collect()
        })
    }

    /// Writes where an operation stands. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn write_operation<T: Serialize>(&self, id: &str, value: &T) -> Result<()> {
        let (key, text) = (format!("{OPERATION}{id}"), encode(value)?);
        self.write(|store| store.control.insert(&*key, &*text))
    }

    /// Forgets an operation. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_operation(&self, id: &str) -> Result<()> {
        let key = format!("{OPERATION}{id}");
        self.write(|store| store.control.remove(&*key))
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
        let (key, text) = (format!("{REPLY}{call}"), encode(value)?);
        self.write(|store| store.control.insert(&*key, &*text))
    }

    /// Forgets what a call was answered. Blocks as [`Self::write_lease`].
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_reply(&self, call: &str) -> Result<()> {
        let key = format!("{REPLY}{call}");
        self.write(|store| store.control.remove(&*key))
    }

    /// What every call was answered. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn replies<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.read_prefix(REPLY)
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        let opened = self.opened.read();
        let store = opened.store.as_ref().ok_or_else(closed)?;
        store::guarded(&self.dir, || read(store))
    }

    /// Makes a change; if that fails, once more on a store that was opened anew.
    fn write(&self, change: impl Fn(&Store) -> fjall::Result<()>) -> Result<()> {
        let (life, failed) = {
            let opened = self.opened.read();
            let Err(failed) = opened.attempt(&change) else { return Ok(()) };
            (opened.life, failed)
        };
        self.write_anew(&mut self.opened.write(), life, &failed, change)
    }

    /// Makes a change again that failed in the store's life `life`.
    fn write_anew(
        &self,
        opened: &mut Opened,
        life: u64,
        failed: &Error,
        change: impl Fn(&Store) -> fjall::Result<()>,
    ) -> Result<()> {
        // Nothing more is handed out, whatever becomes of this one.
        opened.is_well = false;
        // Unless another has helped meanwhile.
        if opened.life == life {
            self.open_anew(opened, failed)?;
        }
        opened.attempt(change)
    }

    /// Opens the store anew, with the space kept back for its log.
    fn open_anew(&self, opened: &mut Opened, why: &Error) -> Result<()> {
        if opened.failed_at.is_some_and(|it| it.elapsed() < PAUSE) {
            return Err(closed());
        }
        let source = std::error::Error::source(why).map(ToString::to_string);
        tracing::error!(error = source, "the journal cannot be written: nothing is handed out");
        opened.store = None;
        let reopened = self.reopen();
        opened.failed_at = reopened.is_err().then(tokio::time::Instant::now);
        // If it was not the disk, or there is room again, the next acquire finds out.
        opened.store = Some(reopened?);
        opened.life += 1;
        Ok(())
    }

    fn reopen(&self) -> Result<Store> {
        store::wait_closed(&self.dir)?;
        store::cut_torn(&self.dir)?;
        if let Some(log) = tail::active(&self.dir).map_err(storage)? {
            self.reserve.give_to(&log);
        }
        Store::open(&self.dir)
    }
}

/// Looks through a log of these bytes, and again through what was left of it.
///
/// # Panics
/// When what was left is not whole, or more than there was.
pub(crate) fn fuzz_log(dir: &Path, log: &[u8]) {
    let path = dir.join("0.jnl");
    let look = || tail::cut_torn(dir);
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

/// Takes the lock that keeps other hearths out, also while the store is closed for a moment.
fn lock(dir: &Path) -> Result<File> {
    let make = || {
        make_private_dir(dir)?;
        check_private(dir)?;
        beneath::open(&dir.join("owner"), OFlags::RDWR | OFlags::CREATE)
    };
    let file = make().map_err(|error| store::refused(dir, &error))?;
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A child of a hearth that was killed has it, too, until it runs its own program.
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => tries += 1,
            Err(TryLockError::WouldBlock) => {
                return Err(storage("another hearth runs on this state directory"));
            }
            Err(TryLockError::Error(error)) => return Err(storage(error)),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Refuses a directory that somebody else could have put something into, and links in it: the store opens
/// its own files, and follows them.
fn check_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let refuse = |path: &Path, why: &str| {
        let why = format!("{} {why}: nobody but hearth puts anything there", path.display());
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why))
    };
    let own = rustix::process::geteuid().as_raw();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in std::iter::once(Ok(dir.clone()))
            .chain(std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())))
        {
            let path: PathBuf = path.map_err(|error: std::io::Error| error)?;
            let found = std::fs::symlink_metadata(&path)?;
            match found.file_type() {
                kind if kind.is_symlink() => return refuse(&path, "is a link"),
                _ if found.uid() != own && found.uid() != 0 => {
                    return refuse(&path, "is another user's");
                }
                _ if found.mode() & 0o022 != 0 => return refuse(&path, "can be written by others"),
                kind if kind.is_dir() && path != dir => dirs.push(path),
                kind if kind.is_dir() || kind.is_file() => {}
                _ => return refuse(&path, "is no file"),
            }
        }
    }
    Ok(())
}

/// As many as make two seconds: on a busy host such a child takes its time.
const LOCK_TRIES: u32 = 20;

/// What to do about a damaged journal.
fn advice(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Put a copy of {dir} back. If there is none, move {dir} away and start once with --reap: \
         that destroys the VMs here, and templates and pools have to be made again"
    )
}

fn closed() -> Error {
    storage("the journal is closed: a write failed, and it cannot be opened anew yet")
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    // Most records fit: a lease's has some 600 bytes.
    let mut text = Vec::with_capacity(1024);
    serde_json::to_writer(&mut text, value).map_err(storage)?;
    Ok(text)
}

/// Reads a record, which an error names.
fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        storage(format!(
            "the journal is damaged: the record {name} cannot be read: {error}. Put a copy of the \
             journal back, or start with an empty one and --reap"
        ))
    })
}

fn storage(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Storage { source: source.into() }
}
