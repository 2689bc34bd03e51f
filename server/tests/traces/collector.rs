//! A collector: what takes spans by OTLP over gRPC, and keeps them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::hearth::Answer;
use crate::tree::Tree;

/// How long a span may take to arrive. Never a claim of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it took so far: messages, and the headers that they came with.
type Taken = Arc<Mutex<Vec<(ExportTraceServiceRequest, tonic::metadata::MetadataMap)>>>;

/// A collector on a port of its own; dropped, it is there no more.
pub(crate) struct Collector {
    taken: Taken,
    address: String,
    // Ends with this.
    _serving: tokio::task::JoinSet<()>,
}

struct Service(Taken);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (headers, _, message) = request.into_parts();
        let mut taken = self.0.lock();
        taken.push((message, headers));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) fn start() -> Answer<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// One on this port.
    pub(crate) fn start_at(address: SocketAddr) -> Answer<Self> {
        let taken = Taken::default();
        let incoming = TcpIncoming::bind(address)?;
        let address = incoming.local_addr()?.to_string();
        let service = TraceServiceServer::new(Service(Arc::clone(&taken)));
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            drop(Server::builder().add_service(service).serve_with_incoming(incoming).await);
        });
        Ok(Self { taken, address, _serving: serving })
    }

    /// What a hearth is configured with to send its spans here.
    pub(crate) fn settings(&self) -> String {
        format!("[telemetry]\nendpoint = \"http://{}\"\n", self.address)
    }

    /// Everything that was sent, headers included, as text.
    pub(crate) fn text(&self) -> String {
        let taken = self.taken.lock();
        taken.iter().map(|(message, _)| format!("{message:?}\n")).collect()
    }

    /// What every message came with under `name`.
    pub(crate) fn headers(&self, name: &str) -> Vec<Option<String>> {
        let taken = self.taken.lock();
        let text = |headers: &tonic::metadata::MetadataMap| {
            headers.get(name).and_then(|it| it.to_str().ok()).map(str::to_owned)
        };
        taken.iter().map(|(_, headers)| text(headers)).collect()
    }

    /// Every span.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock();
        let resources = taken.iter().flat_map(|(message, _)| &message.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// Waits until a span fits `root`, and answers the tree below it.
    pub(crate) async fn tree(&self, root: impl Fn(&Span) -> bool) -> Answer<Tree> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            if let Some(root) = spans.iter().find(|span| root(span)) {
                return Ok(Tree::of(root.clone(), &spans));
            }
            if tokio::time::Instant::now() > deadline {
                let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
                return Err(format!("it never came; there are {names:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
