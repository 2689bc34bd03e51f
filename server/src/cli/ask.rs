//! A line to a guest's agent and its answer, over the socket on this machine.
//!
//! The server is not involved: it only told where the socket is. So this works on the node alone, and for
//! whoever may open the socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::error::{Error, Result};

/// The longest answer, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Sends `line` to the agent behind the Unix socket `address` and returns the line that it answers, both
/// without their ends. Blocks.
///
/// # Errors
/// When the socket cannot be opened, the guest hangs up, or is silent for `timeout`.
pub(crate) fn ask(address: &str, line: &str, timeout: Duration) -> Result<String> {
    if line.contains('\n') {
        return Err(Error::Usage("a question is one line".to_owned()));
    }
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::TimedOut(format!("{address}: the guest does not answer"))
        }
        ErrorKind::NotFound => Error::Failed(format!(
            "there is no socket {address} on this machine; a guest can be asked on its node only"
        )),
        _ => Error::Failed(format!("{address}: {error}")),
    };
    let mut socket = connect(Path::new(address)).map_err(failed)?;
    socket.set_write_timeout(Some(timeout)).map_err(failed)?;
    socket.set_read_timeout(Some(timeout)).map_err(failed)?;
    socket.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    match BufReader::new(socket.take(MAX_LINE_BYTES)).read_line(&mut answer).map_err(failed)? {
        0 => Err(Error::Failed("the guest hung up without an answer".to_owned())),
        _ => Ok(answer.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

/// Connects by way of the open directory: a socket's address holds 108 bytes, and paths are longer.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::NotFound.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(directory)?;
    let short = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An agent that answers one line, then ends.
    fn agent(path: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            std::io::BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            line
        })
    }

    #[test]
    fn a_line_goes_out_and_one_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let agent = agent(&path, "pong counter=7\n");
        let answer = ask(path.to_str().unwrap(), "ping", Duration::from_secs(10)).unwrap();
        assert_eq!(answer, "pong counter=7");
        assert_eq!(agent.join().unwrap(), "ping\n");
    }

    #[test]
    fn a_guest_that_hangs_up_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let agent = agent(&path, "");
        let error = ask(path.to_str().unwrap(), "ping", Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error, Error::Failed(text) if text.contains("hung up")));
        agent.join().unwrap();
    }

    #[test]
    fn a_socket_elsewhere_is_told() {
        let error = ask("/no/such/agent.sock", "ping", Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error, Error::Failed(text) if text.contains("on its node only")));
    }
}
