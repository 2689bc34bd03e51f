//! `budgets`: everything that docs/performance.md claims, measured in one run.
//!
//! Each part measures ours and what it is held against in blocks that take turns, and answers rows:
//! budget, figure, interval, met or not. Without arguments it runs the parts that end within a few
//! minutes; `--full` runs all of them, and naming parts runs those. How long each took is said beside. What a part needs and does not
//! find is said in its rows: nothing is shown as met that was not measured.
//!
//! The exit code is 0 when no budget that was measured is missed, 1 when one is, and 2 when a part has failed.

mod capacity;
mod grpc;
mod handoff;
mod inside;
mod metrics;
mod operator;
#[cfg(feature = "peers")]
mod peers;
mod refill;
mod restart;
mod restore;
mod rig;
mod scale;
mod stand_in;
mod turns;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use grpc::With;
use hearth_benches::budget::{Figure, Row, table};
use hearth_benches::load::stamp::Stamp;
use serde::Serialize;
use tokio::time::Instant;

#[derive(Debug, Parser)]
#[command(name = "budgets", version, about = "Measure the budgets of docs/performance.md")]
struct Arguments {
    /// What to measure; those that end within a few minutes when none is named.
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Measure everything, and more of it.
    #[arg(long)]
    full: bool,
    /// Make this share of the calls over gRPC, to see that it runs: the tail is not measured then.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = parse_share)]
    share: f64,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A warm acquire in process, against a journal append and a rename.
    Handoff,
    /// A warm acquire in process where there is much, against one where there is little.
    Scale,
    /// What is recorded of an acquire, and a scrape of many pools, against what they may take.
    Metrics,
    /// Calls over gRPC, against an empty call on the same stack.
    Grpc,
    /// The same with tokens, a tenant's bounds and an audit, and beside a plain hearth.
    Tokens,
    /// The same with certificates of both, over TLS.
    Mtls,
    /// The same with spans exported, metrics scraped, and a log of everything down to debug.
    Traces,
    /// A restore through a provider, against the same by a bare driver.
    Restore,
    /// A pool that fills, against so many restores by a bare driver.
    Refill,
    /// A start that finds many VMs.
    Restart,
    /// What a hearth keeps in memory for each VM, lease and request.
    Capacity,
    /// Beside the nearest peer.
    #[cfg(feature = "peers")]
    Peers,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Extent {
    is_full: bool,
    /// Of the calls over gRPC.
    share: f64,
}

impl Extent {
    /// So many calls, or the share of them; never so few that a block shows no median.
    fn of(self, calls: usize) -> u64 {
        ((calls as f64 * self.share) as u64).max(8)
    }
}

/// What a part has shown.
#[derive(Default)]
struct Shown {
    rows: Vec<Row>,
    figures: Vec<Figure>,
}

impl Part {
    /// All that have a budget. With what they set up they end within five minutes on two processors.
    const QUICK: [Self; 7] = [
        Self::Handoff,
        Self::Scale,
        Self::Metrics,
        Self::Grpc,
        Self::Restore,
        Self::Refill,
        Self::Restart,
    ];

    fn name(self) -> String {
        self.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default()
    }

    fn measure(self, extent: Extent) -> Result<Shown, Box<dyn Error>> {
        match self {
            Self::Handoff => handoff::measure(),
            Self::Scale => scale::measure(),
            Self::Metrics => metrics::measure(),
            Self::Grpc => grpc::measure(extent, None),
            Self::Tokens => grpc::measure(extent, Some(With::Tokens)),
            Self::Mtls => grpc::measure(extent, Some(With::Mtls)),
            Self::Traces => grpc::measure(extent, Some(With::Traces)),
            Self::Restore => restore::measure(extent),
            Self::Refill => refill::measure(extent),
            Self::Restart => restart::measure(extent),
            Self::Capacity => capacity::measure(),
            #[cfg(feature = "peers")]
            Self::Peers => peers::measure(),
        }
    }
}

/// All of a run.
#[derive(Serialize)]
struct Results {
    stamp: Stamp,
    is_full: bool,
    /// Of the calls over gRPC that were made.
    share: f64,
    budgets: Vec<Row>,
    figures: Vec<Figure>,
    took: Vec<Took>,
    /// Parts that could not be measured to their ends, and why.
    failed: Vec<String>,
}

/// How long a part took, with everything that it set up.
#[derive(Serialize)]
struct Took {
    part: String,
    seconds: f64,
}

impl Took {
    fn since(part: impl Into<String>, begun: Instant) -> Self {
        Self { part: part.into(), seconds: begun.elapsed().as_secs_f64() }
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} took {:.0} s", self.part, self.seconds)
    }
}

/// Reads a share of more than nothing. For clap.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|it| *it > 0.0 && *it <= 1.0);
    share.ok_or_else(|| "a share is above 0, and 1 at most".to_owned())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    stand_in::become_one_if_asked()?;
    let Arguments { parts, full, share, json } = Arguments::parse();
    let parts = match (parts.is_empty(), full) {
        (false, _) => parts,
        (true, true) => Part::value_variants().to_vec(),
        (true, false) => Part::QUICK.to_vec(),
    };
    let mut results = Results {
        stamp: Stamp::take(None),
        is_full: full,
        share,
        budgets: Vec::new(),
        figures: Vec::new(),
        took: Vec::new(),
        failed: Vec::new(),
    };
    let (extent, all) = (Extent { is_full: full, share }, Instant::now());
    for part in parts {
        let begun = Instant::now();
        // What the others have shown is not lost for one that fails.
        match part.measure(extent) {
            Ok(Shown { rows, figures }) => {
                results.budgets.extend(rows);
                results.figures.extend(figures);
            }
            Err(error) => results.failed.push(format!("{} failed: {error}", part.name())),
        }
        let took = Took::since(part.name(), begun);
        eprintln!("{took}");
        results.took.push(took);
    }
    results.took.push(Took::since("all of it", all));
    results.stamp.lines().iter().for_each(|it| println!("{it}"));
    println!("\n{}", table(&results.budgets));
    results.figures.iter().for_each(|it| println!("{}: {}", it.what, it.value));
    println!();
    results.took.iter().for_each(|it| println!("{it}"));
    results.failed.iter().for_each(|it| println!("{it}"));
    if let Some(path) = json {
        let mut text = serde_json::to_string_pretty(&results)?;
        text.push('\n');
        std::fs::write(path, text)?;
    }
    let is_missed = results.budgets.iter().any(Row::is_missed);
    Ok(match (results.failed.is_empty(), is_missed) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::SUCCESS,
    })
}
