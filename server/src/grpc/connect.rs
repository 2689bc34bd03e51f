//! `ConnectVm`: bytes both ways between a caller and a guest, for as long as both and the lease last.
//!
//! Two halves share a socket. What the caller sends is taken from its stream only when the guest has taken
//! what came before; what the guest says is read only when the caller takes it. So the slower one slows the
//! other, and nothing is kept here but one message each way.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream;
use hearth_pool::attached::Attachment;
use hearth_pool::error::Error;
use hearth_proto::v1;
use hearth_proto::v1::connect_vm_request::Message as Sent;
use hearth_proto::v1::connect_vm_response::{GuestClosed, Message as Said, Opened};
use hearth_providers::model::VmStatus;
use hearth_providers::transition::Verb;
use hearth_providers::{VmId, VmRuntimeError};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use super::{Services, place};
use crate::call::{Call, CallId};
use crate::check::Fields;
use crate::convert;
use crate::status::Refusal;

/// Bytes of the guest's that make one message, at most.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a caller may take to say what to connect to.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

impl Services {
    pub(super) async fn connect(
        self,
        call: Call,
        mut sent: Streaming<v1::ConnectVmRequest>,
    ) -> Result<BoxStream<v1::ConnectVmResponse>, Refusal> {
        let place = place(&self.guests, "connections to guests")?;
        let open = opening(&mut sent).await?;
        call.is_about(&open.name, &open.uid, "");
        let mut fields = Fields::default();
        let vm_id = fields.vm("open.name", &open.name);
        let uid = fields.uid("open.uid", &open.uid);
        let vm_id = fields.required(vm_id)?;
        let port = (open.port != 0).then_some(open.port);
        let connected = self.manager.connect_vm(&vm_id, uid, call.caller.scope(), port).await;
        let (guest, attachment) = match connected {
            Ok(connected) => connected,
            Err(Error::NotFound { .. }) if self.manager.has_ended(&vm_id, call.caller.scope()) => {
                return Err(Refusal::LeaseNotHeld { vm: vm_id.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        let (kind, half_closes) = (guest.kind, guest.half_closes);
        let (socket, held) = guest.into_parts();
        let broken = |error: std::io::Error| Error::Internal(error.to_string());
        socket.set_nonblocking(true).map_err(broken)?;
        let (read, write) = UnixStream::from_std(socket).map_err(broken)?.into_split();
        let idle = self.streams.guest_idle_timeout;
        let active = Mutex::new(Instant::now());
        let shared = Arc::new(Shared { active, idle, attachment, _held: held, _place: place });
        let over = CancellationToken::new();
        let (ended, has_ended) = oneshot::channel();
        let caller = FromCaller { write, half_closes, shared: Arc::clone(&shared) };
        let gone = over.clone();
        self.tasks.clone().spawn(async move {
            tokio::select! {
                end = caller.pass_on(sent) => drop(ended.send(end)),
                () = gone.cancelled() => {}
            }
        });
        let opened = Opened { kind: convert::vm::endpoint_kind(kind).into(), half_closes };
        let guest = FromGuest {
            services: self,
            vm_id,
            call: call.id,
            read,
            half_closes,
            caller: Some(has_ended),
            guest_ended: false,
            first: Some(Said::Opened(opened)),
            shared,
            _over: over.drop_guard(),
        };
        Ok(guest.messages())
    }
}

/// The first message, which has to say what to connect to.
async fn opening(
    sent: &mut Streaming<v1::ConnectVmRequest>,
) -> Result<v1::connect_vm_request::Open, Refusal> {
    let wrong = |why: &str| Err(Error::invalid("open", why).into());
    match tokio::time::timeout(OPEN_TIMEOUT, sent.message()).await {
        Ok(Ok(Some(v1::ConnectVmRequest { message: Some(Sent::Open(open)) }))) => Ok(open),
        Ok(Ok(_)) => wrong("the first message must open"),
        Ok(Err(status)) => Err(Refusal::Transport(status)),
        Err(_) => wrong("nothing was opened in time"),
    }
}

/// What both halves have. Dropped after the socket: whoever connects next finds this one closed.
struct Shared {
    /// When either side last said something.
    active: Mutex<Instant>,
    idle: Duration,
    attachment: Attachment,
    _held: Box<dyn Send + Sync>,
    _place: OwnedSemaphorePermit,
}

impl Shared {
    fn is_active(&self) {
        *self.active.lock() = Instant::now();
    }

    async fn is_idle(&self) {
        loop {
            let until = *self.active.lock() + self.idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// How the caller's half ended.
enum CallersEnd {
    /// It will send no more.
    All,
    /// The guest takes no more.
    Closed,
    /// What it sent cannot be taken.
    Refused(Refusal),
}

/// The way from the caller to the guest.
struct FromCaller {
    write: OwnedWriteHalf,
    half_closes: bool,
    shared: Arc<Shared>,
}

impl FromCaller {
    async fn pass_on(mut self, mut sent: Streaming<v1::ConnectVmRequest>) -> CallersEnd {
        let end = loop {
            match sent.message().await {
                Ok(Some(v1::ConnectVmRequest { message: Some(Sent::Data(data)) })) => {
                    self.shared.is_active();
                    if self.write.write_all(&data).await.is_err() {
                        break CallersEnd::Closed;
                    }
                    self.shared.is_active();
                }
                Ok(Some(_)) => {
                    let why = "only the first message opens; all others carry data";
                    break CallersEnd::Refused(Error::invalid("message", why).into());
                }
                Ok(None) => break CallersEnd::All,
                Err(status) => break CallersEnd::Refused(Refusal::Transport(status)),
            }
        };
        match self.half_closes {
            true => drop(self.write.shutdown().await),
            // The end of this half would be the end of both.
            false => self.write.forget(),
        }
        end
    }
}

/// The way from the guest to the caller.
struct FromGuest {
    services: Services,
    vm_id: VmId,
    call: CallId,
    read: OwnedReadHalf,
    half_closes: bool,
    /// Says how the caller's half ended; unset: it has.
    caller: Option<oneshot::Receiver<CallersEnd>>,
    guest_ended: bool,
    first: Option<Said>,
    shared: Arc<Shared>,
    _over: DropGuard,
}

impl FromGuest {
    fn messages(self) -> BoxStream<v1::ConnectVmResponse> {
        let messages = stream::unfold(Some(self), |guest| async move {
            let mut guest = guest?;
            match guest.next().await {
                Ok(Some(message)) => {
                    let message = v1::ConnectVmResponse { message: Some(message) };
                    Some((Ok(message), Some(guest)))
                }
                Ok(None) => None,
                Err(refusal) => {
                    let status: Status = refusal.into_status(guest.call);
                    Some((Err(status), None))
                }
            }
        });
        Box::pin(messages)
    }

    /// What is said next. `None`: both halves have ended.
    async fn next(&mut self) -> Result<Option<Said>, Refusal> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if self.guest_ended && (self.caller.is_none() || !self.half_closes) {
                return Ok(None);
            }
            let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
            let (shared, services) = (Arc::clone(&self.shared), &self.services);
            tokio::select! {
                biased;
                () = shared.attachment.ended().cancelled() => {
                    return Err(Refusal::LeaseNotHeld { vm: self.vm_id.to_string() });
                }
                () = services.ending.cancelled() => return Err(Error::Draining.into()),
                end = ended(&mut self.caller), if self.caller.is_some() => {
                    self.caller = None;
                    match end {
                        CallersEnd::All => {}
                        CallersEnd::Closed => self.guest_ended = true,
                        CallersEnd::Refused(refusal) => return Err(refusal),
                    }
                }
                read = self.read.read_buf(&mut bytes), if !self.guest_ended => match read {
                    Ok(1..) => {
                        shared.is_active();
                        return Ok(Some(Said::Data(bytes.freeze())));
                    }
                    // A VMM that ends resets what it has not read.
                    Ok(0) | Err(_) => {
                        self.guest_ended = true;
                        self.check_alive()?;
                        return Ok(Some(Said::GuestClosed(GuestClosed {})));
                    }
                },
                () = shared.is_idle() => return Err(Refusal::ConnectionIdle { after: shared.idle }),
            }
        }
    }

    /// The guest has hung up. One that ended by itself, or whose lease ended, did not do that.
    fn check_alive(&self) -> Result<(), Refusal> {
        let uid = self.shared.attachment.uid();
        let Some(lease) = self.services.manager.lease_by_uid(uid, None) else {
            return Err(Refusal::LeaseNotHeld { vm: self.vm_id.to_string() });
        };
        let view = self.services.manager.leased_info(&lease).view;
        match view.status {
            VmStatus::Failed | VmStatus::Destroyed => {
                Err(Refusal::from(VmRuntimeError::InvalidTransition {
                    vm_id: view.vm_id,
                    status: view.status,
                    verb: Verb::Start,
                }))
            }
            _ => Ok(()),
        }
    }
}

/// How the caller's half ended, when it has.
async fn ended(caller: &mut Option<oneshot::Receiver<CallersEnd>>) -> CallersEnd {
    match caller {
        // Its task ends without a word only when this half is over.
        Some(has_ended) => has_ended.await.unwrap_or(CallersEnd::All),
        None => std::future::pending().await,
    }
}
