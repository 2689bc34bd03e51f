//! The bounds of the pools, as they are written in a configuration.

use std::time::Duration;

use hearth_pool::bucket::Rate;
use hearth_pool::budget::Budget;
use hearth_pool::pool::MAX_DEPTH;
use hearth_pool::tenants::TenantsSettings;
use serde::{Deserialize, Serialize};

/// See [`hearth_pool::config::Limits`]; durations are written as `10s` or `2min`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Restores at once, over all pools.
    pub max_parallel_restores: usize,
    /// How fast restores of pools may begin; unset: as fast as they end.
    pub restore_rate: Option<Rate>,
    /// Callers that wait for one pool.
    pub max_waiting: usize,
    /// Callers that wait, over all pools.
    pub max_waiting_total: usize,
    /// How often a VM that waits is probed; zero: never after it became warm.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Requests remembered, ended ones included.
    pub max_remembered_requests: usize,
    /// How long an acquire waits that has no deadline of its own.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// How long a restore may take, probe included.
    #[serde(with = "humantime_serde")]
    pub restore_timeout: Duration,
    /// How long a probe may take.
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// How long a verb on one VM may take.
    #[serde(with = "humantime_serde")]
    pub verb_timeout: Duration,
    /// How long the build of a template may take.
    #[serde(with = "humantime_serde")]
    pub build_timeout: Duration,
    /// How long a shutdown waits for what is under way.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long freezing a VM may take.
    #[serde(with = "humantime_serde")]
    pub freeze_timeout: Duration,
    /// How long an artifact is kept for which nothing is said.
    #[serde(with = "humantime_serde")]
    pub artifact_ttl: Duration,
    /// How many bytes all artifacts together may take.
    pub max_artifact_bytes: u64,
    /// What all VMs together may use of the node.
    pub budget: Budget,
    /// What tenants may have.
    pub tenants: TenantsSettings,
    /// Calls that last.
    pub streams: Streams,
}

/// What bounds calls that last: watches, consoles, connections to guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Watches at once.
    pub max_watches: usize,
    /// Changes that a watch may lag behind; then it is cut off.
    pub max_watch_lag: usize,
    /// The longest silence of a watch.
    #[serde(with = "humantime_serde")]
    pub watch_heartbeat_interval: Duration,
    /// Consoles that are read at once.
    pub max_consoles: usize,
    /// Connections to guests at once.
    pub max_guest_connections: usize,
    /// How long neither side of a connection to a guest may say anything; then it is cut off.
    #[serde(with = "humantime_serde")]
    pub guest_idle_timeout: Duration,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            max_watches: 1024,
            max_watch_lag: 16_384,
            watch_heartbeat_interval: Duration::from_secs(10),
            max_consoles: 256,
            max_guest_connections: 1024,
            guest_idle_timeout: Duration::from_secs(3600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let hearth_pool::config::Limits {
            max_parallel_restores,
            restore_rate,
            max_waiting,
            max_waiting_total,
            probe_interval,
            max_remembered_requests,
            max_wait,
            restore_timeout,
            probe_timeout,
            verb_timeout,
            build_timeout,
            drain_timeout,
            freeze_timeout,
            artifact_ttl,
            max_artifact_bytes,
            budget,
            tenants,
        } = hearth_pool::config::Limits::default();
        Self {
            max_parallel_restores,
            restore_rate,
            max_waiting,
            max_waiting_total,
            probe_interval,
            max_remembered_requests,
            max_wait,
            restore_timeout,
            probe_timeout,
            verb_timeout,
            build_timeout,
            drain_timeout,
            freeze_timeout,
            artifact_ttl,
            max_artifact_bytes,
            budget,
            tenants,
            streams: Streams::default(),
        }
    }
}

impl Limits {
    /// What is wrong with the tables in it: the key below `limits`, and why.
    pub(super) fn check_tables(&self) -> Result<(), (String, String)> {
        let wrong = |key: String, why: &str| Err((key, why.to_owned()));
        if let Some(why) = self.restore_rate.as_ref().and_then(Rate::check) {
            return wrong("restore_rate".to_owned(), why);
        }
        let Budget { max_vms, max_mem_size_mib, max_vcpus } = self.budget;
        let budget = [
            ("max_vms", max_vms),
            ("max_mem_size_mib", max_mem_size_mib),
            ("max_vcpus", max_vcpus),
        ];
        if let Some((key, _)) = budget.iter().find(|(_, most)| *most == Some(0)) {
            return wrong(format!("budget.{key}"), "it must be positive: with none there is no VM");
        }
        let TenantsSettings { default, named } = &self.tenants;
        if !default.warm_floors.is_empty() {
            let why = "warm VMs can be kept for named tenants only";
            return wrong("tenants.default.warm_floors".to_owned(), why);
        }
        let named = named.iter().map(|(name, tenant)| (format!("named.{name}"), tenant));
        for (path, tenant) in named.chain([("default".to_owned(), default)]) {
            if let Some((key, why)) = tenant.check() {
                return wrong(format!("tenants.{path}.{key}"), why);
            }
            let deep = tenant.warm_floors.iter().find(|(_, floor)| **floor > MAX_DEPTH);
            if let Some((pool, _)) = deep {
                let why = format!("it must be at most {MAX_DEPTH}");
                return wrong(format!("tenants.{path}.warm_floors.{pool}"), &why);
            }
        }
        Ok(())
    }

    /// As the pools have them.
    pub(crate) fn to_pool(&self) -> hearth_pool::config::Limits {
        hearth_pool::config::Limits {
            max_parallel_restores: self.max_parallel_restores,
            restore_rate: self.restore_rate,
            max_waiting: self.max_waiting,
            max_waiting_total: self.max_waiting_total,
            probe_interval: self.probe_interval,
            max_remembered_requests: self.max_remembered_requests,
            max_wait: self.max_wait,
            restore_timeout: self.restore_timeout,
            probe_timeout: self.probe_timeout,
            verb_timeout: self.verb_timeout,
            build_timeout: self.build_timeout,
            drain_timeout: self.drain_timeout,
            freeze_timeout: self.freeze_timeout,
            artifact_ttl: self.artifact_ttl,
            max_artifact_bytes: self.max_artifact_bytes,
            budget: self.budget,
            tenants: self.tenants.clone(),
        }
    }
}
