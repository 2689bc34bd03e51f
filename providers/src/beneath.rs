//! The one way to the files of the state directory and of what is in it: those of the journal, of
//! snapshots, instances and the audit, which are ours, and those in directories that somebody else writes
//! to, the program of a machine, which may have been taken over by its guest.
//!
//! What is opened here is what lies there under that name, and never what a link that was planted leads
//! to, whether it has the name itself or that of a directory on the way; it is what it is expected to be,
//! so that nothing waits for the other end of a pipe; and what is done to it is done to what was opened,
//! not to whatever has the name by then. What is made is its owner's alone.
//!
//! So paths must have no links in them. Those of the state and runtime directories have none: links above
//! them, which are the operator's, are followed once, at a start ([`crate::directory::Paths::resolved`]).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

/// Opens the plain file at `path`, or makes it (0600) where `flags` say so.
///
/// # Errors
/// Those of the file system; `ELOOP`, or without `openat2` `ENOTDIR`, for a link; `InvalidInput` for what
/// is no plain file, and for a path that leads upwards.
pub fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    // A pipe would be waited for.
    let file = File::from(open_any(path, flags | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(not("a plain file", path));
    }
    Ok(file)
}

/// Makes the plain file at `path` (0600), to be written.
///
/// # Errors
/// As [`open`]; `AlreadyExists` when something has the name, a link that leads nowhere included.
pub fn create_new(path: &Path) -> io::Result<File> {
    open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
}

/// Makes the plain file at `path` (0600), or empties it, to be written.
///
/// # Errors
/// As [`open`].
pub fn create(path: &Path) -> io::Result<File> {
    open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
}

/// What is in the plain file at `path`.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, OFlags::RDONLY)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the directory `dir`, to be synced.
///
/// # Errors
/// Those of the file system; `ELOOP` or `ENOTDIR` for a link.
pub fn open_dir(dir: &Path) -> io::Result<File> {
    directory(dir).map(File::from)
}

/// Makes the directory `dir` (0700) when it is absent, and opens it; one that is there is closed to others.
///
/// # Errors
/// As [`open_dir`]; `PermissionDenied` for another user's.
pub fn private_dir(dir: &Path) -> io::Result<File> {
    crate::directory::make_private_dir(dir)?;
    let opened = open_dir(dir)?;
    let found = opened.metadata()?;
    if found.mode() & 0o077 != 0 {
        // Of another user's this is refused.
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

/// Removes what lies under the name `path`, and whatever is in it; links are not followed. What is not
/// there is no error.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The socket at `path`, to be connected to by way of its descriptor.
///
/// # Errors
/// As [`open`], of sockets.
pub(crate) fn socket(path: &Path) -> io::Result<OwnedFd> {
    let opened = open_any(path, OFlags::PATH)?;
    if FileType::from_raw_mode(fstat(&opened)?.st_mode) != FileType::Socket {
        return Err(not("a socket", path));
    }
    Ok(opened)
}

/// Moves the plain file at `from` to `to`, where nobody else writes, with these rights and root for its
/// owner.
///
/// # Errors
/// As [`open`]; nothing is then at `to`.
pub(crate) fn take(from: &Path, to: &Path, mode: Mode) -> io::Result<()> {
    let file = open(from, OFlags::RDONLY)?;
    rustix::fs::fchown(&file, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))?;
    rustix::fs::fchmod(&file, mode)?;
    std::fs::rename(from, to)?;
    let (opened, moved) = (file.metadata()?, std::fs::symlink_metadata(to)?);
    if (opened.dev(), opened.ino()) != (moved.dev(), moved.ino()) {
        // It was exchanged for something else in between.
        let _ = std::fs::remove_file(to);
        return Err(not("the file that it was", from));
    }
    Ok(())
}

fn open_any(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not("a file's path", path));
    };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    let dir = directory(dir)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(&dir, name, flags, mode, resolve) {
            // A kernel before 5.6, or a filter that does not know the call.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            opened => return Ok(opened?),
        }
    }
    Ok(openat(&dir, name, flags, mode)?)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory on whose path there is no link.
fn directory(dir: &Path) -> io::Result<OwnedFd> {
    if dir.components().any(|component| component == Component::ParentDir) {
        return Err(not("a path that leads down", dir));
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match openat2(rustix::fs::CWD, path, DIRECTORY, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            opened => return Ok(opened?),
        }
    }
    walk(dir)
}

/// The same, one name after the other, where the kernel cannot.
fn walk(dir: &Path) -> io::Result<OwnedFd> {
    let begin = if dir.is_absolute() { "/" } else { "." };
    let mut at = rustix::fs::open(begin, DIRECTORY, Mode::empty())?;
    for component in dir.components() {
        match component {
            Component::Normal(name) => {
                at = openat(&at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(not("a path that leads down", dir));
            }
        }
    }
    Ok(at)
}

fn not(what: &str, path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_planted_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("secret"), "secret").unwrap();
        symlink(at("secret"), at("link")).unwrap();
        for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::WRONLY | OFlags::CREATE] {
            let error = open(&at("link"), flags).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        }
        let _listener = UnixListener::bind(at("other.sock")).unwrap();
        symlink(at("other.sock"), at("vsock.sock")).unwrap();
        assert!(socket(&at("vsock.sock")).is_err());
        assert!(socket(&at("other.sock")).is_ok());
        assert!(socket(&at("secret")).is_err());
    }

    #[test]
    fn a_link_on_the_way_leads_nowhere_with_and_without_help_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("elsewhere/inner")).unwrap();
        std::fs::write(root.join("elsewhere/inner/file"), "secret").unwrap();
        std::fs::create_dir(root.join("state")).unwrap();
        symlink(root.join("elsewhere"), root.join("state/planted")).unwrap();
        symlink("inner", root.join("elsewhere/relative")).unwrap();
        for (dir, is_whole) in [
            ("elsewhere/inner", true),
            ("state/planted", false),
            ("state/planted/inner", false),
            ("elsewhere/relative", false),
            ("state/../elsewhere/inner", false),
        ] {
            let dir = root.join(dir);
            assert_eq!(directory(&dir).is_ok(), is_whole, "{}", dir.display());
            assert_eq!(walk(&dir).is_ok(), is_whole, "{}", dir.display());
            assert_eq!(read(&dir.join("file")).is_ok(), is_whole, "{}", dir.display());
            assert_eq!(create_new(&dir.join("new")).is_ok(), is_whole, "{}", dir.display());
        }
        assert!(!root.join("elsewhere/new").exists());
    }

    #[test]
    fn what_is_made_is_its_owners_and_no_planted_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_new(&at("new")).unwrap();
        assert_eq!(std::fs::metadata(at("new")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create_new(&at("new")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        symlink(at("nowhere"), at("dangling")).unwrap();
        assert!(create_new(&at("dangling")).is_err());
        assert!(create(&at("dangling")).is_err());
        assert!(!at("nowhere").exists());
        std::fs::create_dir(at("kept")).unwrap();
        std::fs::write(at("kept/file"), "").unwrap();
        symlink(at("kept"), at("link")).unwrap();
        for name in ["link", "dangling", "new", "absent"] {
            remove(&at(name)).unwrap();
            assert!(std::fs::symlink_metadata(at(name)).is_err(), "{name}");
        }
        assert!(at("kept/file").exists());
    }

    #[test]
    fn a_directory_that_others_could_enter_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (open, new) = (dir.path().join("open"), dir.path().join("new"));
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).unwrap();
        for path in [&open, &new] {
            private_dir(path).unwrap();
            assert_eq!(mode(path), 0o700);
        }
    }

    #[test]
    fn long_names_are_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let longest = dir.path().join("n".repeat(255));
        create_new(&longest).unwrap();
        assert!(create_new(&dir.path().join("n".repeat(256))).is_err());
        assert!(read(&longest).is_ok());
    }

    #[test]
    fn a_planted_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("console");
        let made =
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        made.unwrap();
        assert_eq!(open(&pipe, OFlags::RDONLY).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_taken_is_what_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("secret"), "secret").unwrap();
        std::fs::set_permissions(at("secret"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink(at("secret"), at("state")).unwrap();
        let mode = Mode::RUSR | Mode::RGRP | Mode::ROTH;
        assert!(take(&at("state"), &at("taken"), mode).is_err());
        assert!(!at("taken").exists());
        let rights = std::fs::metadata(at("secret")).unwrap().permissions().mode() & 0o777;
        assert_eq!(rights, 0o600, "what the link leads to is as it was");
        // Only root may give files away.
        if rustix::process::geteuid().is_root() {
            std::fs::write(at("memory"), "memory").unwrap();
            take(&at("memory"), &at("taken"), mode).unwrap();
            assert_eq!(std::fs::read(at("taken")).unwrap(), b"memory");
        }
    }
}
