//! A collector of spans that takes what comes, and counts it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// One on a port of its own, by a thread of its own; dropped, it is there no more.
pub(super) struct Collector {
    /// Where it is.
    pub(super) address: String,
    spans: Arc<AtomicU64>,
    // Its work ends with this.
    _runtime: Runtime,
}

struct Service(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|it| &it.scope_spans);
        let spans: usize = scopes.map(|it| it.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// # Errors
    /// When there is no port or no thread for it.
    pub(super) fn start() -> Result<Self, Box<dyn Error>> {
        let spans = Arc::default();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let within = runtime.enter();
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
        let address = incoming.local_addr()?.to_string();
        let service = TraceServiceServer::new(Service(Arc::clone(&spans)));
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        serving.detach_all();
        drop(within);
        Ok(Self { address, spans, _runtime: runtime })
    }

    /// How many it has taken so far.
    pub(super) fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }
}
