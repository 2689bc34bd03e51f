//! `hearth connect`: this side's input and output, joined with a guest's.
//!
//! On a terminal every key goes to the guest, but for the one that leaves. Elsewhere it is a pipe: the end of
//! the input is passed on where the guest can be told of it; where it cannot, silence ends it.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use clap::Args;
use hearth_proto::v1;
use hearth_proto::v1::connect_vm_request::{Message as Sent, Open};
use hearth_proto::v1::connect_vm_response::Message as Said;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::context::Context;
use super::error::{Error, Result};
use super::output::{note, write_out};
use super::text::{parse_duration, qualify};

/// Ctrl-], as telnet has it.
const ESCAPE: u8 = 0x1d;
/// Messages that wait for a slow guest; then the input is read no further.
const MAX_UNSENT: usize = 4;
/// Bytes of the input that make one message, at most.
const CHUNK_BYTES: usize = 16 * 1024;

/// Arguments of `hearth connect`.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// The VM.
    name: String,
    /// The uid that it must have, so that a later holder of the name is not reached.
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    /// Connect to this port of its vsock, not to its channel.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u32).range(1..))]
    port: Option<u32>,
    /// How long to wait for more when the input has ended and the guest cannot be told.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    linger: Duration,
}

impl Connect {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let mut guest = Guest::connect(context, &self.name, self.uid, self.port).await?;
        let raw = Raw::enter()?;
        if raw.is_some() {
            note(&format!("connected to {}; Ctrl-] leaves", self.name));
        }
        let mut input = Some(read_input(raw.is_some())?);
        let mut last = Instant::now();
        loop {
            let lingers = input.is_none() && !guest.half_closes;
            tokio::select! {
                said = guest.said.message() => match said? {
                    Some(v1::ConnectVmResponse { message: Some(Said::Data(data)) }) => {
                        last = Instant::now();
                        write_out(&data)?;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
                typed = next(&mut input), if input.is_some() => match typed {
                    Some(Typed::Bytes(bytes)) => guest.send(bytes).await?,
                    Some(Typed::Leave) => return Ok(()),
                    None => {
                        input = None;
                        last = Instant::now();
                        guest.sends_no_more();
                    }
                },
                () = tokio::time::sleep_until(last + self.linger), if lingers => return Ok(()),
            }
        }
    }
}

/// A connection to a guest.
pub(crate) struct Guest {
    sent: Option<mpsc::Sender<v1::ConnectVmRequest>>,
    said: Streaming<v1::ConnectVmResponse>,
    half_closes: bool,
}

impl Guest {
    /// Connects to a VM of the caller's.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn connect(
        context: &mut Context,
        name: &str,
        uid: Option<String>,
        port: Option<u32>,
    ) -> Result<Self> {
        let (sent, unsent) = mpsc::channel(MAX_UNSENT);
        let (name, uid) = (qualify("vms", name), uid.unwrap_or_default());
        let open = Open { name, uid, port: port.unwrap_or_default() };
        let open = v1::ConnectVmRequest { message: Some(Sent::Open(open)) };
        // There is room for the first.
        let _ = sent.try_send(open);
        let stream = ReceiverStream::new(unsent);
        let mut said = context.client.vms.connect_vm(stream).await?.into_inner();
        match said.message().await? {
            Some(v1::ConnectVmResponse { message: Some(Said::Opened(opened)) }) => {
                Ok(Self { sent: Some(sent), said, half_closes: opened.half_closes })
            }
            _ => Err(Error::Failed("the server did not say that it is connected".to_owned())),
        }
    }

    /// Sends bytes, as the guest takes them. After its end nothing is sent.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        if let Some(sent) = &self.sent {
            let message = v1::ConnectVmRequest { message: Some(Sent::Data(bytes.into())) };
            if sent.send(message).await.is_err() {
                // Why is what is said next.
                self.sent = None;
            }
        }
        Ok(())
    }

    /// Ends this half.
    pub(crate) fn sends_no_more(&mut self) {
        self.sent = None;
    }

    /// What is said next; `None` after all that will be.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self.said.message().await? {
                Some(v1::ConnectVmResponse { message: Some(Said::Data(data)) }) => {
                    return Ok(Some(data.into()));
                }
                Some(v1::ConnectVmResponse { message: Some(Said::GuestClosed(_)) }) | None => {
                    return Ok(None);
                }
                Some(_) => {}
            }
        }
    }
}

enum Typed {
    Bytes(Vec<u8>),
    Leave,
}

async fn next(input: &mut Option<mpsc::Receiver<Typed>>) -> Option<Typed> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads standard input on a thread of its own, which ends with the input or with the process: a read of a
/// terminal cannot be called off.
fn read_input(is_terminal: bool) -> Result<mpsc::Receiver<Typed>> {
    let (typed, input) = mpsc::channel(MAX_UNSENT);
    let read = move || {
        let mut bytes = vec![0; CHUNK_BYTES];
        loop {
            let Ok(count @ 1..) = std::io::stdin().lock().read(&mut bytes) else { return };
            let leaves = bytes[..count].iter().position(|byte| is_terminal && *byte == ESCAPE);
            let kept = bytes[..leaves.unwrap_or(count)].to_vec();
            if !kept.is_empty() && typed.blocking_send(Typed::Bytes(kept)).is_err() {
                return;
            }
            if leaves.is_some() {
                let _ = typed.blocking_send(Typed::Leave);
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("input".to_owned()).spawn(read);
    started.map_err(|error| Error::Failed(format!("cannot read the input: {error}")))?;
    Ok(input)
}

/// A terminal that passes every key on; dropped, it is as it was.
struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` where the input is no terminal.
    fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |error| Error::Failed(format!("the terminal: {error}"));
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
