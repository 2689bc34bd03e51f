//! One trace's part of the table, as Markdown.

use hearth_benches::policies::compare::Comparison;
use hearth_benches::policies::outcome::Outcome;
use hearth_benches::policies::scenario::Scenario;
use hearth_benches::policies::trace::Spread;

/// Prints what every policy did on `scenario`.
pub(crate) fn print(scenario: &Scenario, comparison: &Comparison) {
    let host = scenario.host;
    let spread = match host.restore.spread {
        Spread::Constant => "constant",
        Spread::Exponential => "exponential",
        Spread::LogNormal => "log-normal",
    };
    let millis = host.restore.mean * 1e3;
    println!("| {} | misses % | idle |", scenario.name);
    println!("|---|---|---|");
    println!("| *restore {millis:.0} ms, {spread}; {} at once* | | |", host.parallel);
    row("**ours**", &comparison.ours);
    let (depth, fixed) = &comparison.smallest_fixed;
    row(&format!("smallest fixed that misses no more: {depth}"), fixed);
    row(&format!("one fewer: {}", depth.saturating_sub(1)), &comparison.one_fewer);
    for (name, outcome) in &comparison.others {
        row(name, outcome);
    }
    row("oracle", &comparison.oracle);
    row("patient oracle", &comparison.patient_oracle);
    if let Some(announced) = &comparison.announced {
        row("ours, every batch announced", announced);
    }
    println!();
}

fn row(name: &str, outcome: &Outcome) {
    let (ratio, reach) = outcome.miss_ratio();
    println!("| {name} | {:.4} ± {:.4} | {:.2} |", ratio * 100.0, reach * 100.0, outcome.idle());
}
