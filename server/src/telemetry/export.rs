//! Spans, sent to a collector by OTLP over gRPC, apart from everything else: a collector that is down or slow
//! costs spans, which are counted, and no call its time.

use std::num::NonZeroU128;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use hearth_proto::TraceContext;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::headers;
use super::queue::Queued;
use super::spans::{Spans, spans};
use crate::config::Telemetry;
use crate::metrics;

/// Spans of one message.
const BATCH: usize = 512;
/// How long a span waits for others, at most.
const GATHER: Duration = Duration::from_secs(1);
/// The export, not begun yet: it takes a runtime.
pub struct Export {
    queued: Queued,
    endpoint: Endpoint,
    headers: MetadataMap,
    resource: Resource,
    timeout: Duration,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("endpoint", &self.endpoint.uri()).finish_non_exhaustive()
    }
}

/// The export, under way.
#[derive(Debug)]
pub struct Exporting {
    tasks: TaskGroup,
    timeout: Duration,
}

/// Prepares the export that `settings` ask for, if they do. Blocks on the disk for a moment.
///
/// # Errors
/// What is wrong with the files that they name.
pub(super) fn prepare(settings: &Telemetry) -> Result<Option<(Spans, Export)>, String> {
    let Some(uri) = &settings.endpoint else { return Ok(None) };
    let endpoint = Endpoint::from_shared(uri.clone()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(settings.timeout).timeout(settings.timeout);
    let endpoint = match &settings.ca {
        None => endpoint,
        Some(ca) => {
            let pem = std::fs::read(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).map_err(|error| error.to_string())?
        }
    };
    let headers = settings.headers_file.as_deref().map_or(Ok(MetadataMap::new()), headers::read)?;
    let (spans, queued) = spans(settings.sample_ratio, settings.max_queued);
    let (resource, timeout) = (resource(), settings.timeout);
    Ok(Some((spans, Export { queued, endpoint, headers, resource, timeout })))
}

/// Who sends the spans. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it better.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => resource.build(),
        None => resource.with_service_name("hearth").build(),
    }
}

/// Makes `span` a part of what its caller says, and answers which trace that is; where spans are exported and
/// its caller says nothing, one of its own.
pub(super) fn join(span: &Span, caller: Option<&TraceContext>) -> Option<NonZeroU128> {
    if let Some(caller) = caller {
        let flags = TraceFlags::default().with_sampled(caller.is_sampled());
        let (trace, parent) = (TraceId::from(caller.trace_id()), SpanId::from(caller.parent_id()));
        let state = caller.state().parse::<TraceState>().unwrap_or_default();
        let caller = SpanContext::new(trace, parent, flags, true, state);
        // Where nothing is exported nobody takes it.
        drop(span.set_parent(Context::new().with_remote_span_context(caller)));
    }
    let context = span.context();
    NonZeroU128::new(u128::from_be_bytes(context.span().span_context().trace_id().to_bytes()))
}

impl Export {
    /// Begins to export. Must run within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn begin(self) -> Result<Exporting, String> {
        let Self { queued, endpoint, headers, resource, timeout } = self;
        tracing::info!(endpoint = %endpoint.uri(), "spans are exported");
        let built = SpanExporter::builder()
            .with_tonic()
            .with_channel(endpoint.connect_lazy())
            .with_metadata(headers)
            .with_timeout(timeout)
            .build();
        let mut exporter = built.map_err(|error: ExporterBuildError| error.to_string())?;
        exporter.set_resource(&resource);
        let tasks = TaskGroup::new();
        let sender = Sender { exporter, queued, timeout, is_failing: false };
        tasks.spawn(sender.run(tasks.clone()));
        Ok(Exporting { tasks, timeout })
    }
}

impl Exporting {
    /// Sends what is left, for as long as one message may take, and ends.
    ///
    /// # Cancel safety
    /// What is left is dropped with the future.
    pub async fn end(self) {
        self.tasks.stop();
        if !self.tasks.join(self.timeout).await {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

struct Sender {
    exporter: SpanExporter,
    queued: Queued,
    timeout: Duration,
    is_failing: bool,
}

impl Sender {
    async fn run(mut self, tasks: TaskGroup) {
        let stopping = tasks.stopping();
        let mut batch = Vec::new();
        while !stopping.is_cancelled() {
            tokio::select! {
                () = self.gather(&mut batch) => {}
                () = stopping.cancelled() => break,
            }
            if batch.is_empty() {
                return;
            }
            self.send(&mut batch).await;
        }
        // What comes later has no place; what is there goes out, for as long as whoever ends this waits.
        self.queued.spans.close();
        self.send(&mut batch).await;
        while self.queued.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.send(&mut batch).await;
        }
    }

    /// Fills `batch`, or waits so long that little is lost by sending less. Nothing: nobody is left who could
    /// make a span.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let spans = &mut self.queued.spans;
        if spans.recv_many(batch, BATCH).await == 0 {
            return;
        }
        let fill = async {
            while batch.len() < BATCH && spans.recv_many(batch, BATCH - batch.len()).await > 0 {}
        };
        // Full or not.
        let _ = tokio::time::timeout(GATHER, fill).await;
    }

    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        metrics::spans_dropped("queue_full", self.queued.take_dropped());
        let spans = std::mem::take(batch);
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        // Its own bound is the channel's, which begins with the connection.
        let failed = match tokio::time::timeout(self.timeout, self.exporter.export(spans)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("there was no answer in time".to_owned()),
        };
        metrics::spans_dropped("export_failed", failed.as_ref().map_or(0, |_| count));
        let was_failing = std::mem::replace(&mut self.is_failing, failed.is_some());
        match failed {
            Some(error) if !was_failing => {
                tracing::warn!(error, "spans cannot be exported: they are dropped until they can");
            }
            None if was_failing => tracing::info!("spans are exported again"),
            Some(_) | None => {}
        }
    }
}
