//! What a snapshot is: an image of the engine's, and `image.json` that says which.
//!
//! The image goes when the snapshot's directory does. The engine of the contract removes that
//! and does not tell; but it lets go of this value then, and whoever lets go of the last one is
//! heard by the sweep, which looks whether the directory is still there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::blueprint::Blueprint;
use super::sweep::Sweep;
use crate::error::Result;
use crate::files;
use crate::id::Uid;

const FILE: &str = "image.json";

/// What is kept of a snapshot.
#[derive(Debug)]
pub struct Image {
    pub(super) content: Content,
    uid: Uid,
    sweep: Arc<Sweep>,
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// The engine's id of the image, which no tag moves.
    pub(super) id: String,
    /// What restores are made from.
    pub(super) blueprint: Blueprint,
    pub(super) made_with: BTreeMap<String, String>,
}

impl Image {
    pub(super) fn new(uid: Uid, content: Content, sweep: Arc<Sweep>) -> Self {
        Self { content, uid, sweep }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        files::write_json(&dir.join(FILE), &self.content)
    }

    pub(super) fn read(uid: Uid, dir: &Path, sweep: Arc<Sweep>) -> Result<Self> {
        Ok(Self::new(uid, files::read_json(&dir.join(FILE))?, sweep))
    }

    /// Whether the snapshot still has its file.
    pub(super) fn is_in(dir: &Path) -> bool {
        dir.join(FILE).is_file()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.sweep.expect(self.uid);
    }
}
