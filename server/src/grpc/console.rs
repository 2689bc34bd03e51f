//! `ReadConsole`: what a VM wrote, and on request what it goes on to write.

use std::time::Duration;

use hearth_pool::error::{Error, Result};
use hearth_pool::ids::Tenant;
use hearth_proto::v1;
use hearth_providers::model::VmStatus;
use hearth_providers::provider::ConsoleChunk;
use hearth_providers::{Uid, VmId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::Services;
use crate::call::{Call, CallId};
use crate::check::Fields;
use crate::status::Refusal;

/// Bytes of one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// Messages that wait for a slow reader; then the console is read no further.
const MAX_UNREAD: usize = 4;
/// How often a console that is followed is looked at.
const POLL: Duration = Duration::from_millis(100);

impl Services {
    pub(super) async fn console(
        self,
        call: Call,
        request: v1::ReadConsoleRequest,
    ) -> Result<BoxStream<v1::ReadConsoleResponse>, Refusal> {
        call.is_about(&request.name, &request.uid, "");
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        let tail_bytes = u64::try_from(request.tail_bytes).unwrap_or_else(|_| {
            fields.wrong("tail_bytes", "it is negative");
            0
        });
        let vm_id = fields.required(vm_id)?;
        let tenant = call.caller.scope().cloned();
        let place = super::place(&self.consoles, "consoles")?;
        // From here on it is this VM's console, whatever becomes of its name.
        let uid = self.manager.lease_of(&vm_id, uid, tenant.as_ref())?.uid;
        let mut reader = Reader { services: self, vm_id, uid, tenant, offset: 0 };
        let first = reader.begin(tail_bytes).await?;
        let (messages, unread) = mpsc::channel(MAX_UNREAD);
        let tasks = reader.services.tasks.clone();
        tasks.spawn_part(tracing::Span::current(), async move {
            let _place = place;
            let stopping = reader.services.ending.clone();
            tokio::select! {
                () = reader.read(first, request.follow, &messages, call.id) => {}
                () = stopping.cancelled() => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(unread)))
    }
}

struct Reader {
    services: Services,
    vm_id: VmId,
    uid: Uid,
    tenant: Option<Tenant>,
    offset: u64,
}

type Messages = mpsc::Sender<Result<v1::ReadConsoleResponse, Status>>;

impl Reader {
    async fn next(&mut self) -> Result<ConsoleChunk> {
        let manager = &self.services.manager;
        let tenant = self.tenant.as_ref();
        // A VM that was renamed meanwhile is followed.
        let lease = manager.lease_by_uid(self.uid, tenant);
        let vm_id = lease.ok_or_else(|| Error::no_vm(&self.vm_id))?.held().vm_id;
        let read = manager.read_console(&vm_id, Some(self.uid), tenant, self.offset, CHUNK_BYTES);
        let chunk = read.await?;
        self.offset = chunk.next_offset;
        Ok(chunk)
    }

    /// Goes to where the last `tail_bytes` begin (0: all that is kept), and reads there.
    async fn begin(&mut self, tail_bytes: u64) -> Result<ConsoleChunk> {
        let mut chunk = self.next().await?;
        if tail_bytes == 0 {
            return Ok(chunk);
        }
        let mut end = chunk.next_offset;
        while !chunk.bytes.is_empty() {
            chunk = self.next().await?;
            end = chunk.next_offset;
        }
        self.offset = end.saturating_sub(tail_bytes);
        self.next().await
    }

    async fn read(&mut self, first: ConsoleChunk, follow: bool, messages: &Messages, call: CallId) {
        let mut chunk = first;
        loop {
            if chunk.bytes.is_empty() {
                if !follow || self.has_ended() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = messages.closed() => return,
                }
            } else {
                let offset = i64::try_from(chunk.offset).unwrap_or(i64::MAX);
                let data = chunk.bytes.into();
                let message = v1::ReadConsoleResponse { data, offset };
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            chunk = match self.next().await {
                Ok(chunk) => chunk,
                // It has ended, and all of it that could be read was.
                Err(_) if follow && self.has_ended() => return,
                Err(error) => {
                    let status = Refusal::from(error).into_status(call);
                    drop(messages.send(Err(status)).await);
                    return;
                }
            };
        }
    }

    fn has_ended(&self) -> bool {
        let lease = self.services.manager.lease_by_uid(self.uid, self.tenant.as_ref());
        lease.is_none_or(|lease| {
            let status = self.services.manager.leased_info(&lease).view.status;
            matches!(status, VmStatus::Failed | VmStatus::Destroyed)
        })
    }
}
