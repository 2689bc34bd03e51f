//! A pool, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use super::{Span, Time, value_name};
use crate::cli::output::{Show, Tone};
use crate::cli::text::{id_of, until, wire_duration};

/// A pool.
#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) template: String,
    pub(crate) sizing: Sizing,
    pub(crate) warm_state: String,
    pub(crate) max_warm_age: Option<Span>,
    pub(crate) max_parallel_restores: i32,
    pub(crate) default_overflow: String,
    pub(crate) default_ttl: Option<Span>,
    pub(crate) max_ttl: Option<Span>,
    pub(crate) status: PoolStatus,
    pub(crate) etag: String,
    pub(crate) create_time: Option<Time>,
    pub(crate) update_time: Option<Time>,
    pub(crate) priority: i32,
    pub(crate) rollout: Rollout,
    pub(crate) refill_warm_up: Vec<String>,
    pub(crate) prefault_memory: bool,
}

/// How a new generation comes in.
#[derive(Debug, Serialize)]
pub(crate) struct Rollout {
    pub(crate) cut_over: String,
    pub(crate) max_surge: i32,
}

/// How many VMs a pool keeps; one of the two.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Sizing {
    pub(crate) fixed: Option<Fixed>,
    pub(crate) promised: Option<Promised>,
}

/// A number.
#[derive(Debug, Serialize)]
pub(crate) struct Fixed {
    pub(crate) depth: i32,
}

/// A promise.
#[derive(Debug, Serialize)]
pub(crate) struct Promised {
    pub(crate) miss_ratio: f64,
    pub(crate) min: i32,
    pub(crate) max: i32,
}

/// What a pool has and does.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PoolStatus {
    pub(crate) warm: i32,
    pub(crate) restoring: i32,
    pub(crate) leased: i32,
    pub(crate) quarantined: i32,
    pub(crate) target: i32,
    pub(crate) waiting: i32,
    pub(crate) generation: i64,
    pub(crate) breaker: Breaker,
    pub(crate) draining: bool,
    pub(crate) prewarmed: i32,
    pub(crate) outdated: i32,
    pub(crate) not_ready: String,
}

/// Whether restores are held back.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Breaker {
    pub(crate) open: bool,
    pub(crate) reason: String,
    pub(crate) failures: i32,
    pub(crate) retry_time: Option<Time>,
}

impl From<v1::Pool> for Pool {
    fn from(pool: v1::Pool) -> Self {
        use v1::pool::{CutOver, Overflow, WarmState};
        let sizing = match pool.sizing.and_then(|sizing| sizing.mode) {
            None => Sizing::default(),
            Some(v1::sizing::Mode::Fixed(it)) => {
                Sizing { fixed: Some(Fixed { depth: it.depth }), promised: None }
            }
            Some(v1::sizing::Mode::Promised(it)) => Sizing {
                fixed: None,
                promised: Some(Promised { miss_ratio: it.miss_ratio, min: it.min, max: it.max }),
            },
        };
        let status = pool.status.unwrap_or_default();
        let breaker = status.breaker.unwrap_or_default();
        let rollout = pool.rollout.unwrap_or_default();
        Self {
            name: pool.name,
            template: pool.template,
            sizing,
            warm_state: value_name(pool.warm_state, WarmState::as_str_name, "WARM_STATE_"),
            max_warm_age: pool.max_warm_age.map(Span),
            max_parallel_restores: pool.max_parallel_restores,
            default_overflow: value_name(pool.default_overflow, Overflow::as_str_name, "OVERFLOW_"),
            default_ttl: pool.default_ttl.map(Span),
            max_ttl: pool.max_ttl.map(Span),
            status: PoolStatus {
                warm: status.warm,
                restoring: status.restoring,
                leased: status.leased,
                quarantined: status.quarantined,
                target: status.target,
                waiting: status.waiting,
                generation: status.generation,
                breaker: Breaker {
                    open: breaker.open,
                    reason: breaker.reason,
                    failures: breaker.failures,
                    retry_time: breaker.retry_time.map(Time),
                },
                draining: status.draining,
                prewarmed: status.prewarmed,
                outdated: status.outdated,
                not_ready: status.not_ready,
            },
            etag: pool.etag,
            create_time: pool.create_time.map(Time),
            update_time: pool.update_time.map(Time),
            priority: pool.priority,
            rollout: Rollout {
                cut_over: value_name(rollout.cut_over, CutOver::as_str_name, "CUT_OVER_"),
                max_surge: rollout.max_surge,
            },
            refill_warm_up: pool.refill_warm_up,
            prefault_memory: pool.prefault_memory,
        }
    }
}

impl Show for Pool {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "TEMPLATE", "WARM", "TARGET", "RESTORING", "LEASED", "WAITING", "TTL", "NOTE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        let status = &self.status;
        let retry = status.breaker.retry_time.as_ref().map(|time| &time.0);
        let note = match (&status.breaker, status.draining) {
            (_, true) => "draining".to_owned(),
            _ if !status.not_ready.is_empty() => format!("no template: {}", status.not_ready),
            (breaker, _) if breaker.open => {
                format!("restores fail, next in {}: {}", until(retry, now), breaker.reason)
            }
            (breaker, _) if breaker.failures > 0 => format!("a restore failed: {}", breaker.reason),
            _ if status.outdated > 0 => format!("{} of an older generation", status.outdated),
            _ if status.prewarmed > 0 => format!("{} announced", status.prewarmed),
            _ if status.quarantined > 0 => format!("{} quarantined", status.quarantined),
            _ => String::new(),
        };
        vec![
            id_of(&self.name).to_owned(),
            format!("{}@{}", id_of(&self.template), status.generation),
            status.warm.to_string(),
            status.target.to_string(),
            status.restoring.to_string(),
            status.leased.to_string(),
            status.waiting.to_string(),
            wire_duration(self.default_ttl.as_ref().map(|span| &span.0)),
            note,
        ]
    }

    fn tone(&self, heading: &str) -> Tone {
        let status = &self.status;
        match heading {
            "WARM" if status.warm < status.target => Tone::Warn,
            "WARM" => Tone::Good,
            "NOTE" if status.breaker.open || !status.not_ready.is_empty() => Tone::Bad,
            "NOTE" => Tone::Warn,
            _ => Tone::Plain,
        }
    }

    fn line(&self) -> String {
        let PoolStatus { warm, target, restoring, leased, .. } = self.status;
        let name = &self.name;
        let note = match self.status.not_ready.as_str() {
            "" => String::new(),
            why => format!(", no template: {why}"),
        };
        format!("{name} warm {warm} of {target}, restoring {restoring}, leased {leased}{note}")
    }
}
