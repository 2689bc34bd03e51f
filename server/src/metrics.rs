//! The metrics of this crate, and how all of them are shown.
//!
//! One recorder a process, rendered on the admin port. What the process and its tokio runtime cost is
//! read when it is asked for.

use std::fmt::Write as _;
use std::time::Duration;

use hearth_pool::metrics::recorder::Recorder;
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Sees to it that the process has a recorder, and says what this crate's metrics mean.
///
/// # Errors
/// When another recorder was installed by somebody else.
pub(crate) fn install() -> Result<(), String> {
    let recorder = Recorder::of_the_process();
    recorder.ok_or("another library has installed a recorder of metrics")?;
    describe();
    Ok(())
}

/// Every metric, in the text format of Prometheus. Lets others go on after each part: thousands of pools
/// hold up nobody.
pub(crate) async fn render() -> String {
    let mut text = String::new();
    if let Some(recorder) = Recorder::of_the_process() {
        let mut scrape = recorder.scrape();
        while scrape.write_part(&mut text) {
            tokio::task::yield_now().await;
        }
    }
    process(&mut text);
    runtime(&mut text);
    text
}

/// One method's counters, looked up once.
#[derive(Debug)]
pub(crate) struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

impl MethodMetrics {
    /// Those of one method, all there from 0.
    pub(crate) fn new(service: &str, method: &str) -> Self {
        let labels = [("grpc_service", service.to_owned()), ("grpc_method", method.to_owned())];
        let handled = CODES.map(|code| {
            let mut labels = labels.to_vec();
            labels.push(("grpc_code", code.to_owned()));
            let handled = counter!("grpc_server_handled_total", &labels);
            handled.absolute(0);
            handled
        });
        let started = counter!("grpc_server_started_total", &labels);
        started.absolute(0);
        Self { started, handled, seconds: histogram!("grpc_server_handling_seconds", &labels) }
    }

    /// A call has begun.
    pub(crate) fn started(&self) {
        self.started.increment(1);
    }

    /// A call has ended.
    pub(crate) fn handled(&self, code: tonic::Code, took: Duration) {
        self.handled[code as usize].increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

/// Lines of the audit were lost.
pub(crate) fn audit_lost(lines: u64) {
    counter!("hearth_audit_lost_total").increment(lines);
}

/// Why spans are dropped.
const SPAN_LOSSES: [&str; 2] = ["export_failed", "queue_full"];

/// Spans were dropped for one of [`SPAN_LOSSES`].
pub(crate) fn spans_dropped(reason: &'static str, spans: u64) {
    counter!("hearth_spans_dropped_total", "reason" => reason).increment(spans);
}

/// The name of a code.
pub(crate) fn code_name(code: tonic::Code) -> &'static str {
    CODES[code as usize]
}

/// Why connections are refused.
const REFUSALS: [&str; 4] = ["conduct", "handshake", "peer", "total"];

/// A connection was refused for one of [`REFUSALS`].
pub(crate) fn connection_refused(reason: &'static str) {
    counter!("hearth_connections_refused_total", "reason" => reason).increment(1);
}

/// Watches were opened or have ended.
pub(crate) fn watch_subscribers(change: f64) {
    gauge!("hearth_watch_subscribers").increment(change);
}

/// Names of the codes, by their number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn describe() {
    describe_counter!("grpc_server_started_total", "Calls that were begun");
    describe_counter!("grpc_server_handled_total", "Calls that have ended, by how");
    describe_histogram!("grpc_server_handling_seconds", Unit::Seconds, "Time a call took here");
    describe_counter!("hearth_audit_lost_total", "Lines of the audit that were not written");
    counter!("hearth_audit_lost_total").absolute(0);
    describe_counter!("hearth_spans_dropped_total", "Spans that were not exported, by reason");
    for reason in SPAN_LOSSES {
        counter!("hearth_spans_dropped_total", "reason" => reason).absolute(0);
    }
    describe_counter!("hearth_connections_refused_total", "Connections that were not let in");
    for reason in REFUSALS {
        counter!("hearth_connections_refused_total", "reason" => reason).absolute(0);
    }
    describe_gauge!("hearth_watch_subscribers", "Watches that are open");
    gauge!("hearth_watch_subscribers").set(0.0);
    describe_gauge!("hearth_build_info", "1; the labels say what runs");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    gauge!("hearth_build_info", "version" => env!("CARGO_PKG_VERSION"), "profile" => profile)
        .set(1.0);
}

/// One metric that is read when it is asked for.
fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
}

/// How the tokio runtime does: workers that are always busy, or tasks that pile up, are what everything
/// else waits for.
fn runtime(text: &mut String) {
    let runtime = tokio::runtime::Handle::current().metrics();
    let workers = 0..runtime.num_workers();
    let busy: Duration = workers.clone().map(|it| runtime.worker_total_busy_duration(it)).sum();
    let parks: u64 = workers.clone().map(|it| runtime.worker_park_count(it)).sum();
    let (tasks, queued) = (runtime.num_alive_tasks(), runtime.global_queue_depth());
    metric(text, "tokio_workers", "gauge", "Threads that run tasks", workers.len());
    metric(text, "tokio_alive_tasks", "gauge", "Tasks that have not ended", tasks);
    metric(text, "tokio_global_queue_depth", "gauge", "Tasks that wait for any worker", queued);
    let help = "Time that workers ran tasks, all workers together";
    metric(text, "tokio_workers_busy_seconds_total", "counter", help, busy.as_secs_f64());
    let help = "How often workers had nothing to do and went to sleep";
    metric(text, "tokio_workers_parks_total", "counter", help, parks);
}

/// What the process costs, under the names that all Prometheus clients use.
fn process(text: &mut String) {
    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            metric(text, name, kind, help, value);
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in parentheses, may have spaces in it.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Numbered as in proc_pid_stat(5), where the first of these is field 3.
    let field = |number: usize| fields.get(number - 3).and_then(|it| it.parse::<f64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let start = boot.zip(field(22)).map(|(boot, start)| boot + start / ticks);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let page = rustix::param::page_size() as f64;
    let (counter, gauge) = ("counter", "gauge");
    metric("process_cpu_seconds_total", counter, "User and system CPU time", cpu);
    metric("process_start_time_seconds", gauge, "When the process started, since 1970", start);
    metric("process_open_fds", gauge, "Open file descriptors", open);
    let most = limit.current.map(|limit| limit as f64);
    metric("process_max_fds", gauge, "The most file descriptors that can be open", most);
    let resident = field(24).map(|pages| pages * page);
    metric("process_resident_memory_bytes", gauge, "Resident memory", resident);
    metric("process_virtual_memory_bytes", gauge, "Virtual memory", field(23));
    metric("process_threads", gauge, "Threads", field(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_the_process_is_shown() {
        let mut text = String::new();
        process(&mut text);
        for name in ["cpu_seconds_total", "open_fds", "resident_memory_bytes", "start_time_seconds"]
        {
            let line = text.lines().find(|line| line.starts_with(&format!("process_{name} ")));
            let value: f64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
            assert!(value >= 0.0, "{name}");
        }
    }

    #[test]
    fn codes_are_named_by_their_number() {
        assert_eq!(CODES[tonic::Code::Ok as usize], "OK");
        assert_eq!(CODES[tonic::Code::Aborted as usize], "Aborted");
        assert_eq!(CODES[tonic::Code::Unauthenticated as usize], "Unauthenticated");
    }
}
