//! The node, its providers and its bounds on the wire.

use std::time::SystemTime;

use hearth_pool::config::Limits;
use hearth_pool::manager::{Manager, Phase};
use hearth_pool::pool::{MAX_DEPTH, Provider};
use hearth_pool::requests::REMEMBERED_FOR;
use hearth_proto::v1;
use hearth_providers::capabilities::{RunningSnapshot, StopKeeps};
use hearth_providers::usage::Usage;

use super::{count, duration, pool, time};
use crate::config::Streams;
use crate::{check, paging};

/// The node that `manager` manages.
pub(crate) fn node(
    manager: &Manager,
    start_time: SystemTime,
    (max_message_bytes, streams): (usize, &Streams),
) -> v1::Node {
    let providers = manager.providers();
    let live_vms = providers.iter().map(|it| it.runtime.list_vms().len()).sum();
    v1::Node {
        hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
        state_uuid: manager.state_uuid().to_string(),
        boot_id: manager.boot_id().to_string(),
        draining: manager.phase() == Phase::Draining,
        providers: providers.iter().map(|it| provider(it)).collect(),
        capacity: Some(capacity(manager.limits(), live_vms)),
        bounds: Some(bounds(manager.limits(), max_message_bytes, streams)),
        start_time: time(start_time),
        usage: Vec::new(),
    }
}

/// What a provider has on disk.
pub(crate) fn usage(provider: &str, used: &Usage) -> [v1::Usage; 4] {
    let kinds = [
        ("instances", used.instances),
        ("quarantine", used.quarantine),
        ("snapshots", used.snapshots),
        ("artifacts", used.artifacts),
    ];
    kinds.map(|(kind, share)| v1::Usage {
        provider: provider.to_owned(),
        kind: kind.to_owned(),
        count: i64::try_from(share.count).unwrap_or(i64::MAX),
        size_bytes: i64::try_from(share.bytes).unwrap_or(i64::MAX),
    })
}

fn provider(provider: &Provider) -> v1::Provider {
    let facts = provider.runtime.describe();
    let fact = |wanted: &str| {
        let found = facts.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let can = provider.runtime.capabilities();
    let stop_keeps = match can.stop_keeps {
        StopKeeps::Memory => v1::capabilities::StopKeeps::Memory,
        StopKeeps::Disk => v1::capabilities::StopKeeps::Disk,
    };
    v1::Provider {
        name: provider.name.to_string(),
        kind: provider.kind.clone(),
        version: fact("version"),
        accel: accel(&fact("accel"), &fact("kvm")),
        capabilities: Some(v1::Capabilities {
            rename: can.rename,
            stop_keeps: stop_keeps.into(),
            pause: can.stop_keeps == StopKeeps::Memory,
            pause_keeps_channels: can.pause_keeps_channels,
            snapshot: can.restore,
            snapshot_memory: can.memory_in_snapshots,
            snapshot_created: can.snapshot_created,
            snapshot_running: can.snapshot_running == RunningSnapshot::Pauses,
            freeze: can.restore,
            artifact_memory: can.restore && can.memory_in_artifacts,
            freeze_running: can.restore && can.snapshot_running == RunningSnapshot::Pauses,
            network_overrides: can.network_overrides,
            guest_channel: can.connect,
            console: can.console,
            export: can.export,
        }),
        unavailable_reason: String::new(),
    }
}

/// How guests execute; a provider that has KVM only says of it what backs it.
fn accel(accel: &str, kvm: &str) -> String {
    match (accel, kvm) {
        ("" | "none", kvm) if kvm.is_empty() || kvm.starts_with("none") => String::new(),
        ("" | "none", _) => "kvm".to_owned(),
        (accel, _) => accel.to_owned(),
    }
}

fn capacity(limits: &Limits, live_vms: usize) -> v1::Capacity {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mib = |key: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<i64>().ok());
        kib.unwrap_or(0) / 1024
    };
    v1::Capacity {
        cpu_count: std::thread::available_parallelism().map_or(0, |cpus| count(cpus.get())),
        mem_size_mib: mib("MemTotal"),
        mem_available_mib: mib("MemAvailable"),
        max_vms: limits.budget.max_vms.map_or(0, |most| i32::try_from(most).unwrap_or(i32::MAX)),
        live_vms: count(live_vms),
    }
}

fn bounds(limits: &Limits, max_message_bytes: usize, streams: &Streams) -> v1::Bounds {
    let long = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let label_bytes = check::MAX_LABEL_KEY_BYTES + check::MAX_LABEL_VALUE_BYTES;
    v1::Bounds {
        max_remembered_requests: long(limits.max_remembered_requests),
        request_retention: duration(REMEMBERED_FOR),
        max_message_bytes: long(max_message_bytes),
        default_page_size: count(paging::DEFAULT_PAGE_SIZE),
        max_page_size: count(paging::MAX_PAGE_SIZE),
        default_ttl: duration(pool::DEFAULT_TTL),
        max_ttl: duration(pool::MAX_TTL),
        max_identity_bytes: 0,
        max_labels: count(check::MAX_LABELS),
        max_labels_bytes: count(check::MAX_LABELS * label_bytes),
        max_waiting: count(limits.max_waiting_total),
        max_wait: duration(limits.max_wait),
        max_parallel_restores: count(limits.max_parallel_restores),
        max_watch_lag: count(streams.max_watch_lag),
        watch_heartbeat_interval: duration(streams.watch_heartbeat_interval),
        max_finished_operations: 1000,
        max_pool_depth: count(MAX_DEPTH),
    }
}
