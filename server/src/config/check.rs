//! What has to hold of a configuration as a whole.

use std::time::Duration;

use hearth_pool::pool::MAX_DEPTH;
use hearth_providers::model::{MAX_MEM_SIZE_MIB, MAX_VCPU_COUNT};
use hearth_providers::readiness::MAX_MARKER_BYTES;

use super::Config;
use crate::telemetry;

/// The longest lease that a pool may grant.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Those below are the host's and the hypervisor's.
const MIN_VSOCK_CID: u32 = 3;

impl Config {
    /// Whether the whole can be served.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, why: String| Err((key.to_owned(), why));
        if self.listen == self.admin && self.listen.port() != 0 {
            return wrong("admin", format!("{} is where gRPC is served", self.admin));
        }
        if let Err(why) = telemetry::check(&self.log_level) {
            return wrong("log_level", why);
        }
        self.check_bounds()?;
        self.check_security()?;
        self.check_telemetry()?;
        self.check_providers()?;
        self.check_default_template()?;
        self.check_default_pool()
    }

    fn check_bounds(&self) -> Result<(), (String, String)> {
        let (grpc, limits) = (&self.grpc, &self.limits);
        let positive = [
            ("grpc.max_message_bytes", grpc.max_message_bytes > 0),
            ("grpc.max_buffered_bytes", grpc.max_buffered_bytes > 0),
            ("grpc.max_header_bytes", grpc.max_header_bytes > 0),
            ("grpc.max_concurrent_streams", grpc.max_concurrent_streams > 0),
            ("grpc.max_calls", grpc.max_calls > 0),
            ("grpc.max_calls_per_tenant", grpc.max_calls_per_tenant > 0),
            ("grpc.max_connections", grpc.max_connections > 0),
            ("grpc.max_connections_per_peer", grpc.max_connections_per_peer > 0),
            ("grpc.max_handshakes", grpc.max_handshakes > 0),
            ("grpc.handshake_timeout", !grpc.handshake_timeout.is_zero()),
            ("grpc.request_timeout", !grpc.request_timeout.is_zero()),
            ("grpc.max_idle", !grpc.max_idle.is_zero()),
            ("grpc.max_connection_age", !grpc.max_connection_age.is_zero()),
            ("grpc.max_connection_age_grace", !grpc.max_connection_age_grace.is_zero()),
            ("reload_interval", !self.reload_interval.is_zero()),
            ("grpc.keepalive_interval", !grpc.keepalive_interval.is_zero()),
            ("grpc.keepalive_timeout", !grpc.keepalive_timeout.is_zero()),
            ("grpc.shutdown_timeout", !grpc.shutdown_timeout.is_zero()),
            ("limits.max_parallel_restores", limits.max_parallel_restores > 0),
            ("limits.max_waiting", limits.max_waiting > 0),
            ("limits.max_waiting_total", limits.max_waiting_total > 0),
            ("limits.max_remembered_requests", limits.max_remembered_requests > 0),
            ("limits.max_wait", !limits.max_wait.is_zero()),
            ("limits.restore_timeout", !limits.restore_timeout.is_zero()),
            ("limits.probe_timeout", !limits.probe_timeout.is_zero()),
            ("limits.verb_timeout", !limits.verb_timeout.is_zero()),
            ("limits.build_timeout", !limits.build_timeout.is_zero()),
            ("limits.drain_timeout", !limits.drain_timeout.is_zero()),
            ("limits.freeze_timeout", !limits.freeze_timeout.is_zero()),
            ("limits.artifact_ttl", !limits.artifact_ttl.is_zero()),
            ("limits.streams.max_watches", limits.streams.max_watches > 0),
            ("limits.streams.max_watch_lag", limits.streams.max_watch_lag > 0),
            (
                "limits.streams.watch_heartbeat_interval",
                !limits.streams.watch_heartbeat_interval.is_zero(),
            ),
            ("limits.streams.max_consoles", limits.streams.max_consoles > 0),
            ("limits.streams.max_guest_connections", limits.streams.max_guest_connections > 0),
            ("limits.streams.guest_idle_timeout", !limits.streams.guest_idle_timeout.is_zero()),
            ("default_template.ready_timeout", !self.default_template.ready_timeout.is_zero()),
            ("default_pool.default_ttl", !self.default_pool.default_ttl.is_zero()),
        ];
        if let Some(why) = grpc.wasted_rate.check() {
            return Err(("grpc.wasted_rate".to_owned(), why.to_owned()));
        }
        match positive.iter().find(|(_, holds)| !holds) {
            Some((key, _)) => Err(((*key).to_owned(), "it must be positive".to_owned())),
            None if limits.max_parallel_restores > 1024 => {
                let why = "each is a thread: at most 1024".to_owned();
                Err(("limits.max_parallel_restores".to_owned(), why))
            }
            None => limits.check_tables().map_err(|(key, why)| (format!("limits.{key}"), why)),
        }
    }

    fn check_providers(&self) -> Result<(), (String, String)> {
        for (name, provider) in &self.providers {
            let key = format!("providers.{name}");
            if let Err(error) = hearth_proto::names::check_id(name) {
                return Err((key, error.to_string()));
            }
            provider.check().map_err(|(below, why)| (format!("{key}.{below}"), why))?;
        }
        match &self.default_provider {
            Some(name) if !self.providers.contains_key(name) => {
                let known: Vec<_> = self.providers.keys().map(String::as_str).collect();
                let why = format!("no provider is named {name:?}; there are {}", known.join(", "));
                Err(("default_provider".to_owned(), why))
            }
            _ => Ok(()),
        }
    }

    fn check_default_template(&self) -> Result<(), (String, String)> {
        let template = &self.default_template;
        let wrong = |key: &str, why: String| Err((format!("default_template.{key}"), why));
        if !(1..=MAX_VCPU_COUNT).contains(&template.vcpu_count) {
            return wrong("vcpu_count", format!("it must be 1 to {MAX_VCPU_COUNT}"));
        }
        if !(1..=MAX_MEM_SIZE_MIB).contains(&template.mem_size_mib) {
            return wrong("mem_size_mib", format!("it must be 1 to {MAX_MEM_SIZE_MIB}"));
        }
        if template.ready_timeout > self.limits.build_timeout {
            return wrong("ready_timeout", "it is longer than limits.build_timeout".to_owned());
        }
        let is_marker = |marker: &String| (1..=MAX_MARKER_BYTES).contains(&marker.len());
        if !template.ready_marker.as_ref().is_none_or(is_marker) {
            return wrong("ready_marker", format!("it must have 1 to {MAX_MARKER_BYTES} bytes"));
        }
        if template.vsock_cid.is_some_and(|cid| cid < MIN_VSOCK_CID) {
            return wrong("vsock_cid", format!("it must be at least {MIN_VSOCK_CID}"));
        }
        self.check_default_agent()
    }

    /// Whoever needs the default template's agent must be able to reach it.
    fn check_default_agent(&self) -> Result<(), (String, String)> {
        let template = &self.default_template;
        let provider = self.default_provider().and_then(|name| self.providers.get_key_value(name));
        let Some((name, provider)) = provider else { return Ok(()) };
        // Without a kernel where one must be named the start says so, and what else to name.
        let is_told = template.kernel.is_none() || !template.enabled;
        let (needs, because, otherwise) = match (&template.ready_marker, &*template.warm_up) {
            _ if is_told || !provider.kind.has_agent_by_vsock() => return Ok(()),
            (Some(_), []) => return Ok(()),
            (Some(_), _) => ("warm_up", "its lines are for an agent", ""),
            (None, _) => {
                let otherwise = ", or a text of its console in default_template.ready_marker";
                ("ready_marker", "without one the agent must answer", otherwise)
            }
        };
        let port = format!("providers.{name}.agent_port = PORT");
        let lacks = match (provider.agent_port, template.vsock_cid) {
            (Some(_), Some(_)) => return Ok(()),
            (Some(_), None) => "default_template.vsock_cid = 3".to_owned(),
            (None, Some(_)) => port,
            (None, None) => format!("{port} and default_template.vsock_cid = 3"),
        };
        let why = format!(
            "{because}, and a provider of kind {} reaches agents by vsock only: \
             set {lacks}{otherwise}",
            provider.kind.as_str()
        );
        Err((format!("default_template.{needs}"), why))
    }

    fn check_default_pool(&self) -> Result<(), (String, String)> {
        let pool = &self.default_pool;
        let wrong = |key: &str, why: String| Err((format!("default_pool.{key}"), why));
        match (pool.depth, pool.miss_ratio) {
            (Some(_), Some(_)) => {
                let why = "default_pool.depth is said, too: a pool has the one or the other";
                return wrong("miss_ratio", why.to_owned());
            }
            (_, Some(miss_ratio)) if !(miss_ratio > 0.0 && miss_ratio < 1.0) => {
                return wrong("miss_ratio", "it must be above 0 and below 1".to_owned());
            }
            (_, Some(_)) if pool.max.is_none() => {
                return wrong("miss_ratio", "it needs default_pool.max".to_owned());
            }
            (_, None) if pool.min.is_some() || pool.max.is_some() => {
                let key = if pool.min.is_some() { "min" } else { "max" };
                return wrong(key, "it goes with default_pool.miss_ratio only".to_owned());
            }
            _ => {}
        }
        let most = |depth: Option<usize>| depth.is_some_and(|depth| depth > MAX_DEPTH);
        if let Some((key, _)) =
            [("depth", pool.depth), ("max", pool.max)].iter().find(|(_, depth)| most(*depth))
        {
            return wrong(key, format!("it must be at most {MAX_DEPTH}"));
        }
        if pool.max.is_some_and(|max| max < pool.min.unwrap_or(0).max(1)) {
            let why = "it must be at least 1, and default_pool.min";
            return wrong("max", why.to_owned());
        }
        if pool.max_parallel_restores == Some(0) {
            return wrong("max_parallel_restores", "it must be positive".to_owned());
        }
        if pool.default_ttl > pool.max_ttl {
            return wrong("default_ttl", "it is longer than default_pool.max_ttl".to_owned());
        }
        if pool.max_ttl > MAX_TTL {
            return wrong("max_ttl", "it must be at most 30 days".to_owned());
        }
        Ok(())
    }
}
