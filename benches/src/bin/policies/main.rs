//! How many VMs should be warm: policies against each other on the same claims, and whether ours
//! shows what it must.
//!
//! `policies` prints the table and the demands, and fails if one is not met. `policies --trace FILE`
//! takes the claims from a file, one time in seconds a line, and prints the table alone;
//! `--restore-ms` and `--parallel` say what the host does.

mod cost;
mod demands;
mod table;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use hearth_benches::policies::compare::{Extent, compare};
use hearth_benches::policies::scenario::Scenario;
use hearth_benches::policies::simulate::Host;
use hearth_benches::policies::trace::{Restore, Shape, Spread, read};

/// The full extent: the first claims fill the pools and teach the policies, and are not counted.
const FULL: Extent = Extent { seeds: 10, claims: 1_000_000, warm_up: 20_000 };

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(path) = value(&arguments, "--trace")? {
        recorded(&path, &arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.is_empty() {
        return Err("usage: policies [--trace FILE [--restore-ms N] [--parallel N]]".into());
    }
    let Extent { seeds, claims, warm_up } = FULL;
    println!(
        "{seeds} seeds x {claims} claims, after {warm_up} that are not counted. \
         Each cell: misses in % with their 95 % interval / idle VMs on average.\n"
    );
    let mut compared = Vec::new();
    for scenario in Scenario::all() {
        let comparison = compare(&scenario, FULL);
        table::print(&scenario, &comparison);
        compared.push((scenario, comparison));
    }
    let mut demands: Vec<_> = compared.iter().flat_map(|it| demands::of(&it.0, &it.1)).collect();
    demands.push(cost::measure());
    println!("| demand | shown | bound | met |\n|---|---|---|---|");
    demands.iter().for_each(|it| println!("{it}"));
    let met = demands.iter().all(|it| it.is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The table for the claims of a file, with ten seeds of restore times.
fn recorded(path: &str, arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let times = read(&std::fs::read_to_string(path)?)?;
    let restore = value(arguments, "--restore-ms")?.map_or(Ok(30), |it| it.parse())?;
    let parallel = value(arguments, "--parallel")?.map_or(Ok(16), |it| it.parse())?;
    let mean = Duration::from_millis(restore).as_secs_f64();
    let host = Host { restore: Restore { mean, spread: Spread::LogNormal }, parallel };
    let extent = Extent { seeds: 10, claims: times.len(), warm_up: 0 };
    let shape = Shape::Recorded(times);
    let scenario = Scenario { name: "recorded", shape, host, must_keep_promise: false };
    table::print(&scenario, &compare(&scenario, extent));
    Ok(())
}

fn value(arguments: &[String], name: &str) -> Result<Option<String>, String> {
    let Some(at) = arguments.iter().position(|it| it == name) else { return Ok(None) };
    arguments.get(at + 1).cloned().map(Some).ok_or_else(|| format!("{name} takes a value"))
}
