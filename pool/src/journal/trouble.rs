//! What is said of a journal that cannot be used, and what to do about it.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::segments::Broken;
use crate::error::{Error, Result};

/// What to do about a damaged journal.
fn advice(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Put a copy of {dir} back. If there is none, move {dir} away and start once with --reap: \
         that destroys the VMs here, and templates and pools have to be made again"
    )
}

/// What a log that cannot be used is refused with.
pub(super) fn unusable(dir: &Path, broken: Broken) -> Error {
    let name =
        |file: PathBuf| file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    match broken {
        Broken::Io(error) => refused(dir, &error),
        Broken::Body { file, at } => damaged(
            dir,
            &format!("{} is not whole at byte {at}, and goes on behind it", name(file)),
        ),
        Broken::Missing(file) => damaged(dir, &format!("{} is missing", name(file))),
    }
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

pub(super) fn damaged(dir: &Path, what: &str) -> Error {
    storage(format!("the journal is damaged: {what}. {}", advice(dir)))
}

/// Reads a record, which an error names.
pub(super) fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| unreadable(name, &error))
}

/// What a journal is refused with that has such a record.
pub(super) fn unreadable(name: &str, why: &dyn StdError) -> Error {
    storage(format!(
        "the journal is damaged: the record {name} cannot be read: {why}. Put a copy of the \
         journal back, or start with an empty one and --reap"
    ))
}

pub(super) fn storage(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Storage { source: source.into() }
}
