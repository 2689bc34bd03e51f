//! `ExportArtifact`: an artifact's data, piece by piece, as fast as its reader takes it.

use std::io::{self, Write};
use std::time::Duration;

use hearth_proto::v1;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::Services;
use crate::call::Call;
use crate::check::Fields;
use crate::status::Refusal;

/// Bytes of one message.
const PIECE_BYTES: usize = 256 * 1024;
/// Messages that wait for a slow reader.
const MAX_UNREAD: usize = 4;
/// How long a reader may take for one message; then it is taken for gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the data of every provider is.
const MEDIA_TYPE: &str = "application/x-tar";

type Message = Result<v1::ExportArtifactResponse, Status>;

impl Services {
    pub(super) async fn export(
        self,
        call: Call,
        request: v1::ExportArtifactRequest,
    ) -> Result<BoxStream<v1::ExportArtifactResponse>, Refusal> {
        call.is_about(&request.name, "", "");
        let mut fields = Fields::default();
        let id = fields.artifact("name", &request.name);
        let skip = u64::try_from(request.offset).unwrap_or_else(|_| {
            fields.wrong("offset", "it is negative");
            0
        });
        let id = fields.required(id)?;
        // What is not there is told before a stream is begun.
        self.manager.artifact(&id, call.caller.scope())?;
        let (messages, unread) = mpsc::channel(MAX_UNREAD);
        let into = Pieces::new(messages.clone(), skip);
        let tasks = self.tasks.clone();
        tasks.spawn_part(tracing::Span::current(), async move {
            let exported = self.manager.export_artifact(&id, call.caller.scope(), into);
            let stopping = self.ending.clone();
            let ended = tokio::select! {
                exported = exported => exported,
                () = stopping.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(artifact = %id, %error, "an export has ended early");
                let status = Refusal::from(error).into_status(call.id);
                let _ = tokio::time::timeout(PATIENCE, messages.send(Err(status))).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(unread)))
    }
}

/// Cuts what is written to it into messages; for a thread that may block.
struct Pieces {
    messages: mpsc::Sender<Message>,
    runtime: Handle,
    /// What has been written and not been sent.
    held: Vec<u8>,
    /// Bytes that the reader has already.
    skip: u64,
    /// Where `held` begins.
    offset: u64,
    is_first: bool,
}

impl Pieces {
    fn new(messages: mpsc::Sender<Message>, skip: u64) -> Self {
        let (runtime, held) = (Handle::current(), Vec::new());
        Self { messages, runtime, held, skip, offset: 0, is_first: true }
    }

    fn send(&mut self) -> io::Result<()> {
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        let data = std::mem::take(&mut self.held);
        self.offset += data.len() as u64;
        let is_first = std::mem::replace(&mut self.is_first, false);
        let media_type = if is_first { MEDIA_TYPE } else { "" }.to_owned();
        let message =
            v1::ExportArtifactResponse { data: data.into(), offset, total_bytes: 0, media_type };
        let messages = &self.messages;
        let send = async { tokio::time::timeout(PATIENCE, messages.send(Ok(message))).await };
        match self.runtime.block_on(send) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.offset < self.skip {
            let skipped =
                bytes.len().min(usize::try_from(self.skip - self.offset).unwrap_or(usize::MAX));
            self.offset += skipped as u64;
            return match self.messages.is_closed() {
                true => Err(io::ErrorKind::BrokenPipe.into()),
                false => Ok(skipped),
            };
        }
        let taken = bytes.len().min(PIECE_BYTES - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    /// Sends what is held; a reader that has all gets one message without data.
    fn flush(&mut self) -> io::Result<()> {
        match self.held.is_empty() && !self.is_first {
            true => Ok(()),
            false => self.send(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(skip: u64, bytes: usize) -> Vec<v1::ExportArtifactResponse> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (messages, mut unread) = mpsc::channel(16);
        let guard = runtime.enter();
        let mut into = Pieces::new(messages, skip);
        drop(guard);
        into.write_all(&vec![7; bytes]).unwrap();
        into.flush().unwrap();
        drop(into);
        let mut got = Vec::new();
        while let Ok(message) = unread.try_recv() {
            got.push(message.unwrap());
        }
        got
    }

    #[test]
    fn data_comes_in_pieces_with_their_positions() {
        let got = exported(0, 2 * PIECE_BYTES + 5);
        let at: Vec<_> = got.iter().map(|it| (it.offset, it.data.len())).collect();
        let piece = PIECE_BYTES as i64;
        assert_eq!(at, [(0, PIECE_BYTES), (piece, PIECE_BYTES), (2 * piece, 5)]);
        assert_eq!((got[0].media_type.as_str(), got[1].media_type.as_str()), (MEDIA_TYPE, ""));
    }

    #[test]
    fn what_the_reader_has_is_left_out() {
        let got = exported(10, 12);
        assert_eq!((got.len(), got[0].offset, got[0].data.len()), (1, 10, 2));
        let got = exported(12, 12);
        assert_eq!((got.len(), got[0].offset, got[0].data.len()), (1, 12, 0));
    }

    #[test]
    fn a_reader_that_is_gone_ends_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (messages, unread) = mpsc::channel(1);
        drop(unread);
        let _guard = runtime.enter();
        let mut into = Pieces::new(messages, 0);
        drop(_guard);
        let refused = into.write_all(&vec![7; PIECE_BYTES]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    }
}
