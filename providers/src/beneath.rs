//! Files and sockets in directories that somebody else writes to: the program of a machine, which may
//! have been taken over by its guest, in its jail above all.
//!
//! What is opened here is what lies there under that name, and never what a link that was planted leads
//! to; it is what it is expected to be, so that nothing waits for the other end of a pipe; and what is
//! done to it is done to what was opened, not to whatever has the name by then. The directory itself,
//! and those above it, are ours.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

/// Opens the plain file at `path`, or makes it (0600) where `flags` say so.
///
/// # Errors
/// Those of the file system; `ELOOP` for a link; `InvalidInput` for what is no plain file.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    // A pipe would be waited for.
    let file = File::from(open_any(path, flags | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(not("a plain file", path));
    }
    Ok(file)
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
    let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, dir_flags, Mode::empty())?;
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
