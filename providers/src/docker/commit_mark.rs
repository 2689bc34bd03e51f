//! The mark of a commit under way, in an instance's directory: the engine pauses a running container
//! for it. Should hearth end meanwhile, the next one is not to take that for a stop.

use std::fs;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::error::Result;
use crate::files;

const FILE: &str = "committing";

/// The mark; it goes when this is dropped.
pub(super) struct CommitMark {
    path: PathBuf,
}

impl CommitMark {
    pub(super) fn set(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let written = beneath::create(&path);
        written.map_err(|error| files::io_error(format!("write {}", path.display()), error))?;
        Ok(Self { path })
    }

    /// Removes what a former life left; whether there was any.
    pub(super) fn take(dir: &Path) -> bool {
        fs::remove_file(dir.join(FILE)).is_ok()
    }
}

impl Drop for CommitMark {
    fn drop(&mut self) {
        // What is left is taken for a commit cut short, and makes a paused container go on.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a commit's mark is left");
        }
    }
}
