//! The few file operations that several modules need, each of them whole or not at all.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, VmRuntimeError};

/// Writes `value` as JSON so that a reader sees the former file or the whole new one, also after
/// a crash of the host. Private to its owner.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec_pretty(value)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| io_error(format!("write {}", path.display()), error))
}

/// Reads what [`write_json`] wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let failed = || format!("read {}", path.display());
    let text = std::fs::read(path).map_err(|error| io_error(failed(), error))?;
    serde_json::from_slice(&text).map_err(|error| VmRuntimeError::backend(failed(), error))
}

/// Removes a directory and what is in it; what cannot be removed is logged.
pub(crate) fn remove_dir(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "could not remove a directory");
    }
}

/// Says of an I/O error whether the host is full or the call just failed.
pub(crate) fn io_error(what: String, error: std::io::Error) -> VmRuntimeError {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => {
            VmRuntimeError::Exhausted { what: format!("disk space ({what})"), retry_after: None }
        }
        _ => VmRuntimeError::backend(what, error),
    }
}
