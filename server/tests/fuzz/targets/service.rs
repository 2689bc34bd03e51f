//! Every request of every method into the real services, by whoever may send it.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use hearth_pool::fuzzing::pieces;
use hearth_pool::ids::Tenant;
use hearth_pool::journal::Journal;
use hearth_proto::{StatusDetails, v1};
use hearth_server::auth::Caller;
use hearth_server::front::Front;
use hearth_server::fuzzing::{METHODS, is_known_reason};
use http::uri::PathAndQuery;
use http::{Request, Response};
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tower::Service;

use super::world::{self, World};

/// How long, on the world's own clock, a call may take, and how long a stream is listened to.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
const LISTENS_FOR: Duration = Duration::from_secs(60);
/// The most messages that are taken of an answer.
const MAX_ANSWERS: usize = 16;
/// This method's number says that a message belongs to the call before it.
const MORE: u8 = u8::MAX;

/// The bytes that are these calls: a path, who calls (0: an operator; 1 and 2: tenants), and messages.
///
/// # Panics
/// When there is no such method, or a message is too long.
#[allow(dead_code, reason = "searches need no seeds")]
pub(crate) fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, u8, Vec<Vec<u8>>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, who, messages) in calls {
        let method = METHODS.iter().position(|it| *it == path).expect("there is such a method");
        let mut method = u8::try_from(method).expect("there are few methods");
        for message in messages {
            let length = u16::try_from(message.len() + 2).expect("it is short");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&[method, who]);
            bytes.extend_from_slice(&message);
            method = MORE;
        }
    }
    bytes
}

/// The `pieces` of `bytes` are calls, one after another. Each is answered, or refused with what its caller
/// can act upon; in the end everything can be shown and given back, and no VM is left.
pub(crate) fn run(bytes: &[u8]) {
    let mut sent: Vec<(usize, u8, Vec<Vec<u8>>)> = Vec::new();
    for piece in pieces(bytes) {
        let [method, who, message @ ..] = piece else { continue };
        match sent.last_mut() {
            Some((_, _, messages)) if *method == MORE => messages.push(message.to_vec()),
            _ => {
                let method = usize::from(*method) % METHODS.len();
                sent.push((method, *who, vec![message.to_vec()]));
            }
        }
    }
    world::run(1, Journal::open, async |world| {
        world.begin().await.expect("a start on nothing");
        for (method, who, messages) in sent {
            let path = METHODS[method];
            if let Err(status) = call(world, path, who, messages).await {
                check(path, &status);
            }
        }
        show_all(world).await;
        release_all(world).await;
        world.end().await;
    });
}

/// What is refused says why, in words of the one table.
fn check(path: &str, status: &Status) {
    let details = StatusDetails::of(status);
    let reason = details.reason.unwrap_or_else(|| panic!("{path}: no ErrorInfo: {status:?}"));
    assert!(is_known_reason(&reason, status.code()), "{path}: {reason} of {status:?}");
    assert_ne!(reason, "INTERNAL", "{path}: a mistake of ours: {status:?}");
    assert_ne!(status.code(), Code::Unknown, "{path}: {status:?}");
}

/// One call: what it is answered, or what is wrong.
pub(crate) async fn call(
    world: &World,
    path: &'static str,
    who: u8,
    messages: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Status> {
    let caller = match who % 3 {
        0 => Caller::operator(Tenant::anonymous()),
        1 => Caller::tenant(Tenant::new("alice")),
        _ => Caller::tenant(Tenant::new("bob")),
    };
    let mut grpc = tonic::client::Grpc::new(Wire { front: world.front.clone(), caller });
    grpc.ready().await.expect("it is ready");
    let mut request = tonic::Request::new(tokio_stream::iter(messages));
    if who & 0x10 != 0 {
        request.set_timeout(Duration::from_secs(2));
    }
    let path = PathAndQuery::from_static(path);
    let called = tokio::time::timeout(PATIENCE, grpc.streaming(request, path.clone(), Raw)).await;
    let called = called.unwrap_or_else(|_| panic!("{path} is never answered"));
    let mut stream = called?.into_inner();
    let mut answers = Vec::new();
    while answers.len() < MAX_ANSWERS
        && let Ok(answer) = tokio::time::timeout(LISTENS_FOR, stream.message()).await
        && let Some(answer) = answer?
    {
        answers.push(answer);
    }
    Ok(answers)
}

/// Everything that there is can be shown.
pub(crate) async fn show_all(world: &World) {
    let lists = [
        ("/hearth.v1.VmService/ListVms", v1::ListVmsRequest::default().encode_to_vec()),
        ("/hearth.v1.PoolService/ListPools", v1::ListPoolsRequest::default().encode_to_vec()),
        (
            "/hearth.v1.TemplateService/ListTemplates",
            v1::ListTemplatesRequest::default().encode_to_vec(),
        ),
        (
            "/hearth.v1.ArtifactService/ListArtifacts",
            v1::ListArtifactsRequest::default().encode_to_vec(),
        ),
        ("/google.longrunning.Operations/ListOperations", Vec::new()),
        ("/hearth.v1.NodeService/GetNode", Vec::new()),
    ];
    for (path, request) in lists {
        let shown = call(world, path, 0, vec![request]).await;
        shown.unwrap_or_else(|status| panic!("{path}: {status:?}"));
    }
}

/// Whoever has a VM gives it back.
pub(crate) async fn release_all(world: &World) {
    for vm in world.manager.vms(None).iter().filter(|vm| vm.lease.is_some()) {
        let request =
            v1::ReleaseVmRequest { name: format!("vms/{}", vm.view.vm_id), ..Default::default() };
        let released =
            call(world, "/hearth.v1.VmService/ReleaseVm", 0, vec![request.encode_to_vec()]).await;
        if let Err(status) = released {
            // It may have ended by itself meanwhile; nothing else is a reason.
            assert_eq!(status.code(), Code::NotFound, "{}: {status:?}", vm.view.vm_id);
        }
    }
}

/// Who calls says so itself, as a layer that authenticates would.
#[derive(Clone)]
struct Wire {
    front: Front,
    caller: Caller,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Front as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.front.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.caller.clone());
        self.front.call(request)
    }
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
