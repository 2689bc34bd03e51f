//! The floor: an empty unary call on the same stack, with messages of the same size.
//!
//! A bare tonic server, without layers, and its client. What a hearth takes beyond this is its own;
//! what this takes, no hearth on this stack can save. The request says how large the answer shall
//! be, so that one server serves every comparison.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_proto::{MessageCodec, Transport};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, BoxFuture, Context, Poll, Service, StdError, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::drive::{Answer, Target};
use super::hearth::reason_of;
use super::tally::{Source, Verdict};

const PATH: &str = "/hearth.bench.Floor/Call";

/// Calls at once on one connection: as many as a hearth takes unless told otherwise.
const MAX_STREAMS: u32 = 4096;

/// Largest message.
const MAX_BYTES: usize = 64 * 1024;
static ZEROS: [u8; MAX_BYTES] = [0; MAX_BYTES];

/// A message that is nothing but large.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Blob {
    /// Bytes of the answer. 0: an empty one.
    #[prost(fixed32, tag = "1")]
    pub answer_bytes: u32,
    /// What makes it large.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
    /// Two bytes for the sizes that a payload alone cannot make.
    #[prost(bool, tag = "3")]
    pub padding: bool,
}

impl Blob {
    /// One that encodes to exactly `bytes` and asks for an answer of `answer_bytes`. `None` when
    /// that cannot be: 1 byte, fewer than asking takes, or more than 64 KiB.
    pub fn of_size(bytes: usize, answer_bytes: u32) -> Option<Self> {
        use prost::Message as _;
        let bare = Self { answer_bytes, ..Self::default() };
        let rest = bytes.checked_sub(bare.encoded_len())?;
        [false, true].into_iter().find_map(|padding| {
            let rest = rest.checked_sub(2 * usize::from(padding))?;
            // A payload has a tag and a length in front, or is absent.
            [0, 2, 3, 4].into_iter().find_map(|front| {
                let zeros = ZEROS.get(..rest.checked_sub(front)?)?;
                let blob = Self { payload: Bytes::from_static(zeros), padding, ..bare.clone() };
                (blob.encoded_len() == bytes).then_some(blob)
            })
        })
    }
}

/// Serves the floor on `incoming` until `end`, encrypted where `tls` says how.
///
/// # Errors
/// When the transport fails, or there is something wrong with `tls`.
pub async fn serve(
    incoming: TcpIncoming,
    tls: Option<ServerTlsConfig>,
    end: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let incoming = incoming.with_nodelay(Some(true));
    let mut server = Server::builder().max_concurrent_streams(MAX_STREAMS);
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    server.add_service(Floor).serve_with_incoming_shutdown(incoming, end).await
}

/// The service.
#[derive(Clone, Copy, Debug)]
struct Floor;

impl NamedService for Floor {
    const NAME: &'static str = "hearth.bench.Floor";
}

impl<B> Service<http::Request<B>> for Floor
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("there is one method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(Method, request).await)
        })
    }
}

/// Its method.
struct Method;

impl UnaryService<Blob> for Method {
    type Response = Blob;
    type Future = Ready<Result<Response<Blob>, Status>>;

    fn call(&mut self, request: Request<Blob>) -> Self::Future {
        let blob = Blob::of_size(request.into_inner().answer_bytes as usize, 0);
        ready(blob.map(Response::new).ok_or_else(|| Status::invalid_argument("no such size")))
    }
}

/// The empty call, as a target.
#[derive(Clone, Debug)]
pub struct FloorTarget {
    transports: Arc<[Transport]>,
    request: Blob,
    deadline: Duration,
}

impl FloorTarget {
    /// Calls over `transports` in turn, with this request, each for `deadline` at most.
    pub fn new(transports: Vec<Transport>, request: Blob, deadline: Duration) -> Self {
        Self { transports: transports.into(), request, deadline }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// The server's status, or the transport's.
    pub async fn ask(&self, number: u64) -> Result<Blob, Status> {
        let transport = &self.transports[number as usize % self.transports.len()];
        let mut grpc = tonic::client::Grpc::new(transport.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(self.request.clone());
        request.set_timeout(self.deadline);
        let codec = MessageCodec::<Blob, Blob>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(PATH), codec).await?;
        Ok(answer.into_inner())
    }
}

impl Target for FloorTarget {
    type Held = ();

    async fn call(&self, number: u64) -> Answer<()> {
        let verdict = match self.ask(number).await {
            Ok(_) => Verdict::Given(Source::Floor),
            Err(status) => Verdict::Refused(reason_of(&status)),
        };
        Answer { verdict, held: None, replayed: false }
    }

    async fn give_back(&self, (): ()) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hearth_proto::Credentials;
    use prost::Message as _;

    use super::super::connect;
    use super::*;

    #[test]
    fn a_message_can_be_made_of_every_size() {
        for bytes in (2..5000).chain(16_380..16_400).chain([0, MAX_BYTES]) {
            let blob = Blob::of_size(bytes, 0).unwrap_or_else(|| panic!("not of {bytes}"));
            assert_eq!(blob.encode_to_vec().len(), bytes);
        }
        for bytes in (7..5000).chain([5]) {
            let blob = Blob::of_size(bytes, 300).unwrap_or_else(|| panic!("not of {bytes}"));
            assert_eq!((blob.encoded_len(), blob.answer_bytes), (bytes, 300));
        }
        assert_eq!((Blob::of_size(1, 0), Blob::of_size(4, 300)), (None, None));
        assert_eq!(Blob::of_size(usize::MAX, 0), None);
    }

    #[tokio::test]
    async fn the_server_answers_with_as_many_bytes_as_asked_for() {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let asking = async {
            let channels = connect(&address, 2, &Credentials::default()).await.unwrap();
            for bytes in [0, 2, 130, 512] {
                let request = Blob::of_size(97, bytes).unwrap();
                let timeout = Duration::from_secs(10);
                let target = FloorTarget::new(channels.clone(), request, timeout);
                assert_eq!(target.ask(0).await.unwrap().encoded_len(), bytes as usize);
                let verdict = target.call(1).await.verdict;
                assert_eq!(verdict, Verdict::Given(Source::Floor));
            }
            let request = Blob::of_size(97, u32::MAX).unwrap();
            let target = FloorTarget::new(channels, request, Duration::from_secs(10));
            let verdict = target.call(0).await.verdict;
            assert_eq!(verdict, Verdict::Refused("code InvalidArgument".to_owned()));
            drop(target);
            drop(end);
        };
        let serving = serve(incoming, None, async { drop(ended.await) });
        let (served, ()) = tokio::join!(serving, asking);
        served.unwrap();
    }
}
