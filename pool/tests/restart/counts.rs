//! What this thread counts, by metric and labels.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString,
    Unit,
};
use parking_lot::Mutex;

/// Counters from the moment at which it was made.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<HashMap<Key, Arc<AtomicU64>>>);

impl Counts {
    /// Counts what this thread does until the guard goes.
    pub(crate) fn listen(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    /// How many orphans of `kind` were reaped.
    pub(crate) fn reaped(&self, kind: &str) -> u64 {
        let all = self.0.lock();
        let of_kind = all.iter().filter(|(key, _)| {
            key.name() == "hearth_orphans_reaped_total"
                && key.labels().any(|label| label.key() == "kind" && label.value() == kind)
        });
        of_kind.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.0.lock().entry(key.clone()).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
