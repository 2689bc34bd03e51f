//! The list of metrics that the API promises, with their labels, held against a scrape.

use std::collections::{BTreeMap, BTreeSet};

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

/// Name, kind, and exactly the labels that it has.
const LISTED: [(&str, &str, &[&str]); 45] = [
    ("hearth_acquires_total", COUNTER, &["pool", "source", "result", "reason"]),
    ("hearth_acquire_duration_seconds", HISTOGRAM, &["pool", "source", "result"]),
    ("hearth_acquire_stage_duration_seconds", HISTOGRAM, &["stage"]),
    ("hearth_restore_duration_seconds", HISTOGRAM, &["provider", "stage"]),
    ("hearth_restore_failures_total", COUNTER, &["provider", "reason"]),
    ("hearth_rename_failures_total", COUNTER, &["reason"]),
    ("hearth_warm_vms", GAUGE, &["pool"]),
    ("hearth_target_vms", GAUGE, &["pool"]),
    ("hearth_restoring_vms", GAUGE, &["pool"]),
    ("hearth_leased_vms", GAUGE, &["pool"]),
    ("hearth_quarantined_vms", GAUGE, &["pool"]),
    ("hearth_oldest_warm_age_seconds", GAUGE, &["pool"]),
    ("hearth_stale_discarded_total", COUNTER, &["pool", "reason"]),
    ("hearth_cold_inflight", GAUGE, &[]),
    ("hearth_cold_rejected_total", COUNTER, &["reason"]),
    ("hearth_demand_claims_per_second", GAUGE, &["pool"]),
    ("hearth_predicted_miss_ratio", GAUGE, &["pool"]),
    ("hearth_refill_saturation_ratio", GAUGE, &["pool"]),
    ("hearth_pool_empty_seconds_total", COUNTER, &["pool"]),
    ("hearth_breaker_open", GAUGE, &["template"]),
    ("hearth_lease_expired_total", COUNTER, &[]),
    ("hearth_orphans_reaped_total", COUNTER, &["kind"]),
    ("hearth_journal_append_duration_seconds", HISTOGRAM, &[]),
    ("hearth_time_to_ready_seconds", HISTOGRAM, &["pool", "source"]),
    ("hearth_identity_steps_total", COUNTER, &["step", "result"]),
    ("hearth_watch_subscribers", GAUGE, &[]),
    ("hearth_build_info", GAUGE, &["version", "profile"]),
    ("hearth_audit_lost_total", COUNTER, &[]),
    ("hearth_spans_dropped_total", COUNTER, &["reason"]),
    ("hearth_connections_refused_total", COUNTER, &["reason"]),
    ("grpc_server_started_total", COUNTER, &["grpc_service", "grpc_method"]),
    ("grpc_server_handled_total", COUNTER, &["grpc_service", "grpc_method", "grpc_code"]),
    ("grpc_server_handling_seconds", HISTOGRAM, &["grpc_service", "grpc_method"]),
    ("process_cpu_seconds_total", COUNTER, &[]),
    ("process_start_time_seconds", GAUGE, &[]),
    ("process_open_fds", GAUGE, &[]),
    ("process_max_fds", GAUGE, &[]),
    ("process_resident_memory_bytes", GAUGE, &[]),
    ("process_virtual_memory_bytes", GAUGE, &[]),
    ("process_threads", GAUGE, &[]),
    ("tokio_workers", GAUGE, &[]),
    ("tokio_alive_tasks", GAUGE, &[]),
    ("tokio_global_queue_depth", GAUGE, &[]),
    ("tokio_workers_busy_seconds_total", COUNTER, &[]),
    ("tokio_workers_parks_total", COUNTER, &[]),
];

/// What a name may end in.
const ENDS: [(&str, &str); 2] = [(COUNTER, "_total"), (HISTOGRAM, "_seconds")];

/// Everything that is listed is in `text` with its kind, its meaning and its labels, and so is nothing
/// of ours that is not listed.
pub(crate) fn check(text: &str) {
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(kinds.insert(rest.split(' ').next().unwrap(), rest).is_none(), "twice: {rest}");
        } else if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|it| it.split_once(' '))
        {
            helps.insert(name, help);
        } else if let Some(end) =
            line.find(['{', ' ']).filter(|_| line.starts_with(char::is_alphabetic))
        {
            let name = &line[..end];
            let suffixes = ["_bucket", "_sum", "_count"];
            let family = suffixes.iter().filter_map(|it| name.strip_suffix(it));
            let family = family.clone().find(|it| kinds.contains_key(it)).unwrap_or(name);
            labels.entry(family).or_default().extend(label_names(&line[end..]));
        }
    }
    for (name, kind, wanted) in LISTED {
        assert_eq!(kinds.get(name), Some(&format!("{name} {kind}").as_str()));
        assert!(helps.get(name).is_some_and(|help| help.len() > 5), "{name} is not explained");
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        let found = labels.get(name).cloned().unwrap_or_default();
        assert_eq!(
            found.iter().filter(|it| **it != "le").copied().collect::<BTreeSet<_>>(),
            wanted,
            "{name}"
        );
        for (kind, end) in ENDS.iter().filter(|it| it.0 == kind) {
            assert!(name.ends_with(end), "{name}, a {kind}, does not end in {end}");
        }
    }
    for name in kinds.keys() {
        assert!(LISTED.iter().any(|it| it.0 == *name), "{name} is not listed");
    }
    check_page(&helps);
}

/// The page of the documentation has a row for each, as it is.
fn check_page(helps: &BTreeMap<&str, &str>) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (name, kind, labels) in LISTED {
        let mut labels: Vec<_> = labels.iter().map(|it| format!("`{it}`")).collect();
        labels.sort();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let row = format!("| `{name}` | {kind} | {labels} | {} |", helps[name]);
        assert!(page.lines().any(|line| line == row), "docs/metrics.md has no row {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, LISTED.len());
}

fn label_names(rest: &str) -> Vec<&str> {
    // Up to a value's end each name is followed by `="`.
    let Some((labels, _)) = rest.strip_prefix('{').and_then(|it| it.rsplit_once('}')) else {
        return Vec::new();
    };
    let parts = labels.split("=\"").map(|it| it.rsplit_once("\",").map_or(it, |it| it.1));
    let mut names: Vec<_> = parts.collect();
    names.pop();
    names
}
