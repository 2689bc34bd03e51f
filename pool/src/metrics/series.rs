//! One series: a number, or times in buckets; and how it is written.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{HistogramFn, Label};

use super::HISTOGRAM_BOUNDS_SECONDS as BOUNDS;

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How often something took how long. Every observation is counted where it belongs at once, so that
/// nothing piles up between two scrapes and nothing has to be folded.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// One for each bound, and one beyond the last.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// The bits of a number of seconds.
    sum: AtomicU64,
}

impl HistogramFn for Times {
    fn record(&self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + seconds).to_bits());
        // It always answers `Some`.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// Where the value of a series is: a counter's number, the bits of a gauge's, or times.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(Arc<AtomicU64>),
    Times(Arc<Times>),
}

impl Value {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter | Kind::Gauge => Self::Number(Arc::default()),
            Kind::Histogram => Self::Times(Arc::default()),
        }
    }

    /// Whether nobody has a handle of it but its registry.
    pub(super) fn is_let_go(&self) -> bool {
        match self {
            Self::Number(number) => Arc::strong_count(number) == 1,
            Self::Times(times) => Arc::strong_count(times) == 1,
        }
    }

    /// Writes its lines; `labels` are as [`label_text`] has them.
    pub(super) fn write(&self, kind: Kind, name: &str, labels: &str, into: &mut String) {
        match self {
            Self::Number(number) => {
                let bits = number.load(Ordering::Relaxed);
                start_line(into, name, "", labels);
                // Writing to a string does not fail.
                let _ = match kind {
                    Kind::Gauge => writeln!(into, "{}", f64::from_bits(bits)),
                    Kind::Counter | Kind::Histogram => writeln!(into, "{bits}"),
                };
            }
            Self::Times(times) => times.write(name, labels, into),
        }
    }
}

/// The bounds as labels have them.
const BOUND_TEXTS: [&str; BOUNDS.len() + 1] = [
    "0.000025", "0.00005", "0.0001", "0.0002", "0.00035", "0.0005", "0.00075", "0.001", "0.002",
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
];

impl Times {
    /// How many observations fell into each bucket, the last of which has no bound.
    pub(super) fn counts(&self) -> [u64; BOUNDS.len() + 1] {
        self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    fn write(&self, name: &str, labels: &str, into: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let line = format!("{name}_bucket{{{labels}{comma}le=\"");
        into.reserve((line.len() + LEAST_BEHIND_BOUND) * BOUND_TEXTS.len());
        // Most buckets are empty: the number is that of the line before.
        let (mut count, mut text) = (0, String::from("0"));
        for (bound, bucket) in BOUND_TEXTS.iter().zip(self.counts()) {
            if bucket > 0 {
                count += bucket;
                text = count.to_string();
            }
            for part in [line.as_str(), bound, "\"} ", &text, "\n"] {
                into.push_str(part);
            }
        }
        start_line(into, name, "_sum", labels);
        // Writing to a string does not fail.
        let _ = writeln!(into, "{}", f64::from_bits(self.sum.load(Ordering::Relaxed)));
        start_line(into, name, "_count", labels);
        into.push_str(&text);
        into.push('\n');
    }
}

/// What a bucket's line has behind its bound, and most of the bound.
const LEAST_BEHIND_BOUND: usize = 12;

/// Everything of a line up to its value.
fn start_line(into: &mut String, name: &str, suffix: &str, labels: &str) {
    into.push_str(name);
    into.push_str(suffix);
    if !labels.is_empty() {
        into.push('{');
        into.push_str(labels);
        into.push('}');
    }
    into.push(' ');
}

/// Labels as a line has them, in one order whoever names them.
pub(super) fn label_text<'a>(labels: impl Iterator<Item = &'a Label>) -> String {
    let mut labels: Vec<_> = labels.map(|it| (it.key(), it.value())).collect();
    labels.sort_unstable();
    let mut text = String::new();
    for (key, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{comma}{key}=\"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_they_are() {
        for (bound, text) in BOUNDS.iter().zip(BOUND_TEXTS) {
            assert_eq!(text.parse(), Ok(*bound));
            assert_eq!(text, bound.to_string());
        }
    }

    #[test]
    fn a_time_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let times = Times::default();
        for seconds in [1e-6, 25e-6, 26e-6, 10.0, 11.0] {
            times.record(seconds);
        }
        let mut text = String::new();
        times.write("t", "a=\"b\"", &mut text);
        let line = |start: &str| text.lines().any(|it| it == start);
        assert!(line("t_bucket{a=\"b\",le=\"0.000025\"} 2"), "{text}");
        assert!(line("t_bucket{a=\"b\",le=\"0.00005\"} 3"), "{text}");
        assert!(line("t_bucket{a=\"b\",le=\"10\"} 4"), "{text}");
        assert!(line("t_bucket{a=\"b\",le=\"+Inf\"} 5"), "{text}");
        assert!(line("t_count{a=\"b\"} 5"), "{text}");
        assert!(
            line(&format!("t_sum{{a=\"b\"}} {}", 1e-6 + 25e-6 + 26e-6 + 10.0 + 11.0)),
            "{text}"
        );
    }

    #[test]
    fn labels_are_escaped_and_in_order() {
        let labels = [Label::new("z", "a\"b\\c\nd"), Label::new("a", "1")];
        assert_eq!(label_text(labels.iter()), "a=\"1\",z=\"a\\\"b\\\\c\\nd\"");
    }
}
