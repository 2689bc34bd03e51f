//! Why a pool is as deep as it is, and demand that was announced, as they are shown.

use std::fmt::Write as _;
use std::time::SystemTime;

use hearth_proto::v1;
use hearth_proto::v1::explain_pool_response as wire;
use serde::Serialize;

use super::{Pool, Span, Time, value_name};
use crate::cli::output::{Show, facts, plain_table};
use crate::cli::text::{since, until, wire_duration};

/// Why a pool is as deep as it is.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    pub(crate) pool: Pool,
    pub(crate) summary: String,
    pub(crate) claims_per_second: f64,
    pub(crate) restore_time: Option<Span>,
    pub(crate) offered_load: f64,
    pub(crate) target: i32,
    pub(crate) promise_depth: i32,
    pub(crate) peak_depth: i32,
    pub(crate) bound: String,
    pub(crate) predicted_miss_ratio: f64,
    pub(crate) observed_miss_ratio: f64,
    pub(crate) observed_claims: i64,
    pub(crate) restoring: i32,
    pub(crate) max_restoring: i32,
    /// Empty: nothing keeps more from running.
    pub(crate) restore_limit: String,
    pub(crate) misses: Vec<Miss>,
    pub(crate) prewarms: Vec<Prewarm>,
}

/// Acquires that found nothing warm, for one reason.
#[derive(Debug, Serialize)]
pub(crate) struct Miss {
    pub(crate) reason: String,
    pub(crate) count: i64,
    pub(crate) last_time: Option<Time>,
}

/// Demand that was announced.
#[derive(Debug, Serialize)]
pub(crate) struct Prewarm {
    pub(crate) prewarm_id: String,
    pub(crate) pool: String,
    pub(crate) count: i32,
    pub(crate) expire_time: Option<Time>,
    pub(crate) request_id: String,
}

impl From<v1::Prewarm> for Prewarm {
    fn from(it: v1::Prewarm) -> Self {
        Self {
            prewarm_id: it.prewarm_id,
            pool: it.pool,
            count: it.count,
            expire_time: it.expire_time.map(Time),
            request_id: it.request_id,
        }
    }
}

impl Show for Prewarm {
    const HEADINGS: &'static [&'static str] = &["PREWARM", "VMS", "EXPIRES"];

    fn name(&self) -> &str {
        &self.prewarm_id
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        let expires = self.expire_time.as_ref().map(|time| &time.0);
        vec![self.prewarm_id.clone(), self.count.to_string(), until(expires, now)]
    }
}

impl From<v1::ExplainPoolResponse> for Explanation {
    fn from(it: v1::ExplainPoolResponse) -> Self {
        let limit = match it.restore_limit {
            0 => String::new(),
            limit => value_name(limit, wire::RestoreLimit::as_str_name, "RESTORE_LIMIT_"),
        };
        let miss = |miss: wire::Miss| Miss {
            reason: miss.reason,
            count: miss.count,
            last_time: miss.last_time.map(Time),
        };
        Self {
            pool: it.pool.unwrap_or_default().into(),
            summary: it.summary,
            claims_per_second: it.claims_per_second,
            restore_time: it.restore_time.map(Span),
            offered_load: it.offered_load,
            target: it.target,
            promise_depth: it.promise_depth,
            peak_depth: it.peak_depth,
            bound: value_name(it.bound, wire::Bound::as_str_name, "BOUND_"),
            predicted_miss_ratio: it.predicted_miss_ratio,
            observed_miss_ratio: it.observed_miss_ratio,
            observed_claims: it.observed_claims,
            restoring: it.restoring,
            max_restoring: it.max_restoring,
            restore_limit: limit,
            misses: it.misses.into_iter().map(miss).collect(),
            prewarms: it.prewarms.into_iter().map(Prewarm::from).collect(),
        }
    }
}

impl Show for Explanation {
    const HEADINGS: &'static [&'static str] = &["NAME", "TARGET", "BOUND"];

    fn name(&self) -> &str {
        &self.pool.name
    }

    fn row(&self, _: SystemTime) -> Vec<String> {
        vec![self.pool.name.clone(), self.target.to_string(), self.bound.clone()]
    }
}

impl Explanation {
    /// All of it, for people.
    pub(crate) fn to_text(&self, now: SystemTime) -> String {
        let mut text = format!("{}\n\n", self.summary);
        let restore_time = self.restore_time.as_ref().map(|span| &span.0);
        text += &facts(&[
            ("claims per second", format!("{:.3}", self.claims_per_second)),
            ("restore time", wire_duration(restore_time)),
            ("offered load", format!("{:.3}", self.offered_load)),
            ("target", format!("{} ({})", self.target, self.bound)),
            ("for the promise", self.promise_depth.to_string()),
            ("for the peak", self.peak_depth.to_string()),
            ("predicted misses", format!("{:.4} %", self.predicted_miss_ratio * 100.0)),
            (
                "observed misses",
                format!("{:.4} % of {}", self.observed_miss_ratio * 100.0, self.observed_claims),
            ),
            ("restoring", format!("{} of at most {}", self.restoring, self.max_restoring)),
            ("held back by", self.restore_limit.clone()),
        ]);
        let misses = self.misses.iter().map(|miss| {
            let last = since(miss.last_time.as_ref().map(|time| &time.0), now);
            vec![miss.reason.clone(), miss.count.to_string(), format!("{last} ago")]
        });
        let misses: Vec<_> = misses.collect();
        if !misses.is_empty() {
            let _ = write!(text, "\n{}", plain_table(&["MISSES", "COUNT", "LAST"], &misses));
        }
        let prewarms: Vec<_> = self.prewarms.iter().map(|prewarm| prewarm.row(now)).collect();
        if !prewarms.is_empty() {
            let _ = write!(text, "\n{}", plain_table(Prewarm::HEADINGS, &prewarms));
        }
        text
    }
}
