//! The Unix socket: this user's and root's, from the first moment.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use tokio::net::UnixListener;

/// Listens on `path`, in place of a server that has left its socket there.
///
/// # Errors
/// `AddrInUse` where one listens or something else is; those of the file system.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let taken = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return taken("something is there that is no socket");
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            _ => return taken("another server listens there"),
        },
        Err(_) => {}
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // It is made where nobody else can reach it, and moved when it is closed to others.
    let private = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = private.join("s");
    let bound = std::os::unix::net::UnixListener::bind(&made).and_then(|listener| {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, path)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    if bound.is_err() {
        // It may not be there.
        drop(std::fs::remove_file(&made));
    }
    std::fs::remove_dir(&private)?;
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_takes_the_place_of_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.sock");
        let first = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = bind(&path).unwrap();
        let connected = tokio::net::UnixStream::connect(&path).await.unwrap();
        let (_, from) = second.accept().await.unwrap();
        drop((connected, from));
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(bind(&file).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        let left: Vec<_> =
            dir.path().read_dir().unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
