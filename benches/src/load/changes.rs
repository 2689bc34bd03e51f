//! Two results of the same kind: what got slower, what faster, and what is noise.
//!
//! Of a run, the seconds are the samples; of a comparison with the floor, the blocks, and only
//! ratios are looked at, since they alone hold across a machine's moods. What has no bounds is
//! shown, and never judged.

use std::fmt;

use super::bounds::{Bounded, Change};
use super::comparison::Comparison;
use super::latencies::Summary;
use super::report::{Report, Settings};
use super::results::Results;
use super::stamp::Stamp;
use super::tally::Second;

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It got worse, beyond noise.
    Slower,
    /// It got better, beyond noise.
    Faster,
    /// It may be as it was.
    Same,
    /// There are no bounds to judge by.
    Unknown,
}

/// A figure before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is of, with its unit.
    pub name: String,
    /// Before.
    pub before: Bounded,
    /// After.
    pub after: Bounded,
    /// How they compare.
    pub judgement: Judgement,
}

/// All figures that both results have.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The figures.
    pub rows: Vec<Row>,
    /// Why the results may not be comparable.
    pub warnings: Vec<String>,
}

impl Changes {
    /// From `before` to `after`.
    ///
    /// # Errors
    /// When they are not of the same command, or of one whose results have no bounds.
    pub fn between(before: &Results, after: &Results) -> Result<Self, String> {
        let rows = match (before, after) {
            (Results::Run(before), Results::Run(after)) => of_runs(before, after),
            (Results::Comparison(before), Results::Comparison(after)) => {
                of_comparisons(before, after)
            }
            _ => {
                return Err(format!(
                    "one is of `{}` and one of `{}`; compared are two of `run`, or two of \
                     `compare-floor`",
                    before.command(),
                    after.command()
                ));
            }
        };
        let ((stamp, settings), (stamp_after, settings_after)) = (before.origin(), after.origin());
        let mut warnings = differences(stamp, stamp_after);
        warnings.extend(other_load(settings, settings_after));
        Ok(Self { rows: rows.into_iter().flatten().collect(), warnings })
    }

    /// Whether anything got worse, beyond noise.
    pub fn is_slower(&self) -> bool {
        self.rows.iter().any(|it| it.judgement == Judgement::Slower)
    }
}

/// A figure that is known within bounds in both; `None` when it is not in both.
fn judged(
    name: &str,
    higher_is_better: bool,
    before: Option<Bounded>,
    after: Option<Bounded>,
) -> Option<Row> {
    let (before, after) = before.zip(after)?;
    let judgement = match (after.change(&before), higher_is_better) {
        (Change::Same, _) => Judgement::Same,
        (Change::Higher, false) | (Change::Lower, true) => Judgement::Slower,
        (Change::Higher, true) | (Change::Lower, false) => Judgement::Faster,
    };
    Some(Row { name: name.to_owned(), before, after, judgement })
}

/// A figure without bounds.
fn shown(name: &str, before: Option<f64>, after: Option<f64>) -> Option<Row> {
    let exactly = |value| Bounded { value, low: value, high: value };
    let (before, after) = (exactly(before?), exactly(after?));
    Some(Row { name: name.to_owned(), before, after, judgement: Judgement::Unknown })
}

fn of_runs(before: &Report, after: &Report) -> Vec<Option<Row>> {
    let both =
        |of: &dyn Fn(&[Second]) -> Option<Bounded>| (of(&before.seconds), of(&after.seconds));
    let median = |of: fn(&Second) -> Option<f64>| {
        both(&move |seconds| Bounded::median(seconds.iter().filter_map(of).collect()))
    };
    let (p50, p50_after) = median(|it| it.p50_us);
    let (p99, p99_after) = median(|it| it.p99_us);
    let (rate, rate_after) = median(|it| Some(it.given as f64));
    let (hits, hits_after) = both(&|seconds| {
        let ratio = |it: &Second| {
            let answered = it.given + it.refused;
            (answered > 0).then(|| it.warm as f64 * 100.0 / answered as f64)
        };
        Bounded::mean(&seconds.iter().filter_map(ratio).collect::<Vec<_>>())
    });
    let mut rows = vec![
        judged("p50 of a second, us", false, p50, p50_after),
        judged("p99 of a second, us", false, p99, p99_after),
        judged("given in a second", true, rate, rate_after),
        judged("hit ratio of a second, %", true, hits, hits_after),
    ];
    for (source, series) in &before.by_source {
        let Some(series_after) = after.by_source.get(source) else { continue };
        for (quantile, of) in QUANTILES {
            let (was, is) = (of(&series.from_due), of(&series_after.from_due));
            rows.push(shown(&format!("{source} {quantile}, us"), was, is));
        }
    }
    if let (Some(was), Some(is)) = (&before.asked, &after.asked) {
        for (quantile, of) in QUANTILES {
            rows.push(shown(&format!("guest's first answer {quantile}, us"), of(was), of(is)));
        }
    }
    rows
}

type Quantile = fn(&Summary) -> Option<f64>;

/// Of the whole run: there is one of each, so that nothing bounds them.
const QUANTILES: [(&str, Quantile); 5] = [
    ("p50", |it| it.p50_us),
    ("p90", |it| it.p90_us),
    ("p99", |it| it.p99_us),
    ("p99.9", |it| it.p99_9_us),
    ("p99.99", |it| it.p99_99_us),
];

fn of_comparisons(before: &Comparison, after: &Comparison) -> Vec<Option<Row>> {
    let mut rows = Vec::new();
    for was in &before.ratios {
        let same = |it: &&super::sides::RatioOf| {
            it.quantile == was.quantile && it.counted_from == was.counted_from
        };
        let is = after.ratios.iter().find(same);
        let bounded =
            |it: &super::sides::RatioOf| Bounded { value: it.ratio, low: it.low, high: it.high };
        let name = format!("{} from {}, ratio", was.quantile, was.counted_from);
        rows.push(judged(&name, false, Some(bounded(was)), is.map(bounded)));
    }
    let rate = |it: &Comparison| {
        it.rate.as_ref().map(|it| Bounded { value: it.ratio, low: it.low, high: it.high })
    };
    rows.push(judged("calls per second, ratio", true, rate(before), rate(after)));
    let hits = |it: &Comparison| {
        Bounded::share(it.hit_ratio, it.hearth.count).map(|it| Bounded {
            value: it.value * 100.0,
            low: it.low * 100.0,
            high: it.high * 100.0,
        })
    };
    rows.push(judged("hit ratio, %", true, hits(before), hits(after)));
    rows
}

/// What of the machine and of the programs differs. That hearth's own version does is the point.
fn differences(before: &Stamp, after: &Stamp) -> Vec<String> {
    let text = |it: &Option<String>| it.clone().unwrap_or_else(|| "unknown".to_owned());
    let known = |it: Option<String>| it.unwrap_or_else(|| "unknown".to_owned());
    let of = |it: &Stamp| {
        [
            ("CPU", text(&it.cpu_model)),
            ("CPUs", known(it.cpu_count.map(|it| it.to_string()))),
            ("memory in MiB", known(it.mem_size_mib.map(|it| it.to_string()))),
            ("kernel", it.kernel.clone()),
            ("governor", text(&it.governor)),
            ("virtual machine", known(it.is_virtualised.map(|it| it.to_string()))),
            ("hearth-bench optimised", it.bench_is_optimised.to_string()),
            ("hearth-bench built by a profile", it.bench_is_profiled.to_string()),
        ]
    };
    let pairs = of(before).into_iter().zip(of(after));
    let differing = pairs.filter(|((_, before), (_, after))| before != after);
    differing.map(|((name, was), (_, is))| format!("{name}: {was}, then {is}")).collect()
}

/// What was asked for that differs; where it was asked for may.
fn other_load(before: &Settings, after: &Settings) -> Option<String> {
    let bare = |it: &Settings| Settings { target: String::new(), ..it.clone() };
    let (before, after) = (bare(before), bare(after));
    (before != after).then(|| "the load is not the same: see `settings` in both files".to_owned())
}

impl fmt::Display for Changes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.warnings.iter().try_for_each(|it| writeln!(out, "NOT ALIKE: {it}"))?;
        writeln!(out, "{:<28} {:>28} {:>28}", "", "before [95 %]", "after [95 %]")?;
        for Row { name, before, after, judgement } in &self.rows {
            let show = |it: &Bounded| match judgement {
                Judgement::Unknown => number(it.value),
                _ => format!("{} [{}, {}]", number(it.value), number(it.low), number(it.high)),
            };
            write!(out, "{name:<28} {:>28} {:>28}  ", show(before), show(after))?;
            let better = if before.value == 0.0 { 0.0 } else { after.value / before.value };
            writeln!(out, "{:>6.2}x  {}", better, judgement.text())?;
        }
        if self.rows.is_empty() {
            writeln!(out, "nothing that both have; a run takes at least 6 seconds")?;
        }
        Ok(())
    }
}

impl Judgement {
    const fn text(self) -> &'static str {
        match self {
            Self::Slower => "SLOWER",
            Self::Faster => "faster",
            Self::Same => "same within noise",
            Self::Unknown => "no bounds",
        }
    }
}

/// Four digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        it if it >= 1000.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests;
