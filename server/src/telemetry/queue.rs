//! Spans that wait for their export. Whoever ends a span never waits: one for which there is no place is
//! dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// The end where spans come in.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

/// The end where they go out.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) spans: Receiver<SpanData>,
    dropped: Arc<AtomicU64>,
}

/// A queue of at most `max` spans.
pub(super) fn queue(max: usize) -> (Queue, Queued) {
    let (sender, spans) = mpsc::channel(max);
    let dropped = Arc::default();
    (Queue { spans: sender, dropped: Arc::clone(&dropped) }, Queued { spans, dropped })
}

impl Queued {
    /// How many found no place since this was asked last.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        // What is not to be kept never comes here. Closed: hearth ends.
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
