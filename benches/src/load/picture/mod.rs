//! Results as a picture, in SVG: two panels that are readable on light and on dark.
//!
//! Of a run, latency by percentile and rates over time; of a comparison, both latencies and their
//! ratios; of rates one after another, latency by rate and what was achieved. [`scale`] says where a
//! value is, [`panel`] draws.

mod panel;
mod scale;

use self::panel::{Axis, Curve, Panel, text};
use self::scale::Scale;
use super::comparison::Comparison;
use super::latencies::Summary;
use super::report::Report;
use super::results::Results;
use super::steps::Step;

/// Width and height of a picture.
const SIZE: (f64, f64) = (960.0, 440.0);

/// Colours tell apart what is also named; they are those that most eyes can tell apart. The third is
/// dashed, so that what it covers is seen: where all that is achieved is warm, the curves are one.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:bold;font-size:14px}\
.grid{stroke:#888;stroke-opacity:.3}.axis{stroke:#888}.curve{fill:none;stroke-width:2}\
.bar{stroke-width:2}.c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73;stroke-dasharray:5 4}.c3{stroke:#cc79a7}\
.c4{stroke:#888}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.c0{stroke:#56b4e9}.c1{stroke:#e69f00}\
.c2{stroke:#2bd4a4}.c3{stroke:#e8a9cb}}";

/// Draws `results`.
pub fn draw(results: &Results) -> String {
    let (left, right) = match results {
        Results::Run(report) => (of_sources(report), of_seconds(report)),
        Results::Comparison(comparison) => (of_sides(comparison), of_ratios(comparison)),
        Results::Steps(steps) => of_steps(&steps.steps),
        Results::Saturated(saturated) => {
            let mut steps = saturated.saturation.steps.clone();
            steps.sort_by(|one, other| one.offered_per_s.total_cmp(&other.offered_per_s));
            of_steps(&steps)
        }
    };
    let (stamp, settings) = results.origin();
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <style>{STYLE}</style>\n"
    );
    let load = format!("{}: {}, {} s", settings.target, settings.arrivals, settings.duration_s);
    svg.push_str(&text((60.0, 22.0), "class=\"title\"", &load));
    let machine = stamp.lines();
    for (line, y) in machine.iter().take(2).zip([height - 22.0, height - 6.0]) {
        svg.push_str(&text((60.0, y), "opacity=\".7\"", line));
    }
    left.draw(&mut svg, 60.0, 0);
    right.draw(&mut svg, 550.0, 0);
    svg.push_str("</svg>\n");
    svg
}

fn curve(name: &str, points: Vec<(f64, f64)>) -> Curve {
    Curve { name: name.to_owned(), points, intervals: Vec::new() }
}

/// Latency by percentile, a curve for each of these.
fn by_percentile<'a>(of: impl Iterator<Item = (&'a str, &'a Summary)>) -> Panel {
    let mut curves = Vec::new();
    let mut nines: f64 = 1.0;
    for (name, summary) in of.filter(|(_, summary)| summary.count > 0) {
        // The longest is as far out as there are values to show it.
        let last = (summary.count as f64).log10();
        nines = nines.max(last);
        let place = |quantile: f64| scale::nines(quantile).map_or(last, |it| it.min(last));
        let points = summary.distribution.iter().filter(|it| it.latency_us > 0.0);
        curves.push(curve(name, points.map(|it| (place(it.quantile), it.latency_us)).collect()));
    }
    let x = Axis { name: "percentile".to_owned(), scale: Scale::Nines(nines) };
    Panel { x, y: latencies(&curves), curves }
}

/// A logarithmic axis that has all of the curves.
fn latencies(curves: &[Curve]) -> Axis {
    let values = curves.iter().flat_map(|it| it.points.iter().map(|(_, y)| *y));
    Axis { name: "latency".to_owned(), scale: Scale::log(values) }
}

/// A linear axis from 0 that has all of the curves.
fn from_zero(name: &str, curves: &[Curve], of: impl Fn(&(f64, f64)) -> f64) -> Axis {
    let values = curves.iter().flat_map(|it| it.points.iter().map(&of));
    Axis { name: name.to_owned(), scale: Scale::from_zero(values.fold(0.0, f64::max)) }
}

fn of_sources(report: &Report) -> Panel {
    by_percentile(report.by_source.iter().map(|(name, it)| (name.as_str(), &it.from_due)))
}

fn of_seconds(report: &Report) -> Panel {
    let rate = |of: fn(&super::tally::Second) -> u64| {
        report.seconds.iter().map(|it| (it.second as f64, of(it) as f64)).collect::<Vec<_>>()
    };
    let mut curves =
        vec![curve("offered", rate(|it| it.due)), curve("achieved", rate(|it| it.given))];
    if report.pool_before.is_some() {
        curves.push(curve("warm", rate(|it| it.warm)));
    }
    let x = from_zero("seconds", &curves, |it| it.0);
    Panel { x, y: from_zero("calls per second", &curves, |it| it.1), curves }
}

fn of_sides(comparison: &Comparison) -> Panel {
    let sides = [("hearth, warm", &comparison.hearth), ("floor", &comparison.floor)];
    by_percentile(sides.into_iter())
}

fn of_ratios(comparison: &Comparison) -> Panel {
    let mut names: Vec<String> = Vec::new();
    let mut curves: Vec<Curve> = Vec::new();
    for it in &comparison.ratios {
        if !names.contains(&it.quantile) {
            names.push(it.quantile.clone());
        }
        let x = names.iter().position(|name| *name == it.quantile).unwrap_or_default() as f64;
        let name = format!("latency from {}, hearth / floor", it.counted_from);
        if curves.last().is_none_or(|last| last.name != name) {
            curves.push(curve(&name, Vec::new()));
        }
        if let Some(last) = curves.last_mut() {
            last.points.push((x, it.ratio));
            last.intervals.push((x, it.low, it.high));
        }
    }
    if let Some(rate) = &comparison.rate {
        let x = names.len() as f64;
        names.push("per second".to_owned());
        let mut rates = curve("calls per second, hearth / floor", vec![(x, rate.ratio)]);
        rates.intervals.push((x, rate.low, rate.high));
        curves.push(rates);
    }
    // A little beside each other, so that no interval covers another.
    for (number, curve) in curves.iter_mut().enumerate() {
        let by = 0.08 * number as f64;
        curve.points.iter_mut().for_each(|it| it.0 += by);
        curve.intervals.iter_mut().for_each(|it| it.0 += by);
    }
    let high = curves.iter().flat_map(|it| it.intervals.iter().map(|it| it.2)).fold(1.0, f64::max);
    let x = Axis { name: "quantile".to_owned(), scale: Scale::Names(names) };
    let y = Axis { name: "ratio".to_owned(), scale: Scale::from_zero(high) };
    Panel { x, y, curves }
}

fn of_steps(steps: &[Step]) -> (Panel, Panel) {
    let by_rate = |of: fn(&Step) -> Option<f64>| {
        let points = steps.iter().filter_map(|it| Some((it.offered_per_s, of(it)?)));
        points.collect::<Vec<_>>()
    };
    let quantiles = vec![
        curve("p50", by_rate(|it| it.p50_us)),
        curve("p99", by_rate(|it| it.p99_us)),
        curve("p99.9", by_rate(|it| it.p99_9_us)),
    ];
    let rates = vec![
        curve("offered", by_rate(|it| Some(it.offered_per_s))),
        curve("achieved", by_rate(|it| Some(it.achieved_per_s))),
    ];
    let x = || from_zero("offered per second", &rates, |it| it.0);
    let left = Panel { x: x(), y: latencies(&quantiles), curves: quantiles };
    let y = from_zero("calls per second", &rates, |it| it.1);
    (left, Panel { x: x(), y, curves: rates })
}

#[cfg(test)]
mod tests;
