//! Where things are kept when nothing is said about it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hearth_providers::Uid;

/// Where names are kept where it can be written to.
const RUNTIME: &str = "/run/hearth";
/// Where a package puts the guest.
const PACKAGED_GUEST: &str = "/usr/share/hearth/guest";

/// The state directory of whoever runs this: `/var/lib/hearth` for root, else
/// `$XDG_STATE_HOME/hearth` or `~/.local/state/hearth`. `None` without a home.
pub fn default_state() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/hearth"));
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let state = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("hearth"))
}

/// The runtime directory for `state_uuid` whose state is in `state`: made in `/run/hearth` if
/// that can be written to, else the state directory itself.
pub fn default_runtime(state: &Path, state_uuid: Uid) -> PathBuf {
    let wanted = Path::new(RUNTIME).join(state_uuid.to_string());
    match make_private(&wanted) {
        Ok(()) => wanted,
        Err(_) => state.to_owned(),
    }
}

/// Takes a runtime directory away that [`default_runtime`] made, if nothing is in it any more.
pub(crate) fn tidy_runtime(runtime: &Path) {
    if runtime.starts_with(RUNTIME) {
        // What is not empty stays, and so does what is above it.
        for dir in [&runtime.join("names"), runtime, Path::new(RUNTIME)] {
            if std::fs::remove_dir(dir).is_err() {
                return;
            }
        }
    }
}

/// The files of a guest: a kernel, its initial RAM disk and its root disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// `vmlinuz`
    pub kernel: PathBuf,
    /// `initrd.cpio.gz`
    pub initrd: PathBuf,
    /// `rootfs.ext4`
    pub rootfs: PathBuf,
}

/// The guest in `given`; without that, in the first of `target/guest` below the working
/// directory, `guest` in the build directory that this program runs from, and
/// `/usr/share/hearth/guest`.
///
/// # Errors
/// Where was looked, and what makes one.
pub fn find_guest(given: Option<&Path>) -> Result<Guest, String> {
    let places: Vec<PathBuf> = match given {
        Some(given) => vec![given.to_owned()],
        None => {
            let built = std::env::current_exe().ok().and_then(|program| {
                // target/<profile>/hearth
                Some(program.parent()?.parent()?.join("guest"))
            });
            let here = std::env::current_dir().ok().map(|here| here.join("target/guest"));
            here.into_iter().chain(built).chain([PathBuf::from(PACKAGED_GUEST)]).collect()
        }
    };
    let found = places.iter().find_map(|dir| {
        let file = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
        Some(Guest {
            kernel: file("vmlinuz")?,
            initrd: file("initrd.cpio.gz")?,
            rootfs: file("rootfs.ext4")?,
        })
    });
    found.ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|it| it.display().to_string()).collect();
        format!(
            "no guest (vmlinuz, initrd.cpio.gz, rootfs.ext4) in {}: scripts/guest builds one, \
             --guest DIR says where it is, and --provider memory needs none",
            places.join(", ")
        )
    })
}

/// Makes `dir`, and lets nobody else in.
///
/// # Errors
/// Those of the file system.
pub fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_whole_or_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinuz"), "").unwrap();
        let error = find_guest(Some(dir.path())).unwrap_err();
        assert!(error.contains("scripts/guest"), "{error}");
        std::fs::write(dir.path().join("initrd.cpio.gz"), "").unwrap();
        std::fs::write(dir.path().join("rootfs.ext4"), "").unwrap();
        assert_eq!(find_guest(Some(dir.path())).unwrap().kernel, dir.path().join("vmlinuz"));
    }

    #[test]
    fn a_private_directory_is_private_even_if_it_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
