//! A pool as an operator asks for it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::ids::{PoolId, TemplateId};
use crate::sizing::Promise;

/// How many VMs should be warm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// So many.
    Fixed {
        /// How many.
        depth: usize,
    },
    /// As many as the promise needs.
    Promised {
        /// The largest share of acquires that may find nothing warm; above 0 and below 1.
        miss_ratio: f64,
        /// Never fewer.
        min: usize,
        /// Never more.
        max: usize,
    },
}

impl Sizing {
    /// How many are kept in any case.
    pub const fn floor(&self) -> usize {
        match self {
            Self::Fixed { .. } => 0,
            Self::Promised { min, .. } => *min,
        }
    }

    /// The most that it can ask for.
    pub const fn most(&self) -> usize {
        match self {
            Self::Fixed { depth } => *depth,
            Self::Promised { max, .. } => *max,
        }
    }

    /// What is promised, if anything is.
    pub const fn promise(&self) -> Option<Promise> {
        match *self {
            Self::Fixed { .. } => None,
            Self::Promised { miss_ratio, min, max } => Some(Promise { miss_ratio, min, max }),
        }
    }
}

/// How a new generation comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutOver {
    /// VMs of the old one are handed out until new ones have replaced them: nobody misses.
    #[default]
    Rolling,
    /// From the change on none of the old one is handed out.
    Immediate,
}

/// How a new generation of the template, or another template, comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// When the old one is handed out no more.
    pub cut_over: CutOver,
    /// How many VMs more than the target there may be meanwhile; 0: a quarter of the target.
    pub max_surge: usize,
}

/// Demand that was announced: VMs beyond what the pool needs by itself, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prewarm {
    /// Names it within its pool.
    pub id: String,
    /// How many VMs.
    pub count: usize,
    /// When it ends.
    pub expire_time: SystemTime,
    /// The request that announced it; empty: it had none.
    pub request_id: String,
}

/// How VMs wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmState {
    /// They run.
    #[default]
    Running,
    /// They are paused and cost no CPU; the handoff resumes them.
    Paused,
}

/// What happens to an acquire when nothing is warm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It waits, and a restore more is begun for it.
    #[default]
    WarmElseCold,
    /// It waits for one of the pool's own.
    Wait,
    /// It is refused.
    WarmOnly,
    /// It gets a restore of its own even when something is warm.
    ColdOnly,
}

/// A pool as an operator asks for it: as it is journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// Its name.
    pub id: PoolId,
    /// What its VMs are restored from.
    pub template: TemplateId,
    /// How many should be warm.
    pub sizing: Sizing,
    /// How they wait.
    pub warm_state: WarmState,
    /// How old they may get; unset: any age.
    pub max_warm_age: Option<Duration>,
    /// How many are restored at once.
    pub max_parallel_restores: usize,
    /// Who gets more first where the node's budget is not enough for all: the higher.
    #[serde(default)]
    pub priority: u32,
    /// How a new generation comes in.
    #[serde(default)]
    pub rollout: Rollout,
    /// Requests to the agent of every VM that is restored, before it counts as warm.
    #[serde(default)]
    pub warm_up: Vec<String>,
    /// The memory of every VM that is restored while nobody waits for one is read in before it counts
    /// as warm: a wish, which a provider may have no need or no way to do, and which fails no VM.
    #[serde(default)]
    pub prefault: bool,
    /// It is kept empty, and takes no acquires.
    #[serde(default)]
    pub drains: bool,
    /// Announced demand; what has ended is dropped at the next change.
    #[serde(default)]
    pub prewarms: Vec<Prewarm>,
    /// What an acquire does that does not say.
    pub default_overflow: Overflow,
    /// The lease of an acquire that does not say.
    pub default_ttl: Duration,
    /// The longest lease.
    pub max_ttl: Duration,
    /// Changes with every change.
    pub etag: String,
    /// When it was made.
    pub create_time: SystemTime,
    /// When it was last changed.
    pub update_time: SystemTime,
}

/// The lease of an acquire that does not say, in a pool that does not.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// The longest lease, in a pool that does not say.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How many VMs a pool restores at once that does not say.
pub const DEFAULT_PARALLEL_RESTORES: usize = 8;

/// The deepest pool.
pub const MAX_DEPTH: usize = 100_000;

impl PoolConfig {
    /// A pool of depth 0, with every other setting at its default.
    pub fn new(id: PoolId, template: TemplateId) -> Self {
        Self {
            id,
            template,
            sizing: Sizing::Fixed { depth: 0 },
            warm_state: WarmState::default(),
            max_warm_age: None,
            max_parallel_restores: DEFAULT_PARALLEL_RESTORES,
            priority: 0,
            rollout: Rollout::default(),
            warm_up: Vec::new(),
            prefault: false,
            drains: false,
            prewarms: Vec::new(),
            default_overflow: Overflow::default(),
            default_ttl: DEFAULT_TTL,
            max_ttl: DEFAULT_MAX_TTL,
            etag: String::new(),
            create_time: SystemTime::UNIX_EPOCH,
            update_time: SystemTime::UNIX_EPOCH,
        }
    }

    /// Announced demand that has not ended at `now`.
    pub fn prewarms(&self, now: SystemTime) -> impl Iterator<Item = &Prewarm> {
        self.prewarms.iter().filter(move |prewarm| prewarm.expire_time > now)
    }
}
