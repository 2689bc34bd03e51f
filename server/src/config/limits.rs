//! The bounds of the pools, as they are written in a configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// See [`hearth_pool::config::Limits`]; durations are written as `10s` or `2min`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Restores at once, over all pools.
    pub max_parallel_restores: usize,
    /// Callers that wait for one pool.
    pub max_waiting: usize,
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
}

impl Default for Limits {
    fn default() -> Self {
        let hearth_pool::config::Limits {
            max_parallel_restores,
            max_waiting,
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
        } = hearth_pool::config::Limits::default();
        Self {
            max_parallel_restores,
            max_waiting,
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
        }
    }
}

impl Limits {
    /// As the pools have them.
    pub(crate) fn to_pool(&self) -> hearth_pool::config::Limits {
        hearth_pool::config::Limits {
            max_parallel_restores: self.max_parallel_restores,
            max_waiting: self.max_waiting,
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
        }
    }
}
