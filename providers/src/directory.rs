//! Names lead to instances, in memory and on disk; a rename is one system call.
//!
//! `<state>/instances/<uid>/` holds everything of an instance and never moves.
//! `<runtime>/names/<vm_id>` is a symbolic link to it: made exclusively, renamed with
//! `RENAME_NOREPLACE`, so that the kernel decides who wins. The names are a projection: lost
//! ones are made again from the instances' own records, and the pool's journal has the last
//! word. Several providers share one directory, so that a name is taken for all of them.
//!
//! In memory a name is looked up without a lock that anybody holds over I/O.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dashmap::mapref::entry::Entry;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::beneath;
use crate::error::{Result, VmRuntimeError};
use crate::id::{Uid, VmId};
use crate::map::SharedIdMap;

/// Where a directory keeps its files.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Survives a reboot: instances and snapshots.
    pub state: PathBuf,
    /// Best on tmpfs: names.
    pub runtime: PathBuf,
}

impl Paths {
    /// Everything of one instance.
    pub fn instance(&self, uid: Uid) -> PathBuf {
        self.state.join("instances").join(uid.to_string())
    }

    /// Everything of one snapshot.
    pub fn snapshot(&self, uid: Uid) -> PathBuf {
        self.state.join("snapshots").join(uid.to_string())
    }

    /// The same with the links followed that lie above them, which are the operator's; both are made
    /// (0700) when absent. From there on no link is followed: see [`crate::beneath`].
    ///
    /// # Errors
    /// Those of the file system.
    pub fn resolved(&self) -> io::Result<Self> {
        let resolve = |dir: &Path| {
            make_private_dir(dir)?;
            dir.canonicalize()
        };
        Ok(Self { state: resolve(&self.state)?, runtime: resolve(&self.runtime)? })
    }

    fn names(&self) -> PathBuf {
        self.runtime.join("names")
    }
}

/// The names of one provider's VMs.
#[derive(Debug)]
pub struct Directory {
    index: SharedIdMap<VmId, Uid>,
    disk: Option<Disk>,
}

#[derive(Debug)]
struct Disk {
    paths: Paths,
    /// The directory of the names, kept open: a rename looks up two names and no path.
    names: OwnedFd,
}

impl Directory {
    /// A directory of names that live and die with the process.
    pub fn in_memory() -> Self {
        Self { index: SharedIdMap::default(), disk: None }
    }

    /// The directory below `paths`, which are made (0700) when absent. Nothing is claimed yet.
    ///
    /// # Errors
    /// `Backend` when a path cannot be made.
    pub fn open(paths: Paths) -> Result<Self> {
        let paths = paths.resolved().map_err(|error| {
            VmRuntimeError::backend(format!("make {}", paths.state.display()), error)
        })?;
        for dir in [paths.state.join("instances"), paths.state.join("snapshots"), paths.names()] {
            beneath::private_dir(&dir).map_err(|error| {
                VmRuntimeError::backend(format!("make {}", dir.display()), error)
            })?;
        }
        let names = beneath::open_dir(&paths.names())
            .map_err(|error| VmRuntimeError::backend("open the names", error))?;
        let disk = Some(Disk { paths, names: names.into() });
        Ok(Self { index: SharedIdMap::default(), disk })
    }

    /// Where its files are, if it has any.
    pub fn paths(&self) -> Option<&Paths> {
        self.disk.as_ref().map(|disk| &disk.paths)
    }

    /// The instance that `vm_id` leads to. A name that is being given or taken leads to one that
    /// does not carry it: the caller compares.
    pub fn lookup(&self, vm_id: &VmId) -> Option<Uid> {
        self.index.get(vm_id).map(|uid| *uid)
    }

    /// Gives the free name `vm_id` to `uid`.
    ///
    /// # Errors
    /// `AlreadyExists`, here or at another provider of the same directory.
    pub fn claim(&self, vm_id: &VmId, uid: Uid) -> Result<()> {
        self.reserve(vm_id, uid)?;
        let Some(Disk { paths, names }) = &self.disk else { return Ok(()) };
        let made = rustix::fs::symlinkat(paths.instance(uid), names, vm_id.as_str());
        made.map_err(|error| {
            self.index.remove(vm_id);
            name_error(vm_id, "claim", error.into())
        })
    }

    /// Moves `uid` from its name `old` to the free name `new`; `old` is free when it returns.
    /// `switch` runs at the moment both are taken and `new` is on disk: from there on `new` is
    /// the name.
    ///
    /// # Errors
    /// `AlreadyExists`, and nothing has changed.
    pub fn rename(&self, old: &VmId, new: &VmId, uid: Uid, switch: impl FnOnce()) -> Result<()> {
        self.reserve(new, uid)?;
        if let Some(disk) = &self.disk
            && let Err(error) = rename_exclusively(&disk.names, old.as_str(), new.as_str())
        {
            self.index.remove(new);
            return Err(name_error(new, "rename", error));
        }
        switch();
        self.index.remove_if(old, |_, holder| *holder == uid);
        Ok(())
    }

    /// Takes the name away from `uid`; a no-op when another has it.
    pub fn release(&self, vm_id: &VmId, uid: Uid) {
        // The link goes first: while the index holds the name nobody here can claim it anew.
        if self.lookup(vm_id) != Some(uid) {
            return;
        }
        if let Some(disk) = &self.disk
            && let Err(error) = unlinkat(&disk.names, vm_id.as_str(), AtFlags::empty())
            && error != Errno::NOENT
        {
            tracing::warn!(%vm_id, %uid, %error, "could not remove a name");
        }
        self.index.remove_if(vm_id, |_, holder| *holder == uid);
    }

    /// The names on disk and the instances they lead to; links that lead nowhere are removed.
    ///
    /// # Errors
    /// `Backend` when the names cannot be read.
    pub fn names_on_disk(&self) -> Result<Vec<(VmId, Uid)>> {
        let Some(Disk { paths, .. }) = &self.disk else { return Ok(Vec::new()) };
        let failed = |error| VmRuntimeError::backend("read the names", error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(paths.names()).map_err(failed)? {
            let link = entry.map_err(failed)?.path();
            let target = std::fs::read_link(&link).ok();
            let uid = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
            let uid = uid.and_then(|uid| uid.parse::<Uid>().ok());
            let vm_id = link.file_name().and_then(|name| name.to_str());
            let vm_id = vm_id.and_then(|vm_id| VmId::parse(vm_id).ok());
            match (vm_id, uid) {
                (Some(vm_id), Some(uid)) if paths.instance(uid).is_dir() => {
                    names.push((vm_id, uid))
                }
                _ if link.is_symlink() => std::fs::remove_file(&link).map_err(failed)?,
                _ => {
                    tracing::warn!(path = %link.display(), "a stranger among the names is left alone")
                }
            }
        }
        Ok(names)
    }

    /// Takes up a name found on disk, after a restart.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn adopt(&self, vm_id: &VmId, uid: Uid) -> Result<()> {
        self.reserve(vm_id, uid)
    }

    fn reserve(&self, vm_id: &VmId, uid: Uid) -> Result<()> {
        match self.index.entry(vm_id.clone()) {
            Entry::Occupied(_) => Err(VmRuntimeError::AlreadyExists { vm_id: vm_id.clone() }),
            Entry::Vacant(free) => {
                free.insert(uid);
                Ok(())
            }
        }
    }
}

fn name_error(vm_id: &VmId, what: &str, error: io::Error) -> VmRuntimeError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => VmRuntimeError::AlreadyExists { vm_id: vm_id.clone() },
        _ => VmRuntimeError::backend(format!("{what} the name {vm_id}"), error),
    }
}

/// Makes a directory that only its owner can enter, and those above it.
///
/// # Errors
/// Those of the system calls; one that is there already is none.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(target_os = "linux")]
fn rename_exclusively(names: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    use rustix::fs::{RenameFlags, renameat_with};
    renameat_with(names, from, names, to, RenameFlags::NOREPLACE).map_err(Into::into)
}

/// Without an exclusive rename, a link made exclusively decides who wins.
#[cfg(not(target_os = "linux"))]
fn rename_exclusively(names: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    let target = rustix::fs::readlinkat(names, from, Vec::new())?;
    rustix::fs::symlinkat(target, names, to)?;
    unlinkat(names, from, AtFlags::empty()).map_err(Into::into)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(byte: u8) -> Uid {
        Uid::from_random([byte; 16])
    }

    fn id(text: &str) -> VmId {
        VmId::parse(text).unwrap()
    }

    fn on_disk(dir: &Path) -> Directory {
        let paths = Paths { state: dir.join("state"), runtime: dir.join("run") };
        Directory::open(paths).unwrap()
    }

    #[test]
    fn a_name_is_taken_for_every_provider_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (on_disk(dir.path()), on_disk(dir.path()));
        one.claim(&id("a"), uid(1)).unwrap();
        assert_eq!(other.claim(&id("a"), uid(2)).unwrap_err().kind(), "already_exists");
        other.claim(&id("b"), uid(2)).unwrap();
        let renamed = other.rename(&id("b"), &id("a"), uid(2), || panic!("it must not switch"));
        assert_eq!(renamed.unwrap_err().kind(), "already_exists");
        assert_eq!(other.lookup(&id("a")), None);
    }

    #[test]
    fn a_rename_frees_the_old_name() {
        let dir = tempfile::tempdir().unwrap();
        for names in [Directory::in_memory(), on_disk(dir.path())] {
            names.claim(&id("a"), uid(1)).unwrap();
            names.rename(&id("a"), &id("b"), uid(1), || ()).unwrap();
            assert_eq!(names.lookup(&id("a")), None);
            assert_eq!(names.lookup(&id("b")), Some(uid(1)));
            names.claim(&id("a"), uid(2)).unwrap();
        }
    }

    #[test]
    fn a_name_that_leads_nowhere_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let names = on_disk(dir.path());
        names.claim(&id("gone"), uid(1)).unwrap();
        names.claim(&id("here"), uid(2)).unwrap();
        std::fs::create_dir(names.paths().unwrap().instance(uid(2))).unwrap();
        assert_eq!(names.names_on_disk().unwrap(), [(id("here"), uid(2))]);
        on_disk(dir.path()).claim(&id("gone"), uid(3)).unwrap();
    }

    #[test]
    fn release_spares_the_next_holder() {
        let names = Directory::in_memory();
        names.claim(&id("a"), uid(2)).unwrap();
        names.release(&id("a"), uid(1));
        assert_eq!(names.lookup(&id("a")), Some(uid(2)));
    }
}
