//! The recorder of a process: every series, and what a scrape shows of them.
//!
//! - Recording touches the series alone: an addition or two, no lock.
//! - What a pool or a template was measured by goes with it: such a series is shown as long as somebody
//!   holds its handle, so that pools that come and go leave nothing.
//! - A scrape is written part by part ([`Scrape`]): whoever writes it may let others go on in between, and
//!   nobody who records ever waits for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::vec::IntoIter;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder as Records, SharedString,
    Unit,
};
use parking_lot::RwLock;

use super::HISTOGRAM_BOUNDS_SECONDS;
use super::series::{Kind, Value, label_text};

/// Labels whose series go with those who hold them.
const OWNED: [&str; 2] = ["pool", "template"];
/// How many series a part of a scrape has at most: some 100 microseconds of work.
const PART: usize = 256;

/// Keeps series, and shows them in the text format of Prometheus. Cloned, it is the same.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    families: Arc<RwLock<BTreeMap<String, Family>>>,
}

#[derive(Debug, Default)]
struct Family {
    help: SharedString,
    /// Of the first of its series; unknown as long as it has none.
    kind: Option<Kind>,
    series: BTreeMap<Arc<str>, Series>,
}

#[derive(Debug)]
struct Series {
    is_owned: bool,
    value: Value,
}

static INSTALLED: OnceLock<Recorder> = OnceLock::new();

impl Recorder {
    /// That of this process, installed when it is first asked for. `None` when another library has
    /// installed one of its own.
    pub fn of_the_process() -> Option<&'static Self> {
        static INSTALLING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
        let _installing = INSTALLING.lock();
        if INSTALLED.get().is_none() {
            let recorder = Self::default();
            metrics::set_global_recorder(recorder.clone()).ok()?;
            let _ = INSTALLED.set(recorder);
        }
        INSTALLED.get()
    }

    /// What is there now, to be written.
    pub fn scrape(&self) -> Scrape {
        let names: Vec<_> = self.families.read().keys().cloned().collect();
        Scrape { recorder: self.clone(), names: names.into_iter(), family: None }
    }

    /// How many observations a histogram has in each bucket of [`HISTOGRAM_BOUNDS_SECONDS`], and in the one
    /// beyond the last; since it was made, and not added up. `None` when there is no histogram `name` with
    /// just these labels.
    pub fn buckets(
        &self,
        name: &str,
        labels: &[(&'static str, &str)],
    ) -> Option<[u64; HISTOGRAM_BOUNDS_SECONDS.len() + 1]> {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        let labels = label_text(labels.iter());
        let families = self.families.read();
        match &families.get(name)?.series.get(labels.as_str())?.value {
            Value::Times(times) => Some(times.counts()),
            Value::Number(_) => None,
        }
    }

    /// How many series there are: what is let go of counts until the next scrape.
    pub fn series(&self) -> usize {
        self.families.read().values().map(|family| family.series.len()).sum()
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        self.families.write().entry(name.as_str().to_owned()).or_default().help = help;
    }

    /// The value of a series, made when it is not there. `None` when others of its name are of another
    /// kind.
    fn value(&self, key: &Key, kind: Kind) -> Option<Value> {
        let labels = label_text(key.labels());
        let families = self.families.read();
        let family = families.get(key.name());
        if let Some(family) = family
            && let Some(series) = family.series.get(labels.as_str())
        {
            return (family.kind == Some(kind)).then(|| series.value.clone());
        }
        drop(families);
        let mut families = self.families.write();
        let family = families.entry(key.name().to_owned()).or_default();
        if *family.kind.get_or_insert(kind) != kind {
            tracing::error!(name = key.name(), "a metric is of two kinds");
            return None;
        }
        // Also where nobody scrapes, what is let go of does not pile up.
        if family.series.len().is_power_of_two() {
            family.forget(|_, _| {});
        }
        let is_owned = key.labels().any(|it| OWNED.contains(&it.key()));
        let made = || Series { is_owned, value: Value::new(kind) };
        Some(family.series.entry(labels.into()).or_insert_with(made).value.clone())
    }
}

impl Family {
    /// Drops what nobody holds any more, and has `seen` everything else.
    fn forget(&mut self, mut seen: impl FnMut(&Arc<str>, &Value)) {
        self.series.retain(|labels, it| {
            let is_held = !(it.is_owned && it.value.is_let_go());
            if is_held {
                seen(labels, &it.value);
            }
            is_held
        });
    }
}

impl Records for Recorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.value(key, Kind::Counter) {
            Some(Value::Number(number)) => Counter::from_arc(number),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.value(key, Kind::Gauge) {
            Some(Value::Number(number)) => Gauge::from_arc(number),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.value(key, Kind::Histogram) {
            Some(Value::Times(times)) => Histogram::from_arc(times),
            _ => Histogram::noop(),
        }
    }
}

/// A scrape that is being written. A series that comes or goes meanwhile may be in it or not.
#[derive(Debug)]
pub struct Scrape {
    recorder: Recorder,
    names: IntoIter<String>,
    /// The one that is being written.
    family: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    name: String,
    kind: Kind,
    /// Those that are left.
    series: IntoIter<(Arc<str>, Value)>,
}

impl Scrape {
    /// Writes the next part at the end of `into`; answers whether there may be more.
    pub fn write_part(&mut self, into: &mut String) -> bool {
        let Some(Shown { name, kind, series }) = &mut self.family else {
            return self.begin_family(into);
        };
        for (labels, it) in series.by_ref().take(PART) {
            it.write(*kind, name, &labels, into);
        }
        if series.len() == 0 {
            into.push('\n');
            self.family = None;
        }
        true
    }

    /// Writes all that is left.
    pub fn write(mut self, into: &mut String) {
        while self.write_part(into) {}
    }

    fn begin_family(&mut self, into: &mut String) -> bool {
        let Some(name) = self.names.next() else { return false };
        let mut families = self.recorder.families.write();
        let Some(family) = families.get_mut(&name) else { return true };
        let mut series = Vec::with_capacity(family.series.len());
        family.forget(|labels, value| series.push((Arc::clone(labels), value.clone())));
        let (Some(kind), false) = (family.kind, series.is_empty()) else { return true };
        let help = family.help.clone();
        drop(families);
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = writeln!(into, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        self.family = Some(Shown { name, kind, series: series.into_iter() });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    fn shown(recorder: &Recorder) -> String {
        let mut text = String::new();
        recorder.scrape().write(&mut text);
        text
    }

    #[test]
    fn what_is_recorded_is_shown() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            describe_counter!("a_total", "As,\nand so on");
            counter!("a_total", "why" => "x").increment(2);
            counter!("a_total", "why" => "x").increment(1);
            gauge!("b").set(-1.5);
        });
        let wanted = "# HELP a_total As,\\nand so on\n# TYPE a_total counter\na_total{why=\"x\"} 3\n\n\
                      # HELP b \n# TYPE b gauge\nb -1.5\n\n";
        assert_eq!(shown(&recorder), wanted);
    }

    #[test]
    fn what_a_pool_was_measured_by_goes_with_it() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            let held = gauge!("g", "pool" => "held");
            held.set(1.0);
            gauge!("g", "pool" => "gone").set(1.0);
            counter!("c", "reason" => "stays").increment(1);
            let text = shown(&recorder);
            assert!(text.contains("held") && text.contains("stays"), "{text}");
            assert!(!text.contains("gone"), "{text}");
            drop(held);
            assert!(!shown(&recorder).contains("held"));
        });
        assert_eq!(recorder.series(), 1);
    }

    #[test]
    fn pools_that_come_and_go_leave_nothing_though_nobody_scrapes() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            for pool in 0..10_000 {
                histogram!("h", "pool" => pool.to_string()).record(1.0);
            }
        });
        assert!(recorder.series() < 100, "{}", recorder.series());
    }

    #[test]
    fn a_name_of_two_kinds_counts_as_the_first() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            counter!("n").increment(1);
            gauge!("n").set(7.0);
            gauge!("n", "a" => "b").set(7.0);
        });
        assert!(shown(&recorder).ends_with("counter\nn 1\n\n"));
    }

    #[test]
    fn a_histogram_is_read_by_its_labels() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            let held = histogram!("h", "pool" => "a", "source" => "warm");
            [20e-6, 30e-6, 30e-6, 60.0].iter().for_each(|it| held.record(*it));
            counter!("c").increment(1);
            let read = |name, labels: &[_]| recorder.buckets(name, labels);
            let buckets = read("h", &[("source", "warm"), ("pool", "a")]).unwrap();
            assert_eq!((buckets[0], buckets[1], buckets[2], buckets[20]), (1, 2, 0, 1));
            assert_eq!(read("h", &[("pool", "a")]), None);
            assert_eq!(read("c", &[]), None);
        });
    }

    #[test]
    fn parts_are_the_whole() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            for it in 0..3 * PART {
                counter!("c", "it" => it.to_string()).increment(1);
            }
        });
        let (mut scrape, mut text, mut parts) = (recorder.scrape(), String::new(), 0);
        while scrape.write_part(&mut text) {
            parts += 1;
        }
        assert!(parts >= 3, "{parts}");
        assert_eq!(text.lines().filter(|it| it.starts_with("c{")).count(), 3 * PART);
    }
}
