//! What a durable guest leaves on disk: `guest.json`, in its instance's or its snapshot's
//! directory, written anew whenever something of it changes.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::guest::Guest;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::{Failure, VmStatus};

const FILE: &str = "guest.json";

/// A guest and what is around it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) guest: Guest,
    pub(super) status: VmStatus,
    pub(super) failure: Option<Failure>,
    pub(super) console: String,
}

/// Writes a captured guest as a tar stream of the one file.
pub(super) fn write_tar(guest: &Guest, into: &mut dyn Write) -> Result<()> {
    let failed = |error: std::io::Error| VmRuntimeError::backend("export a guest", error);
    let text = serde_json::to_vec_pretty(guest).map_err(|error| failed(error.into()))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    let mut archive = tar::Builder::new(into);
    archive.append_data(&mut header, FILE, text.as_slice()).map_err(failed)?;
    archive.finish().map_err(failed)
}

/// The file in `dir`.
pub(super) fn file_in(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl Kept {
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        files::write_json(file, self)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        files::read_json(&file_in(dir))
    }
}
