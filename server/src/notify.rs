//! Tells the service manager how far this process is, as `sd_notify(3)` of systemd has it: one datagram to
//! the socket in `NOTIFY_SOCKET`. Without that variable nobody asks, and nobody is told.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// It serves: what waits for it may begin.
pub(crate) const READY: &str = "READY=1";
/// It is ending.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Says `state`. That nobody hears it is logged, and changes nothing. Does not block for longer than the
/// manager's socket is full.
pub(crate) fn tell(state: &str) {
    let Some(socket) = std::env::var_os(VARIABLE) else { return };
    let Some(socket) = socket.to_str() else {
        return tracing::warn!("{VARIABLE} is no path; the service manager is not told");
    };
    if let Err(error) = send(socket, state) {
        tracing::warn!(%error, socket, state, "the service manager is not told");
    }
}

/// A name that begins with `@` is in the abstract space, which is Linux's own.
fn send(socket: &str, state: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_it_by_path_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let mut heard = [0; 64];
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), READY).unwrap();
        let count = by_path.recv(&mut heard).unwrap();
        assert_eq!(&heard[..count], READY.as_bytes());
        #[cfg(target_os = "linux")]
        {
            let name = format!("hearth-test-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let by_name = UnixDatagram::bind_addr(&address).unwrap();
            send(&format!("@{name}"), STOPPING).unwrap();
            let count = by_name.recv(&mut heard).unwrap();
            assert_eq!(&heard[..count], STOPPING.as_bytes());
        }
        assert!(send("/no/such/socket", READY).is_err());
    }
}
