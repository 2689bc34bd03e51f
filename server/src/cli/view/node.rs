//! The node, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use super::{Span, Time, value_name};
use crate::cli::output::{Show, Tone};
use crate::cli::text::since;

/// One running server.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) hearth_version: String,
    pub(crate) state_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) draining: bool,
    pub(crate) providers: Vec<Provider>,
    pub(crate) capacity: Capacity,
    pub(crate) bounds: Bounds,
    pub(crate) start_time: Option<Time>,
}

/// A configured backend.
#[derive(Debug, Serialize)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) version: String,
    pub(crate) accel: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) unavailable_reason: String,
}

/// What a backend can do.
#[derive(Debug, Serialize)]
pub(crate) struct Capabilities {
    pub(crate) rename: bool,
    pub(crate) stop_keeps: String,
    pub(crate) pause: bool,
    pub(crate) pause_keeps_channels: bool,
    pub(crate) snapshot: bool,
    pub(crate) snapshot_memory: bool,
    pub(crate) snapshot_created: bool,
    pub(crate) snapshot_running: bool,
    pub(crate) freeze: bool,
    pub(crate) artifact_memory: bool,
    pub(crate) freeze_running: bool,
    pub(crate) network_overrides: bool,
    pub(crate) guest_channel: bool,
    pub(crate) console: bool,
    pub(crate) export: bool,
}

/// What there is to run VMs on.
#[derive(Debug, Serialize)]
pub(crate) struct Capacity {
    pub(crate) cpu_count: i32,
    pub(crate) mem_size_mib: i64,
    pub(crate) mem_available_mib: i64,
    pub(crate) max_vms: i32,
    pub(crate) live_vms: i32,
}

/// The server's limits; 0 or `null`: none.
#[derive(Debug, Serialize)]
pub(crate) struct Bounds {
    pub(crate) max_remembered_requests: i64,
    pub(crate) request_retention: Option<Span>,
    pub(crate) max_message_bytes: i64,
    pub(crate) default_page_size: i32,
    pub(crate) max_page_size: i32,
    pub(crate) default_ttl: Option<Span>,
    pub(crate) max_ttl: Option<Span>,
    pub(crate) max_identity_bytes: i32,
    pub(crate) max_labels: i32,
    pub(crate) max_labels_bytes: i32,
    pub(crate) max_waiting: i32,
    pub(crate) max_wait: Option<Span>,
    pub(crate) max_parallel_restores: i32,
    pub(crate) max_watch_lag: i32,
    pub(crate) watch_heartbeat_interval: Option<Span>,
    pub(crate) max_finished_operations: i32,
    pub(crate) max_pool_depth: i32,
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        Self {
            hearth_version: node.hearth_version,
            state_uuid: node.state_uuid,
            boot_id: node.boot_id,
            draining: node.draining,
            providers: node.providers.into_iter().map(Provider::from).collect(),
            capacity: node.capacity.unwrap_or_default().into(),
            bounds: node.bounds.unwrap_or_default().into(),
            start_time: node.start_time.map(Time),
        }
    }
}

impl From<v1::Provider> for Provider {
    fn from(provider: v1::Provider) -> Self {
        Self {
            name: provider.name,
            kind: provider.kind,
            version: provider.version,
            accel: provider.accel,
            capabilities: provider.capabilities.unwrap_or_default().into(),
            unavailable_reason: provider.unavailable_reason,
        }
    }
}

impl From<v1::Capabilities> for Capabilities {
    fn from(it: v1::Capabilities) -> Self {
        let keeps = v1::capabilities::StopKeeps::as_str_name;
        Self {
            rename: it.rename,
            stop_keeps: value_name(it.stop_keeps, keeps, "STOP_KEEPS_"),
            pause: it.pause,
            pause_keeps_channels: it.pause_keeps_channels,
            snapshot: it.snapshot,
            snapshot_memory: it.snapshot_memory,
            snapshot_created: it.snapshot_created,
            snapshot_running: it.snapshot_running,
            freeze: it.freeze,
            artifact_memory: it.artifact_memory,
            freeze_running: it.freeze_running,
            network_overrides: it.network_overrides,
            guest_channel: it.guest_channel,
            console: it.console,
            export: it.export,
        }
    }
}

impl From<v1::Capacity> for Capacity {
    fn from(it: v1::Capacity) -> Self {
        Self {
            cpu_count: it.cpu_count,
            mem_size_mib: it.mem_size_mib,
            mem_available_mib: it.mem_available_mib,
            max_vms: it.max_vms,
            live_vms: it.live_vms,
        }
    }
}

impl From<v1::Bounds> for Bounds {
    fn from(it: v1::Bounds) -> Self {
        Self {
            max_remembered_requests: it.max_remembered_requests,
            request_retention: it.request_retention.map(Span),
            max_message_bytes: it.max_message_bytes,
            default_page_size: it.default_page_size,
            max_page_size: it.max_page_size,
            default_ttl: it.default_ttl.map(Span),
            max_ttl: it.max_ttl.map(Span),
            max_identity_bytes: it.max_identity_bytes,
            max_labels: it.max_labels,
            max_labels_bytes: it.max_labels_bytes,
            max_waiting: it.max_waiting,
            max_wait: it.max_wait.map(Span),
            max_parallel_restores: it.max_parallel_restores,
            max_watch_lag: it.max_watch_lag,
            watch_heartbeat_interval: it.watch_heartbeat_interval.map(Span),
            max_finished_operations: it.max_finished_operations,
            max_pool_depth: it.max_pool_depth,
        }
    }
}

impl Show for Node {
    const HEADINGS: &'static [&'static str] =
        &["VERSION", "DRAINING", "UP", "VMS", "CPUS", "MEMORY FREE", "PROVIDERS"];

    fn name(&self) -> &str {
        &self.state_uuid
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        let memory = &self.capacity;
        vec![
            self.hearth_version.clone(),
            if self.draining { "yes" } else { "no" }.to_owned(),
            since(self.start_time.as_ref().map(|time| &time.0), now),
            memory.live_vms.to_string(),
            memory.cpu_count.to_string(),
            format!("{} of {} MiB", memory.mem_available_mib, memory.mem_size_mib),
            self.providers.iter().map(Provider::title).collect::<Vec<_>>().join(", "),
        ]
    }

    fn tone(&self, heading: &str) -> Tone {
        match heading {
            "DRAINING" if self.draining => Tone::Warn,
            "PROVIDERS" if self.providers.iter().any(|it| !it.unavailable_reason.is_empty()) => {
                Tone::Bad
            }
            _ => Tone::Plain,
        }
    }
}

impl Provider {
    /// `qemu (QEMU 10.0.2, kvm)`, or why it cannot be used.
    fn title(&self) -> String {
        let about: Vec<_> = [&self.kind, &self.version, &self.accel, &self.unavailable_reason]
            .into_iter()
            .filter(|text| !text.is_empty() && **text != self.name)
            .map(String::as_str)
            .collect();
        match about.is_empty() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, about.join(", ")),
        }
    }
}
