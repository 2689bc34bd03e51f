//! Whose the journal's directory is: one hearth's at a time, and nobody else's.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_providers::beneath;
use hearth_providers::directory::make_private_dir;
use rustix::fs::OFlags;

use super::trouble::{refused, storage};
use crate::error::Result;

/// How long after a failed try a lock is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the lock that keeps other hearths out, also while the store is closed for a moment.
///
/// # Errors
/// `Storage` when another hearth has it after a while, or the directory is not ours alone.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let make = || {
        make_private_dir(dir)?;
        check_private(dir)?;
        beneath::open(&dir.join("owner"), OFlags::RDWR | OFlags::CREATE)
    };
    let file = make().map_err(|error| refused(dir, &error))?;
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

/// Refuses a directory that somebody else could have put something into, and links in it.
fn check_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let refuse = |path: &Path, why: &str| {
        let why = format!("{} {why}: nobody but hearth puts anything there", path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    };
    let own = rustix::process::geteuid().as_raw();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in std::iter::once(Ok(dir.clone()))
            .chain(std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())))
        {
            let path: PathBuf = path.map_err(|error: io::Error| error)?;
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
