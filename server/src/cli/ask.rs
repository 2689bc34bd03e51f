//! A line to a guest's agent and its answer, over a connection by the server.
//!
//! Others may have left the channel in the middle of a line, so the question is preceded by an `echo` of its
//! own, and what comes before that one's answer is dropped.

use std::time::Duration;

use super::connect::Guest;
use super::context::{Context, new_request_id};
use super::error::{Error, Result};

/// The longest answer, in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Sends `line` to the agent of a VM and returns the line that it answers, both without their ends.
///
/// # Errors
/// The server's; when the guest hangs up, or is silent for as long as a call may take.
pub(crate) async fn ask(context: &mut Context, name: &str, line: &str) -> Result<String> {
    if line.contains('\n') {
        return Err(Error::Usage("a question is one line".to_owned()));
    }
    let timeout = context.timeout;
    let mut lines = Lines {
        guest: Guest::connect(context, name, None, None).await?,
        timeout,
        heard: Vec::new(),
    };
    // It tells this conversation from those before it.
    let greeting = format!("echo {}", new_request_id());
    lines.guest.send(format!("\n{greeting}\n{line}\n").into_bytes()).await?;
    while !lines.next().await?.ends_with(&greeting) {}
    lines.next().await
}

/// What a guest says, line by line.
struct Lines {
    guest: Guest,
    timeout: Duration,
    heard: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned());
            }
            if self.heard.len() > MAX_LINE_BYTES {
                return Err(Error::Failed("the guest answers without end".to_owned()));
            }
            let heard = tokio::time::timeout(self.timeout, self.guest.hear()).await;
            let silent = |_| Error::TimedOut("the guest does not answer".to_owned());
            match heard.map_err(silent)?? {
                Some(bytes) => self.heard.extend(bytes),
                None => {
                    return Err(Error::Failed("the guest hung up without an answer".to_owned()));
                }
            }
        }
    }
}
