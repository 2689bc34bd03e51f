//! What makes spans: of our own crates alone, at `debug` and above, whatever the log's level is.
//!
//! The benches have this file, too, to count what the spans of an acquire cost.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::queue::{Queued, queue};

/// Where our spans come from.
const TARGETS: [&str; 3] = ["hearth_pool", "hearth_providers", "hearth_server"];

/// What makes spans, to be exported.
pub(super) struct Spans(SdkTracer);

/// What makes them, and where at most `max_queued` of them wait. `sample_ratio` of the traces are kept of which no
/// caller has decided whether they are.
pub(super) fn spans(sample_ratio: f64, max_queued: usize) -> (Spans, Queued) {
    let (queue, queued) = queue(max_queued);
    // What the caller decided holds for what it calls.
    let ours = Sampler::TraceIdRatioBased(sample_ratio);
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(ours)))
        .with_span_processor(queue)
        .build();
    (Spans(provider.tracer("hearth")), queued)
}

impl Spans {
    /// The layer of the log's subscriber that makes them.
    pub(super) fn layer<S>(self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let targets = TARGETS.map(|target| (target, LevelFilter::DEBUG));
        tracing_opentelemetry::layer()
            .with_tracer(self.0)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(Targets::new().with_targets(targets))
    }
}
