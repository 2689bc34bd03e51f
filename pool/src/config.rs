//! What bounds the manager, as plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bucket::Rate;
use crate::budget::Budget;
use crate::jobs::Places;
use crate::tenants::TenantsSettings;

/// Bounds of everything that could grow or take for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Restores at once, over all pools; fewer where more would only make each slower.
    pub max_parallel_restores: usize,
    /// How fast restores of pools may begin; unset: as fast as they end.
    pub restore_rate: Option<Rate>,
    /// Callers that wait for one pool.
    pub max_waiting: usize,
    /// Callers that wait, over all pools.
    pub max_waiting_total: usize,
    /// How often a VM that waits is probed; zero: never after it became warm.
    pub probe_interval: Duration,
    /// Requests remembered, ended ones included.
    pub max_remembered_requests: usize,
    /// How long an acquire waits that has no deadline of its own.
    pub max_wait: Duration,
    /// How long a restore may take, probe and warm-up included.
    pub restore_timeout: Duration,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// How long a verb on one VM may take.
    pub verb_timeout: Duration,
    /// How long the build of a template may take.
    pub build_timeout: Duration,
    /// How long a shutdown waits for what is under way.
    pub drain_timeout: Duration,
    /// How long freezing a VM may take.
    pub freeze_timeout: Duration,
    /// How long an artifact is kept for which nothing is said.
    pub artifact_ttl: Duration,
    /// How many bytes all artifacts together may take; no VM is frozen beyond.
    pub max_artifact_bytes: u64,
    /// What all VMs together may use of the node.
    pub budget: Budget,
    /// What tenants may have.
    pub tenants: TenantsSettings,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_parallel_restores: 16,
            restore_rate: None,
            max_waiting: 1024,
            max_waiting_total: 4096,
            probe_interval: Duration::from_secs(30),
            max_remembered_requests: 1_000_000,
            max_wait: Duration::from_secs(60),
            restore_timeout: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(10),
            verb_timeout: Duration::from_secs(60),
            build_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(30),
            freeze_timeout: Duration::from_secs(300),
            artifact_ttl: Duration::from_secs(7 * 24 * 3600),
            max_artifact_bytes: 100 << 30,
            budget: Budget::default(),
            tenants: TenantsSettings::default(),
        }
    }
}

impl Limits {
    /// Places of the job runner.
    pub fn places(&self) -> Places {
        Places { restore: self.max_parallel_restores, ..Places::default() }
    }
}
