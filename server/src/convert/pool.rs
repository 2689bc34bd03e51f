//! Pools: their settings in and out, and how they stand.

mod settings;

use std::time::SystemTime;

use hearth_pool::ids::PoolId;
use hearth_pool::journal::Source;
use hearth_pool::pool::{CutOver, Overflow, Pool, PoolConfig, Prewarm, Sizing, WarmState};
use hearth_pool::resolve::{Difference, Resolution};
use hearth_proto::{names, v1};

use super::{count, duration, time};
use crate::call::CallId;
use crate::status;

pub(crate) use hearth_pool::pool::{DEFAULT_MAX_TTL as MAX_TTL, DEFAULT_TTL};
pub(crate) use settings::{PATHS, overflow, paths, settings};

/// A pool on the wire, as it stands at `now`, of a node that drains or does not.
pub(crate) fn to_wire(pool: &Pool, node_drains: bool, now: SystemTime) -> v1::Pool {
    let (status, config) = (pool.status(), pool.config());
    let breaker = v1::pool::Breaker {
        open: status.breaker_open,
        reason: status.reason,
        failures: i32::try_from(status.failures).unwrap_or(i32::MAX),
        retry_time: status.breaker_open.then(|| time(now + status.retry_after)).flatten(),
    };
    v1::Pool {
        status: Some(v1::pool::Status {
            warm: count(status.warm),
            restoring: count(status.restoring),
            leased: count(status.leased),
            quarantined: count(status.quarantined),
            // A node that drains wants nothing warm, whatever its pools would.
            target: if node_drains { 0 } else { count(status.target) },
            waiting: count(status.waiting),
            generation: status.generation,
            breaker: Some(breaker),
            draining: node_drains || status.draining,
            prewarmed: count(status.prewarmed),
            outdated: count(status.outdated),
            not_ready: pool.template().not_ready().unwrap_or_default(),
        }),
        ..config_to_wire(&config)
    }
}

/// A pool's settings on the wire.
pub(crate) fn config_to_wire(config: &PoolConfig) -> v1::Pool {
    use v1::pool::{Overflow as WireOverflow, WarmState as WireWarmState};
    let warm_state = match config.warm_state {
        WarmState::Running => WireWarmState::Running,
        WarmState::Paused => WireWarmState::Paused,
    };
    let overflow = match config.default_overflow {
        Overflow::WarmElseCold => WireOverflow::WarmElseCold,
        Overflow::Wait => WireOverflow::Wait,
        Overflow::WarmOnly => WireOverflow::WarmOnly,
        Overflow::ColdOnly => WireOverflow::ColdOnly,
    };
    let mode = match config.sizing {
        Sizing::Fixed { depth } => {
            v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth: count(depth) })
        }
        Sizing::Promised { miss_ratio, min, max } => {
            let (min, max) = (count(min), count(max));
            v1::sizing::Mode::Promised(v1::sizing::Promised { miss_ratio, min, max })
        }
    };
    let cut_over = match config.rollout.cut_over {
        CutOver::Rolling => v1::pool::CutOver::Rolling,
        CutOver::Immediate => v1::pool::CutOver::Immediate,
    };
    let max_surge = count(config.rollout.max_surge);
    v1::Pool {
        name: names::POOLS.name(config.id.as_str()),
        template: names::TEMPLATES.name(config.template.as_str()),
        sizing: Some(v1::Sizing { mode: Some(mode) }),
        warm_state: warm_state.into(),
        max_warm_age: config.max_warm_age.and_then(duration),
        max_parallel_restores: count(config.max_parallel_restores),
        default_overflow: overflow.into(),
        default_ttl: duration(config.default_ttl),
        max_ttl: duration(config.max_ttl),
        status: None,
        etag: config.etag.clone(),
        create_time: time(config.create_time),
        update_time: time(config.update_time),
        priority: i32::try_from(config.priority).unwrap_or(i32::MAX),
        rollout: Some(v1::pool::Rollout { cut_over: cut_over.into(), max_surge }),
        refill_warm_up: config.warm_up.clone(),
        prefault_memory: config.prefault,
    }
}

/// Announced demand on the wire.
pub(crate) fn prewarm_to_wire(pool: &PoolId, prewarm: &Prewarm) -> v1::Prewarm {
    v1::Prewarm {
        prewarm_id: prewarm.id.clone(),
        pool: names::POOLS.name(pool.as_str()),
        count: count(prewarm.count),
        expire_time: time(prewarm.expire_time),
        request_id: prewarm.request_id.clone(),
    }
}

/// What an acquire would get, on the wire; the cause of a failure is logged under `call`.
pub(crate) fn resolution_to_wire(resolved: Resolution, call: CallId) -> v1::ResolvePoolResponse {
    use v1::acquire_vm_response::Source as Wire;
    let source = match resolved.source {
        Some(Source::Warm) => Wire::Warm,
        Some(Source::Cold) => Wire::Cold,
        None => Wire::Unspecified,
    };
    let difference = |it: Difference| v1::resolve_pool_response::Difference {
        field: it.field.to_owned(),
        requested: it.requested,
        offered: it.offered,
        description: it.description.to_owned(),
    };
    let reason = resolved.reason.as_ref().map(|error| status::reason(error, call));
    let (template, template_generation) = resolved.template;
    v1::ResolvePoolResponse {
        warm: source == Wire::Warm,
        source: source.into(),
        reason: reason.unwrap_or_default().to_owned(),
        differences: resolved.differences.into_iter().map(difference).collect(),
        predicted_wait: resolved.predicted_wait.and_then(duration),
        template: names::TEMPLATES.name(template.as_str()),
        template_generation,
    }
}
