//! The directory where a machine's process works, and what lies there under which name.
//!
//! Without a jail it is the instance's directory. In a jail it is the jail's root, where every
//! file is a link to one outside: to the instance's own, which then belong to the jail's user,
//! or to one that is lent for reading.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, lchown as chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::blueprint::Blueprint;
use crate::beneath;
use crate::directory::make_private_dir;
use crate::error::Result;
use crate::files;
use crate::local::copy;

/// What Firecracker itself says.
pub(super) const LOG: &str = "firecracker.log";
/// Its measurements.
pub(super) const METRICS: &str = "firecracker.metrics";
/// The host's end of the guest's vsock.
pub(super) const VSOCK: &str = "vsock.sock";
/// What the guest writes on its serial port.
pub(super) const CONSOLE: &str = "console";

/// A machine's home.
#[derive(Debug)]
pub(super) struct Home<'a> {
    dir: &'a Path,
    pub(super) root: PathBuf,
    /// The jail's user.
    owner: Option<u32>,
}

impl<'a> Home<'a> {
    pub(super) fn of(dir: &'a Path, blueprint: &Blueprint) -> Self {
        let owner = blueprint.jail.as_ref().map(|jail| jail.uid);
        Self { dir, root: blueprint.home(dir), owner }
    }

    /// Makes it as a process expects it that is about to start, with `drives`: without what an
    /// earlier one left.
    pub(super) fn furnish(&self, blueprint: &Blueprint) -> Result<()> {
        let furnish = || -> io::Result<()> {
            if let Some(owner) = self.owner {
                self.clear_jail()?;
                make_private_dir(&self.root)?;
                chown(&self.root, Some(owner), Some(owner))?;
            }
            for stale in [super::api::SOCKET, VSOCK, LOG, METRICS] {
                self.discard(stale);
            }
            self.show_vsock(blueprint)?;
            self.make_file(LOG)?;
            for drive in &blueprint.drives {
                match drive.shared_image() {
                    Some(image) => self.lend(image, &drive.file())?,
                    None => self.own(&drive.file())?,
                }
            }
            Ok(())
        };
        furnish().map_err(|error| {
            files::io_error(format!("make {} ready for Firecracker", self.root.display()), error)
        })
    }

    /// The path into a jail is longer than the address of a socket may be: a link is not.
    fn show_vsock(&self, blueprint: &Blueprint) -> io::Result<()> {
        let Some(jail) = blueprint.jail.as_ref().filter(|_| blueprint.vsock_cid.is_some()) else {
            return Ok(());
        };
        let link = self.dir.join(VSOCK);
        let _ = fs::remove_file(&link);
        symlink(jail.root.join(VSOCK), link)
    }

    /// Takes the jail away; the machine's own files stay.
    pub(super) fn clear_jail(&self) -> io::Result<()> {
        let jail = self.owner.and_then(|_| self.root.parent());
        match jail.map(fs::remove_dir_all) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets the process read `from` under `name`.
    pub(super) fn lend(&self, from: &Path, name: &str) -> io::Result<()> {
        let to = self.root.join(name);
        self.discard(name);
        let Some(owner) = self.owner else { return symlink(from, to) };
        // A link has the owner and rights of its file: one that not everybody may read is copied.
        let readable = fs::metadata(from)?.permissions().mode() & 0o004 != 0;
        if readable && fs::hard_link(from, &to).is_ok() {
            return Ok(());
        }
        copy::copy(from, &to, &|| true)?;
        chown(&to, Some(owner), Some(owner))
    }

    /// Lets the process read `from` for as long as one call takes; answers what the call has to say:
    /// the path itself, or in a jail, or where the path is no text, `name`.
    pub(super) fn lend_briefly(&self, from: &Path, name: &str) -> io::Result<String> {
        let path = from.to_str().filter(|_| self.owner.is_none() && from.is_absolute());
        if let Some(path) = path {
            return Ok(path.to_owned());
        }
        self.lend(from, name)?;
        Ok(name.to_owned())
    }

    /// Lets the process write to a file that lies in the instance's directory.
    pub(super) fn own(&self, name: &str) -> io::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let file = self.dir.join(name);
        chown(&file, Some(owner), Some(owner))?;
        fs::hard_link(file, self.root.join(name))
    }

    /// Makes an empty file that the process writes.
    pub(super) fn make_file(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        beneath::open(&path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
        self.owner.map_or(Ok(()), |owner| chown(&path, Some(owner), Some(owner)))
    }

    /// Copies `from` to `name` for the process to write to.
    pub(super) fn give_copy(
        &self,
        from: &Path,
        name: &str,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        self.discard(name);
        let path = self.root.join(name);
        copy::copy(from, &path, go_on)?;
        self.owner.map_or(Ok(()), |owner| chown(&path, Some(owner), Some(owner)))
    }

    /// Lets the process connect to a socket that was made in its home.
    pub(super) fn admit(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        self.owner.map_or(Ok(()), |owner| chown(&path, Some(owner), Some(owner)))
    }

    /// Moves what the process has written to `to`, outside. From a jail it is then root's, and
    /// may be lent to others.
    pub(super) fn take(&self, name: &str, to: &Path) -> io::Result<()> {
        let from = self.root.join(name);
        match self.owner {
            Some(_) => beneath::take(&from, to, Mode::RUSR | Mode::RGRP | Mode::ROTH),
            None => fs::rename(from, to),
        }
    }

    /// Removes a file of the process, if it is there.
    pub(super) fn discard(&self, name: &str) {
        let _ = fs::remove_file(self.root.join(name));
    }
}
