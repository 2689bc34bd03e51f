//! The host's side of vsock: a socket on which `CONNECT port` reaches the guest.
//!
//! A guest that is paused accepts nothing and says nothing; the kernel's queue lets a client
//! connect all the same. The socket is never removed.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::agent::{self, MAX_LINE_BYTES, Reply};
use super::guest::Guest;
use super::installation::Installation;

/// The host's first port, as the guest sees it.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Binds `path` and serves what connects to it, from then on.
pub(super) fn bind(
    path: &str,
    guest: &Arc<Guest>,
    installation: &Arc<Installation>,
) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let (guest, installation) = (Arc::clone(guest), Arc::clone(installation));
    let ports = AtomicU32::new(FIRST_HOST_PORT);
    std::thread::spawn(move || {
        loop {
            drop(guest.when_it_hears());
            let Ok((connection, _)) = listener.accept() else { return };
            let port = ports.fetch_add(1, Ordering::Relaxed);
            let (guest, installation) = (Arc::clone(&guest), Arc::clone(&installation));
            std::thread::spawn(move || {
                // A connection that breaks is the client's affair.
                let _ = serve(connection, port, &guest, &installation);
                guest.state().connections.remove(&port);
            });
        }
    });
    Ok(())
}

fn serve(
    mut connection: UnixStream,
    host_port: u32,
    guest: &Guest,
    installation: &Installation,
) -> io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?);
    let asked = next_line(&mut lines)?.unwrap_or_default();
    let mut state = guest.when_it_hears();
    let port = asked.strip_prefix("CONNECT ").and_then(|port| port.trim().parse().ok());
    if port.is_none() || port != installation.settings().agent_port {
        return Ok(());
    }
    state.connections.insert(host_port, connection.try_clone()?);
    drop(state);
    connection.write_all(format!("OK {host_port}\n").as_bytes())?;
    while let Some(line) = next_line(&mut lines)? {
        let mut state = guest.when_it_hears();
        let reply = match line.len() > MAX_LINE_BYTES {
            true => Reply::Line("error line too long".to_owned()),
            false => agent::answer(&mut state, line.trim_end()),
        };
        match reply {
            Reply::Line(line) => connection.write_all(format!("{line}\n").as_bytes())?,
            Reply::Ends(words) => {
                connection.write_all(b"ok\n")?;
                guest.console.guest(words);
                // The guest is switched off, or reboots, which is the same here.
                super::exit(0);
            }
        }
    }
    Ok(())
}

/// The next line, or its first bytes and no more than shows that it is too long.
fn next_line(lines: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    lines.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    if line.len() > MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        lines.skip_until(b'\n')?;
    }
    Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()))
}
