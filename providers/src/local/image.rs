//! The files that VMs are made from, and those that snapshots are made of.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::error::{Result, VmRuntimeError};

/// A file that is not ours, as it was when it was first used: if it has changed, what was made
/// with it is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) length: u64,
    modified: SystemTime,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self { length: metadata.len(), modified: metadata.modified()? })
    }
}

/// `path` without links and from the root on: VMs work in directories of their own.
///
/// # Errors
/// `InvalidSpec` of `field` when it is not there.
pub(crate) fn absolute(field: &'static str, path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| VmRuntimeError::InvalidSpec {
        field,
        reason: format!("{}: {error}", path.display()),
    })
}

/// Brings the files of a directory to their medium: what is in it outlives the host's next crash.
/// Answers how many bytes they take there.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let file = beneath::open(&entry?.path(), OFlags::RDONLY)?;
        file.sync_data()?;
        bytes += file.metadata()?.blocks() * 512;
    }
    beneath::open_dir(dir)?.sync_all()?;
    Ok(bytes)
}
