//! The few file operations that several modules need, each of them whole or not at all.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Source;
use crate::beneath;
use crate::error::{Result, VmRuntimeError};

/// A file system that has less than this left is full: less than any program that fails for it asks for.
#[cfg(any(test, all(feature = "qemu", target_os = "linux")))]
const FULL_BYTES: u64 = 1 << 20;

/// Writes `value` as JSON so that a reader sees the former file or the whole new one. Private to
/// its owner.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec_pretty(value)?;
        beneath::create(&temporary)?.write_all(&text)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| io_error(format!("write {}", path.display()), error))
}

/// Reads what [`write_json`] wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let failed = || format!("read {}", path.display());
    let text = beneath::read(path).map_err(|error| io_error(failed(), error))?;
    serde_json::from_slice(&text).map_err(|error| VmRuntimeError::backend(failed(), error))
}

/// What is written has to be read as what it was.
///
/// # Panics
/// When it is not.
pub(crate) fn fuzz<T: Serialize + DeserializeOwned>(text: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).ok(), Some(written), "it says the same again");
    Some(read)
}

/// As [`write_json`], and on the disk when it returns.
pub(crate) fn write_json_through<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_json(path, value)?;
    let failed = |error| io_error(format!("write {}", path.display()), error);
    let file = beneath::open(path, OFlags::RDONLY);
    file.and_then(|file| file.sync_all()).map_err(failed)?;
    path.parent().map_or(Ok(()), sync_dir).map_err(failed)
}

/// Waits until every file in `dir`, and their names, are on the disk.
pub(crate) fn sync_tree(dir: &Path) -> Result<()> {
    let failed = |error| io_error(format!("write {}", dir.display()), error);
    let sync = || -> io::Result<()> {
        for file in files_in(dir)? {
            beneath::open(&dir.join(file), OFlags::RDONLY)?.sync_all()?;
        }
        sync_dir(dir)?;
        dir.parent().map_or(Ok(()), sync_dir)
    };
    sync().map_err(failed)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    beneath::open_dir(dir)?.sync_all()
}

/// The names of the plain files in `dir`, sorted.
pub(crate) fn files_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.extend(entry.file_name().into_string());
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the `files` of a snapshot as a tar stream that depends on nothing but their names, bytes
/// and holes.
pub(crate) fn export<I>(
    source: &Source<'_, I>,
    files: &[String],
    into: &mut dyn Write,
) -> Result<()> {
    let dir = &source.dir;
    if let Some(missing) = files.iter().find(|file| !dir.join(file).is_file()) {
        return Err(source.not_found(format!("its file {missing} is gone")));
    }
    let failed = |error| io_error(format!("export {}", dir.display()), error);
    let mut archive = tar::Builder::new(into);
    archive.mode(tar::HeaderMode::Deterministic);
    for file in files {
        let mut opened = beneath::open(&dir.join(file), OFlags::RDONLY).map_err(failed)?;
        archive.append_file(file, &mut opened).map_err(failed)?;
    }
    archive.finish().map_err(failed)
}

/// Bytes on disk of `dir` and what is below it; what goes meanwhile does not count.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_on_disk(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Removes a directory and what is in it; what cannot be removed is logged.
pub(crate) fn remove_dir(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "could not remove a directory");
    }
}

/// What a program failed with that wrote to `path`: some say of a full disk no more than that writing failed.
/// `what` is what it was to do.
#[cfg(any(test, all(feature = "qemu", target_os = "linux")))]
pub(crate) fn full_or(error: VmRuntimeError, path: &Path, what: &str) -> VmRuntimeError {
    let left = rustix::fs::statvfs(path.parent().unwrap_or(path))
        .map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize));
    match error {
        VmRuntimeError::Backend { .. } if left < FULL_BYTES => {
            tracing::warn!(path = %path.display(), %error, "the disk is full");
            VmRuntimeError::Exhausted { what: format!("disk space ({what})"), retry_after: None }
        }
        error => error,
    }
}

/// Says of an I/O error whether the host is full or the call just failed.
pub(crate) fn io_error(what: String, error: io::Error) -> VmRuntimeError {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => {
            VmRuntimeError::Exhausted { what: format!("disk space ({what})"), retry_after: None }
        }
        _ => VmRuntimeError::backend(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> VmRuntimeError {
        VmRuntimeError::Backend { what: "ram_save_setup failed".to_owned(), source: None }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_that_failed_on_a_full_disk_failed_for_that() {
        // Of which nothing is ever free.
        let full = full_or(failed(), Path::new("/proc/state"), "QEMU");
        assert_eq!(full.to_string(), "disk space (QEMU) is exhausted");
    }

    #[test]
    fn with_room_left_it_failed_for_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let error = full_or(failed(), &dir.path().join("state"), "QEMU");
        assert_eq!(error.to_string(), failed().to_string());
    }
}
