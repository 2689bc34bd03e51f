//! The simplest client of the API: it writes bytes and reads answers, and hides nothing.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::outcome::{Answer, Normaliser};
use crate::row::Request;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the API.
pub(crate) struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer; `None` when the connection ended before one.
    pub(crate) fn receive(&mut self, normaliser: &Normaliser) -> io::Result<Option<Answer>> {
        let head_end = loop {
            let end = self.received.windows(4).position(|it| it == b"\r\n\r\n");
            match end {
                Some(end) => break end,
                None if !self.read_more()? => return Ok(None),
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&self.received[..head_end]).into_owned();
        self.received.drain(..head_end + 4);
        let mut lines = head.split("\r\n").map(str::to_owned);
        let status = lines.next().unwrap_or_default();
        let (lengths, headers): (Vec<_>, Vec<_>) =
            lines.partition(|line| line.starts_with("Content-Length: "));
        let length = lengths.first().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while self.received.len() < length {
            if !self.read_more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body: Vec<u8> = self.received.drain(..length).collect();
        let body = normaliser.text(&String::from_utf8_lossy(&body));
        Ok(Some(Answer { status, headers, body }))
    }

    /// Whether the server has closed the connection, now that all was read; waits for that.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.read_more(), Ok(false))
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let count = match read_on(&mut self.stream, &mut bytes) {
            // A process that dies may leave bytes that it never read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            count => count?,
        };
        self.received.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }
}

/// Reads, also when a signal comes in between.
pub(crate) fn read_on(stream: &mut UnixStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A request's bytes, with `DIR` replaced in its body.
pub(crate) fn bytes_of(request: &Request, dir: &Path) -> Vec<u8> {
    let Request { method, path, body } = request;
    let head = format!("{method} {path} HTTP/1.1\r\n");
    match body {
        None => format!("{head}\r\n").into_bytes(),
        Some(body) => {
            let body = body.replace("DIR", &dir.display().to_string());
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
    }
}
