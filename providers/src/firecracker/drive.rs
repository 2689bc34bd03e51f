//! Drives: raw files, each machine's own where it may write.
//!
//! Firecracker has no layers, so what is writable is copied: for a boot from the image that the
//! spec names, for a clone from the snapshot. The copy shares its blocks where the file system
//! can do that. What is read-only is never copied; that it has not changed is checked.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blueprint::check_id;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::local::copy;
use crate::local::image::{self, Stamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Drive {
    pub(super) id: String,
    pub(super) is_root: bool,
    pub(super) read_only: bool,
    /// The image that the spec names.
    image: PathBuf,
    /// The image as it was, where it is still used.
    stamp: Option<Stamp>,
}

/// Why a drive of a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    Missing(String),
    Changed(String),
}

impl Drive {
    /// The drive `id` that starts as the raw image at `path`.
    pub(super) fn of(id: &str, path: &Path, read_only: bool, is_root: bool) -> Result<Self> {
        check_id("extra_drives", id)?;
        let image = image::absolute(if id == "rootfs" { "rootfs" } else { "extra_drives" }, path)?;
        let stamp = Stamp::of(&image)
            .map_err(|error| files::io_error(format!("look at {}", image.display()), error))?;
        let stamp = read_only.then_some(stamp);
        Ok(Self { id: id.to_owned(), is_root, read_only, image, stamp })
    }

    /// Its name wherever it is.
    pub(super) fn file(&self) -> String {
        format!("drive-{}", self.id)
    }

    /// What a machine that may not write to it reads.
    pub(super) fn shared_image(&self) -> Option<&Path> {
        self.read_only.then_some(&self.image)
    }

    /// Gives a machine that boots in `dir` its own copy, if it may write.
    pub(super) fn make_own(&self, dir: &Path) -> Result<()> {
        match self.read_only {
            true => Ok(()),
            false => copy_file(&self.image, &dir.join(self.file()), &|| true),
        }
    }

    /// Copies it from one directory to another, between an instance and a snapshot: nobody may
    /// write to it meanwhile.
    pub(super) fn copy_between(
        &self,
        from: &Path,
        to: &Path,
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        match self.read_only {
            true => Ok(()),
            false => copy_file(&from.join(self.file()), &to.join(self.file()), go_on),
        }
    }

    /// Whether it can be used for a restore of the snapshot in `dir`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, dir: &Path) -> Result<(), Unusable> {
        let path = if self.read_only { self.image.clone() } else { dir.join(self.file()) };
        let found = Stamp::of(&path)
            .map_err(|error| Unusable::Missing(format!("{}: {error}", path.display())))?;
        match self.stamp.is_some_and(|stamp| stamp != found) {
            true => Err(Unusable::Changed(format!("{} has changed since", path.display()))),
            false => Ok(()),
        }
    }
}

fn copy_file(from: &Path, to: &Path, go_on: &dyn Fn() -> bool) -> Result<()> {
    copy::copy(from, to, go_on).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            VmRuntimeError::backend(format!("copy {}: it is not there", from.display()), error)
        }
        _ => files::io_error(format!("copy {}", from.display()), error),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_may_be_written_is_copied_and_what_may_not_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, [7; 4096]).unwrap();
        let (own, shared) = (
            Drive::of("rootfs", &image, false, true).unwrap(),
            Drive::of("data", &image, true, false).unwrap(),
        );
        let machine = dir.path().join("machine");
        fs::create_dir(&machine).unwrap();
        own.make_own(&machine).unwrap();
        shared.make_own(&machine).unwrap();
        assert_eq!(fs::read(machine.join("drive-rootfs")).unwrap(), [7; 4096]);
        assert!(!machine.join("drive-data").exists());
        assert!(own.check(&machine).is_ok() && shared.check(&machine).is_ok());
        fs::write(&image, [8; 512]).unwrap();
        assert!(own.check(&machine).is_ok(), "it has its own");
        assert!(matches!(shared.check(&machine), Err(Unusable::Changed(_))));
        fs::remove_file(machine.join("drive-rootfs")).unwrap();
        assert!(matches!(own.check(&machine), Err(Unusable::Missing(_))));
    }
}
