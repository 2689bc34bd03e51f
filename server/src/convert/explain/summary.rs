//! What is measured, decided and missed, in a few sentences for people.

use std::time::Duration;

use hearth_pool::ledger::RestoreLimit;
use hearth_pool::pool::{Plan, PoolStatus};
use hearth_pool::sizing::Bound;

/// Fewer claims a second than this are none, to people.
const ALMOST_NEVER: f64 = 0.0005;

/// What is said of a pool.
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    /// What the last turn of the pool decided, or the node's drain in its place.
    pub(super) plan: Plan,
    /// The largest share of misses that is promised, if any is.
    pub(super) promise: Option<f64>,
    pub(super) status: &'a PoolStatus,
    /// Until a VM is warm, the wait for a place included.
    pub(super) lead_time: Option<Duration>,
    pub(super) max_restoring: usize,
    pub(super) claims: u64,
    pub(super) misses: u64,
    /// The miss that is most frequent.
    pub(super) most_missed: Option<String>,
    /// Why its template has nothing to restore from.
    pub(super) not_ready: Option<String>,
}

impl Facts<'_> {
    /// The share of claims that found nothing warm.
    pub(super) fn observed(&self) -> f64 {
        match self.claims {
            0 => 0.0,
            claims => self.misses as f64 / claims as f64,
        }
    }

    /// How many restores would have to run all the time, where that is more than may.
    fn saturating(&self) -> Option<f64> {
        // What runs, without the wait for a place, which only grows as long as this holds.
        let restore_time = self.status.restore_time?.as_secs_f64();
        let needed = self.plan.depth.claims_per_second * restore_time;
        (needed > self.max_restoring as f64).then_some(needed)
    }
}

/// All of it in a few sentences.
pub(super) fn summary(facts: &Facts<'_>) -> String {
    let sentences = [
        Some(demand(facts)),
        Some(target(facts)),
        Some(misses(facts)),
        restores(facts),
        breaker(facts),
        facts.saturating().map(|needed| {
            format!(
                "Claims come faster than restores follow: {} would have to run at once, and {} \
                 may. No depth helps against that; only faster restores, or more at once, do.",
                number(needed),
                facts.max_restoring
            )
        }),
    ];
    sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn demand(facts: &Facts<'_>) -> String {
    let depth = &facts.plan.depth;
    let claims = match depth.claims_per_second {
        rate if rate < ALMOST_NEVER => format!("Nobody claims from {} now", facts.name),
        rate => format!("{} is claimed from {} times a second", facts.name, number(rate)),
    };
    match facts.lead_time {
        None => format!("{claims}, and no restore has been measured yet."),
        Some(time) => format!(
            "{claims}, and a restore takes {} until its VM is warm: {} claims fall within one.",
            span(time),
            number(depth.offered_load)
        ),
    }
}

fn target(facts: &Facts<'_>) -> String {
    let (depth, status) = (&facts.plan.depth, facts.status);
    let why = match depth.bound {
        Bound::Fixed => "a fixed depth".to_owned(),
        Bound::Promise => match facts.promise {
            Some(promise) => {
                format!("the fewest for at most {} to find nothing warm", percent(promise))
            }
            None => "the fewest that keep the promise".to_owned(),
        },
        Bound::Peak => format!(
            "as many as recent bursts took while one was restored; the promise alone takes {}",
            depth.promise_depth
        ),
        Bound::Min => format!("its min; what it measured takes {}", depth.wanted),
        Bound::Max => {
            format!("its max; the promise takes {}, so it may not be kept", depth.wanted)
        }
        Bound::Budget => format!("all that the node's budget leaves of {}", depth.target),
        Bound::Prewarm => {
            format!("{} of its own and {} that were announced", depth.target, status.prewarmed)
        }
        Bound::Drain => match status.draining {
            true => "the pool is drained".to_owned(),
            false => "the node is drained".to_owned(),
        },
    };
    format!("{} should be warm ({why}), and {} are.", facts.plan.target, status.warm)
}

fn misses(facts: &Facts<'_>) -> String {
    let predicted = percent(facts.plan.depth.predicted_miss_ratio);
    let observed = match (facts.claims, &facts.most_missed) {
        (0, _) => "nobody has asked since the start".to_owned(),
        (claims, None) => format!("none of {claims} did since the start"),
        (claims, Some(reason)) => format!(
            "{} of {claims} did since the start ({}), most of them for {reason}",
            facts.misses,
            percent(facts.observed())
        ),
    };
    let expected = match facts.lead_time {
        Some(_) => format!("Of acquires {predicted} are expected to find nothing warm"),
        None => "How many acquires will find nothing warm is not known yet".to_owned(),
    };
    format!("{expected}; {observed}.")
}

fn restores(facts: &Facts<'_>) -> Option<String> {
    if let Some(why) = &facts.not_ready {
        return Some(format!("Its template is not ready: {why}."));
    }
    let holds = match facts.plan.limit {
        // That is the breaker's own sentence.
        RestoreLimit::None | RestoreLimit::Breaker => "",
        RestoreLimit::Pool => "the pool's max_parallel_restores holds back more",
        RestoreLimit::Node => "the node bears no more now",
        RestoreLimit::Rate => "the rate at which restores may begin holds back more",
        RestoreLimit::Capacity => "the node's budget has no room for more",
        RestoreLimit::Canary => "the rest wait for the first of the new generation",
    };
    let running =
        format!("Restores run: {}, at most {}", facts.status.restoring, facts.max_restoring);
    match (facts.status.restoring, holds) {
        (0, "") => None,
        (_, "") => Some(format!("{running}.")),
        (_, holds) => Some(format!("{running}; {holds}.")),
    }
}

fn breaker(facts: &Facts<'_>) -> Option<String> {
    let status = facts.status;
    let next = match status.breaker_open {
        true => format!("; the next is tried in {}", span(status.retry_after)),
        false => String::new(),
    };
    let failed = status.failures;
    (failed > 0)
        .then(|| format!("Restores failed, {failed} in a row, the last: {}{next}.", status.reason))
}

/// Three significant digits, or fewer.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        some if some > 0.0 && some < 0.001 => "less than 0.001 %".to_owned(),
        some => format!("{} %", number(some)),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{} s", number(seconds)),
        seconds => format!("{} ms", number(seconds * 1e3)),
    }
}

#[cfg(test)]
mod tests;
