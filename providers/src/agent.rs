//! Talking to an agent in a guest: one line asks, one line answers.
//!
//! The channel is a stream that other holders may have left in the middle of a line, so every
//! conversation begins with an `echo` of its own, and what comes before that answer is dropped.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::provider::GuestChannel;

/// The longest line that either side sends, in bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// A conversation with a guest's agent.
pub struct Agent {
    channel: Box<dyn GuestChannel>,
    received: Vec<u8>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("received", &self.received.len()).finish_non_exhaustive()
    }
}

/// What a guest says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Grows by itself from the guest's boot on and never resets: it is memory.
    pub counter: u64,
    /// Names the guest's boot.
    pub boot_id: String,
    /// What the guest was last told it is called.
    pub name: Option<String>,
}

impl Agent {
    /// Begins a conversation; `nonce` tells its answers from those to others before it.
    ///
    /// # Errors
    /// `Timeout` when no agent answers; `Unavailable` when the channel breaks.
    pub fn greet(channel: Box<dyn GuestChannel>, nonce: Uid, timeout: Duration) -> Result<Self> {
        let mut agent = Self { channel, received: Vec::new() };
        let deadline = Deadline::after(timeout);
        let greeting = format!("echo {nonce}");
        // The first newline ends whatever line a former holder left unfinished.
        agent.send(&format!("\n{greeting}"), deadline, timeout)?;
        loop {
            if agent.receive(deadline, timeout)?.ends_with(&greeting) {
                return Ok(agent);
            }
        }
    }

    /// Asks one line and answers the line that comes back.
    ///
    /// # Errors
    /// `Timeout`; `Unavailable`; `Backend` when the guest answers `error ...`.
    pub fn ask(&mut self, request: &str, timeout: Duration) -> Result<String> {
        let deadline = Deadline::after(timeout);
        self.send(request, deadline, timeout)?;
        let answer = self.receive(deadline, timeout)?;
        match answer.strip_prefix("error ") {
            Some(reason) => Err(VmRuntimeError::Backend {
                what: format!("the guest refused {request:?}: {reason}"),
                source: None,
            }),
            None => Ok(answer),
        }
    }

    /// Asks the guest how it is.
    ///
    /// # Errors
    /// As [`Self::ask`]; `Backend` when the answer makes no sense.
    pub fn ping(&mut self, timeout: Duration) -> Result<Pong> {
        let answer = self.ask("ping", timeout)?;
        parse_pong(&answer).ok_or_else(|| VmRuntimeError::Backend {
            what: format!("the guest answered {answer:?} to a ping"),
            source: None,
        })
    }

    fn send(&mut self, line: &str, deadline: Deadline, timeout: Duration) -> Result<()> {
        self.bound(deadline, timeout)?;
        let sent = self.channel.write_all(format!("{line}\n").as_bytes());
        sent.and_then(|()| self.channel.flush()).map_err(|error| channel_error(error, timeout))
    }

    fn receive(&mut self, deadline: Deadline, timeout: Duration) -> Result<String> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.received.len() > MAX_LINE_BYTES {
                self.received.clear();
            }
            self.bound(deadline, timeout)?;
            let mut bytes = [0; 512];
            match self.channel.read(&mut bytes) {
                Ok(0) => {
                    return Err(channel_error(io::ErrorKind::UnexpectedEof.into(), timeout));
                }
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(channel_error(error, timeout)),
            }
        }
    }

    fn bound(&mut self, deadline: Deadline, timeout: Duration) -> Result<()> {
        let left = deadline.left().ok_or_else(|| silent(timeout))?;
        self.channel.set_timeout(left).map_err(|error| channel_error(error, timeout))
    }
}

fn parse_pong(answer: &str) -> Option<Pong> {
    let fields = answer.strip_prefix("pong ")?;
    let field = |name: &str| {
        fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    Some(Pong {
        counter: field("counter")?.parse().ok()?,
        boot_id: field("boot_id")?.to_owned(),
        name: field("name").filter(|name| *name != "-").map(str::to_owned),
    })
}

fn silent(after: Duration) -> VmRuntimeError {
    VmRuntimeError::Timeout { what: "the guest's agent".to_owned(), after }
}

fn channel_error(error: io::Error, timeout: Duration) -> VmRuntimeError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(timeout),
        _ => VmRuntimeError::unavailable("the guest's channel broke", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_is_read_by_its_fields() {
        let pong = parse_pong("pong counter=7 boot_id=b name=- uptime_ms=3").unwrap();
        assert_eq!(pong, Pong { counter: 7, boot_id: "b".to_owned(), name: None });
        assert_eq!(parse_pong("pong counter=x boot_id=b"), None);
    }
}
