//! What ours must show, with the figure that it shows.

use std::fmt;

use hearth_benches::policies::compare::{Comparison, PROMISE};
use hearth_benches::policies::outcome::{Dominance, Outcome};
use hearth_benches::policies::scenario::Scenario;

/// One demand.
pub(crate) struct Demanded {
    /// What is demanded.
    pub(crate) what: String,
    /// What was seen.
    pub(crate) shown: String,
    /// What is allowed.
    pub(crate) bound: String,
    /// Whether that is so.
    pub(crate) is_met: bool,
}

impl fmt::Display for Demanded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.is_met { "yes" } else { "**NO**" };
        write!(f, "| {} | {} | {} | {met} |", self.what, self.shown, self.bound)
    }
}

/// So much of the promise may be missed, at the upper end of the interval.
const OF_PROMISE: f64 = 1.5;
const OF_ORACLE: f64 = 1.1;
/// Idle VMs of those of the smallest fixed depth that misses no more, by trace.
const OF_FIXED: [(&str, f64); 3] =
    [("steady 30 ms", 1.15), ("cycle 30 ms", 0.9), ("cycle 300 ms", 0.6)];
/// Where the rate does not say what comes.
const BURSTY: [&str; 2] = ["bursts", "batches"];

/// Those of one trace.
pub(crate) fn of(scenario: &Scenario, seen: &Comparison) -> Vec<Demanded> {
    let name = scenario.name;
    let mut demands = Vec::new();
    if scenario.must_keep_promise {
        let (upper, most) = (seen.ours.upper(), PROMISE.miss_ratio * OF_PROMISE);
        demands.push(Demanded {
            what: format!("{name}: misses, upper bound"),
            shown: format!("{:.4} %", upper * 100.0),
            bound: format!("{:.2} %", most * 100.0),
            is_met: upper <= most,
        });
        let oracle = ("oracle", &seen.oracle);
        demands.push(idle(name, &seen.ours, oracle, OF_ORACLE));
    }
    if let Some((_, most)) = OF_FIXED.iter().find(|it| it.0 == name) {
        let fixed = ("smallest fixed", &seen.smallest_fixed.1);
        demands.push(idle(name, &seen.ours, fixed, *most));
    }
    if BURSTY.contains(&name) {
        demands.push(undominated(name, seen));
    }
    if let Some(announced) = &seen.announced {
        demands.push(Demanded {
            what: format!("{name}: announced claims that missed"),
            shown: announced.misses().to_string(),
            bound: "0".into(),
            is_met: announced.misses() == 0,
        });
    }
    demands
}

fn idle(name: &str, ours: &Outcome, (whose, theirs): (&str, &Outcome), most: f64) -> Demanded {
    let ratio = ours.idle() / theirs.idle();
    Demanded {
        what: format!("{name}: idle VMs, of those of the {whose}"),
        shown: format!("{ratio:.3}"),
        bound: format!("{most}"),
        is_met: ratio <= most,
    }
}

/// Nobody has fewer misses and fewer idle VMs. The oracles know the future and do not count.
fn undominated(name: &str, seen: &Comparison) -> Demanded {
    let (depth, fixed) = &seen.smallest_fixed;
    let searched = (format!("fixed {depth}"), fixed.clone());
    let fewer = (format!("fixed {}", depth.saturating_sub(1)), seen.one_fewer.clone());
    let rivals = seen.others.iter().chain([&searched, &fewer]);
    let better: Vec<_> = rivals
        .map(|it| (&it.0, it.1.dominates(&seen.ours)))
        .filter(|it| it.1 != Dominance::None)
        .collect();
    let say = |(name, how): &(&String, Dominance)| match how {
        Dominance::ByChance => format!("{name}, within what seeds differ"),
        _ => (*name).clone(),
    };
    Demanded {
        what: format!("{name}: policies with fewer misses and fewer idle VMs"),
        shown: match better.len() {
            0 => "none".into(),
            _ => better.iter().map(say).collect::<Vec<_>>().join("; "),
        },
        bound: "none".into(),
        is_met: better.iter().all(|it| it.1 == Dominance::ByChance),
    }
}
