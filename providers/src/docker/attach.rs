//! A connection to a container: its program's input and output, as the engine passes them on.
//!
//! The engine's end is async and runs here; whoever is connected has one end of a pair of sockets. What
//! was written before the connection stood is in the console only.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use bollard::container::AttachContainerResults;
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::DockerBackend;
use super::machine::Machine;
use super::shared::{Answer, Shared};
use crate::error::{Result, VmRuntimeError};
use crate::model::EndpointKind;
use crate::provider::GuestStream;

/// Bytes that are passed on at once.
const CHUNK_BYTES: usize = 16 * 1024;

impl DockerBackend {
    /// Connects whoever has the VM to its program.
    pub(super) fn attach(&self, machine: &Arc<Machine>) -> Result<GuestStream> {
        let taken = machine.channel.take()?;
        let failed = |error| VmRuntimeError::backend("make a pair of sockets", error);
        let (theirs, ours) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let (shared, attached) = (Arc::clone(&self.shared), Arc::clone(machine));
        let engine = self.wait(async move { shared.attach(&attached).await });
        let engine = engine.map_err(|fault| fault.into_error("attach to a container"))?;
        let doomed = machine.doomed();
        self.task(async move {
            let Ok(ours) = UnixStream::from_std(ours) else { return };
            let (read, write) = ours.into_split();
            let AttachContainerResults { output, input } = engine;
            tokio::select! {
                () = pass_on(read, input) => {}
                () = bring_back(output, write) => {}
                () = doomed => {}
            }
        });
        // The engine does not pass the end of the input on.
        Ok(GuestStream::new(EndpointKind::Serial, false, theirs, taken))
    }
}

impl Shared {
    async fn attach(&self, machine: &Machine) -> Answer<AttachContainerResults> {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attach = self.client.attach_container(machine.container(), Some(options));
        self.ask_for(machine, self.config.command_timeout, attach).await
    }
}

/// What whoever is connected says, until it is gone.
async fn pass_on(mut from: OwnedReadHalf, mut to: impl AsyncWrite + Unpin) {
    let mut bytes = vec![0; CHUNK_BYTES];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        let written = to.write_all(&bytes[..count]).await;
        if written.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// What the program says, until it ends.
async fn bring_back(
    mut from: impl futures_util::Stream<
        Item = std::result::Result<bollard::container::LogOutput, bollard::errors::Error>,
    > + Unpin,
    mut to: OwnedWriteHalf,
) {
    while let Some(Ok(piece)) = from.next().await {
        if to.write_all(&piece.into_bytes()).await.is_err() {
            return;
        }
    }
}
