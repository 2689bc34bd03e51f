//! Why a pool is as deep as it is, on the wire and in words.

mod summary;

use std::time::SystemTime;

use hearth_pool::ledger::RestoreLimit;
use hearth_pool::pool::Pool;
use hearth_pool::sizing::{self, Bound};
use hearth_proto::v1;
use hearth_proto::v1::explain_pool_response as wire;

use self::summary::{Facts, summary};
use super::{count, duration, pool, time};
use crate::status;

/// What `pool` of a node that drains or does not measured, decided and missed.
pub(crate) fn explain(pool: &Pool, node_drains: bool, now: SystemTime) -> v1::ExplainPoolResponse {
    let (config, status) = (pool.config(), pool.status());
    let mut plan = pool.planned();
    if node_drains {
        (plan.target, plan.depth.bound, plan.limit) = (0, Bound::Drain, RestoreLimit::None);
        plan.depth.predicted_miss_ratio = sizing::miss_ratio(0, plan.depth.offered_load);
    }
    let (claims, missed) = pool.misses().claims_and_misses();
    let misses: Vec<_> = pool.misses().by_reason().iter().map(miss).collect();
    let wire_pool = pool::to_wire(pool, node_drains, now);
    let facts = Facts {
        name: &wire_pool.name,
        plan,
        promise: config.sizing.promise().map(|it| it.miss_ratio),
        status: &status,
        lead_time: pool.lead_time(),
        max_restoring: pool.max_restoring(),
        claims,
        misses: missed,
        most_missed: misses.first().map(|it| it.reason.clone()),
        not_ready: pool.template().not_ready(),
    };
    v1::ExplainPoolResponse {
        summary: summary(&facts),
        claims_per_second: plan.depth.claims_per_second,
        restore_time: facts.lead_time.and_then(duration),
        offered_load: plan.depth.offered_load,
        target: count(plan.target),
        promise_depth: count(plan.depth.promise_depth),
        peak_depth: count(plan.depth.peak_depth),
        bound: bound(plan.depth.bound).into(),
        predicted_miss_ratio: plan.depth.predicted_miss_ratio,
        observed_miss_ratio: facts.observed(),
        observed_claims: i64::try_from(claims).unwrap_or(i64::MAX),
        restoring: count(status.restoring),
        max_restoring: count(facts.max_restoring),
        restore_limit: restore_limit(plan.limit).into(),
        misses,
        prewarms: config.prewarms(now).map(|it| pool::prewarm_to_wire(&pool.id, it)).collect(),
        pool: Some(wire_pool),
    }
}

fn miss(miss: &hearth_pool::pool::Miss) -> wire::Miss {
    wire::Miss {
        reason: status::reason_of_counted(miss.reason),
        count: i64::try_from(miss.count).unwrap_or(i64::MAX),
        last_time: time(miss.last_time),
    }
}

const fn bound(bound: Bound) -> wire::Bound {
    match bound {
        Bound::Fixed => wire::Bound::Fixed,
        Bound::Promise => wire::Bound::Promise,
        Bound::Peak => wire::Bound::Peak,
        Bound::Min => wire::Bound::Min,
        Bound::Max => wire::Bound::Max,
        Bound::Budget => wire::Bound::Budget,
        Bound::Prewarm => wire::Bound::Prewarm,
        Bound::Drain => wire::Bound::Drain,
    }
}

const fn restore_limit(limit: RestoreLimit) -> wire::RestoreLimit {
    match limit {
        RestoreLimit::None => wire::RestoreLimit::Unspecified,
        RestoreLimit::Pool => wire::RestoreLimit::Pool,
        RestoreLimit::Node => wire::RestoreLimit::Node,
        RestoreLimit::Rate => wire::RestoreLimit::Rate,
        RestoreLimit::Breaker => wire::RestoreLimit::Breaker,
        RestoreLimit::Capacity => wire::RestoreLimit::Capacity,
        RestoreLimit::Canary => wire::RestoreLimit::Canary,
    }
}
