//! The embedded store, opened so that whatever is wrong with it is said and never panics.

use std::error::Error as StdError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::tail::{self, Broken, Cut};
use super::{LOCK_TRIES, PAUSE, advice, storage};
use crate::error::{Error, Result};

/// An open store. One write that fails makes it refuse every later one: then it must be opened
/// anew.
pub(super) struct Store {
    pub(super) meta: Keyspace,
    pub(super) leases: Keyspace,
    pub(super) control: Keyspace,
    pub(super) database: Database,
}

impl Store {
    /// Opens or makes the store in `dir`, once its log was looked through. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`, which says what to do.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        // The store's readers of its own files have assertions where ours would have errors.
        catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(dir)))
            .unwrap_or_else(|panic| Err(damaged(dir, &panicked(&*panic))))
    }

    fn open_unguarded(dir: &Path) -> Result<Self> {
        let open = || -> fjall::Result<Self> {
            let builder = Database::builder(dir).worker_threads(1);
            let database = builder.max_journaling_size(MAX_LOG_BYTES).open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MAX_TABLE_BYTES);
            let keyspace = |name| database.keyspace(name, options);
            let (meta, leases) = (keyspace("meta")?, keyspace("leases")?);
            Ok(Self { meta, leases, control: keyspace("control")?, database })
        };
        let mut tries = 0;
        loop {
            match open() {
                Ok(store) => return Ok(store),
                // As of our own lock, which we have: a child of a hearth that was killed.
                Err(fjall::Error::Locked) if tries < LOCK_TRIES => tries += 1,
                Err(fjall::Error::Locked) => {
                    return Err(storage("another hearth runs on this state directory"));
                }
                Err(error) => return Err(refused(dir, &error)),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// From here on the store drops files of its log as soon as all that is in them is in tables. Its
/// active file comes on top of it, and gets about as large. A start reads all of it.
const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// How much of the log one keyspace holds in memory until it is written to a table.
const MAX_TABLE_BYTES: u64 = 8 * 1024 * 1024;

/// Waits until nothing of the store that was closed has its log open any more: a thread of its own
/// may be the last, and would write what it still holds behind what is written then. Blocks.
///
/// # Errors
/// `Storage` when it is still open after a while, or that cannot be known here.
pub(super) fn wait_closed(dir: &Path) -> Result<()> {
    for _ in 0..CLOSE_TRIES {
        if !has_open_log(dir).map_err(storage)? {
            return Ok(());
        }
        std::thread::sleep(CLOSE_LOOK);
    }
    Err(storage("the journal's log is still open in this process"))
}

const CLOSE_TRIES: u32 = 1000;
const CLOSE_LOOK: Duration = Duration::from_millis(1);

#[cfg(target_os = "linux")]
fn has_open_log(dir: &Path) -> io::Result<bool> {
    let dir = dir.canonicalize()?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        // One that is gone by now is closed.
        let Ok(file) = std::fs::read_link(entry?.path()) else { continue };
        if file.parent() == Some(&*dir) && file.extension().is_some_and(|it| it == "jnl") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(not(target_os = "linux"))]
fn has_open_log(_dir: &Path) -> io::Result<bool> {
    Err(io::Error::other("a write has failed: restart hearth when the disk has room"))
}

/// Looks through the log in `dir`, and cuts a torn tail.
///
/// # Errors
/// `Storage` for a damaged body, which says what to do.
pub(super) fn cut_torn(dir: &Path) -> Result<Option<Cut>> {
    let cut = tail::cut_torn(dir).map_err(|broken| match broken {
        Broken::Io(error) => refused(dir, &error),
        Broken::Body { file, at } => {
            let file = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            damaged(dir, &format!("{file} is not whole at byte {at}, and goes on behind it"))
        }
    })?;
    if let Some(cut) = &cut {
        tracing::warn!(
            file = %cut.file.display(), at = cut.at, bytes = cut.bytes,
            "the journal's tail was torn: it is cut at the last whole record"
        );
    }
    Ok(cut)
}

/// Removes what a first start that was killed had begun to make: the store would refuse it for
/// ever. Nothing that was ever written is removed. Blocks on the disk.
///
/// # Errors
/// `Storage`.
pub(super) fn clear_unfinished(dir: &Path) -> Result<()> {
    let clear = || {
        // The store writes this file when all others are there.
        let marker = dir.join("version");
        if std::fs::metadata(&marker).is_ok_and(|it| it.len() > 0) {
            return Ok(());
        }
        let Some(log) = tail::active(dir)? else { return Ok(()) };
        if std::fs::metadata(&log)?.len() > 0 {
            return Ok(());
        }
        std::fs::remove_file(log)?;
        match std::fs::remove_file(marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    };
    clear().map_err(|error: io::Error| refused(dir, &error))
}

/// Checks that every part of a journal that was in use is there: the store would silently make a
/// lost one anew, and what was in it would be forgotten. Blocks on the disk.
///
/// # Errors
/// `Storage`, which says what to do.
pub(super) fn check_parts(dir: &Path) -> Result<()> {
    let missing = missing_part(dir).map_err(|error| refused(dir, &error))?;
    missing.map_or(Ok(()), |part| Err(damaged(dir, &format!("{part} is missing"))))
}

/// Its own keyspace, and our three.
const KEYSPACES: usize = 4;

fn missing_part(dir: &Path) -> io::Result<Option<String>> {
    if tail::active(dir)?.is_none() {
        return Ok(Some("its log".to_owned()));
    }
    if !dir.join("version").try_exists()? {
        return Ok(Some("its file \"version\"".to_owned()));
    }
    let mut count = 0;
    for entry in std::fs::read_dir(dir.join("keyspaces"))? {
        let entry = entry?;
        count += 1;
        if !entry.path().join("current").try_exists()? {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Ok(Some(format!("the manifest of its keyspace {name}")));
        }
    }
    Ok((count < KEYSPACES).then(|| "one of its keyspaces".to_owned()))
}

/// Runs what reads the store, and says what to do about what it cannot read.
///
/// # Errors
/// Those of `read`; `Storage` where it panics.
pub(super) fn guarded<T>(dir: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(damaged(dir, &panicked(&*panic))));
    done.map_err(|error| match error {
        Error::Storage { source } => match source.downcast::<fjall::Error>() {
            Ok(error) => refused(dir, &*error),
            Err(source) => Error::Storage { source },
        },
        error => error,
    })
}

/// What the disk refuses is not damaged; whatever else cannot be read is.
pub(super) fn refused(dir: &Path, error: &(dyn StdError + 'static)) -> Error {
    use io::ErrorKind as Kind;
    let is_the_hosts = |kind| {
        matches!(
            kind,
            Kind::StorageFull
                | Kind::QuotaExceeded
                | Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
        )
    };
    match cause(error) {
        Some(cause) if is_the_hosts(cause.kind()) => {
            storage(format!("the journal in {} cannot be opened: {cause}", dir.display()))
        }
        _ => damaged(dir, &error.to_string()),
    }
}

/// The error of the operating system behind it, if there is one.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn damaged(dir: &Path, what: &str) -> Error {
    storage(format!("the journal is damaged: {what}. {}", advice(dir)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read");
    text.lines().next().unwrap_or_default().to_owned()
}
