//! `hearth-bench compare-floor`: a hearth against the floor, in turns.
//!
//! Both get the same load at the same times, block by block, and who begins changes with each
//! block. Before and after a block of the hearth its pool is at rest, so that no restore and no
//! destroy runs beside the floor.

use std::cell::RefCell;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use hearth_benches::alternate;
use hearth_benches::load::arrivals::Arrivals;
use hearth_benches::load::connect;
use hearth_benches::load::drive::{self, Target};
use hearth_benches::load::hearth::{Depth, HearthTarget, Sizes};
use hearth_benches::load::latencies::Summary;
use hearth_benches::load::report::{Settings, table};
use hearth_benches::load::sides::{RatioOf, Side, ratios};
use hearth_benches::load::stamp::Stamp;
use hearth_benches::load::tally::{Source, Tally};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Json, Load, parse_duration};
use crate::run::floor_target;

/// How long a pool may take to come to rest between two blocks.
const RESTING: Duration = Duration::from_secs(60);
/// Where fewer of the answers are warm VMs, or the floor's, it is something else that was measured.
const LEAST_RATIO: f64 = 0.999;

#[derive(Debug, clap::Args)]
pub(crate) struct CompareFloor {
    /// The hearth: host:port, a URI, or unix:/path.
    #[arg(long, env = "HEARTH_ADDRESS", value_name = "ADDRESS")]
    address: String,
    /// The pool to acquire from.
    #[arg(long, value_name = "POOL")]
    pool: String,
    /// The floor: `hearth-bench floor` in a process of its own.
    #[arg(long, value_name = "ADDRESS")]
    floor: String,
    /// Blocks of each, not counting the first, which warms up.
    #[arg(long, default_value_t = 20, value_name = "N",
        value_parser = clap::value_parser!(u16).range(20..=500))]
    blocks: u16,
    /// For how long calls are due in a block.
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    block: Duration,
    #[command(flatten)]
    load: Load,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What it has shown.
#[derive(Serialize)]
struct Comparison {
    stamp: Stamp,
    settings: Settings,
    sizes: Sizes,
    depth: Depth,
    blocks: u16,
    /// Of all blocks.
    hit_ratio: f64,
    floor_given_ratio: f64,
    not_sent: u64,
    hearth: Summary,
    floor: Summary,
    ratios: Vec<RatioOf>,
}

impl CompareFloor {
    /// Runs it; answers whether it measured what it says: warm claims, all of them sent.
    ///
    /// # Errors
    /// When either cannot be reached, or answers nothing.
    pub(crate) fn run(self, runtime: &Runtime) -> Result<bool, Box<dyn Error>> {
        let json = Json::create(self.json.as_deref())?;
        let arrivals = self.load.process()?;
        let (hearth, stamp, depth, sizes, floor) = runtime.block_on(async {
            let channels = connect(&self.address, self.load.connections()).await?;
            let hearth = HearthTarget::new(channels, &self.load.wish(&self.pool));
            let stamp = Stamp::take(Some(&hearth.node().await?));
            let depth = hearth.fill(RESTING).await?;
            let sizes = hearth.sizes().await?;
            let floor = floor_target(&self.floor, sizes, &self.load).await?;
            Ok::<_, Box<dyn Error>>((hearth, stamp, depth, sizes, floor))
        })?;
        let (ours, theirs) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        alternate(
            self.blocks.into(),
            |block| {
                runtime.block_on(async {
                    hearth.rest(RESTING, depth).await?;
                    let tally = self.block(block, &arrivals, hearth.clone()).await?;
                    hearth.rest(RESTING, depth).await?;
                    keep(tally, Source::Warm, &ours)
                })
            },
            |block| {
                runtime.block_on(async {
                    let tally = self.block(block, &arrivals, floor.clone()).await?;
                    keep(tally, Source::Floor, &theirs)
                })
            },
        )?;
        let ours = Side::of(Source::Warm, ours.into_inner());
        let theirs = Side::of(Source::Floor, theirs.into_inner());
        let target = format!("{} {}, floor {}", self.address, self.pool, self.floor);
        let settings = self.load.settings(target, self.block);
        let comparison = Comparison {
            hit_ratio: ours.given_ratio(),
            floor_given_ratio: theirs.given_ratio(),
            not_sent: ours.not_sent() + theirs.not_sent(),
            hearth: ours.from_due.summary(),
            floor: theirs.from_due.summary(),
            ratios: ratios(&ours, &theirs),
            stamp,
            settings,
            sizes,
            depth,
            blocks: self.blocks,
        };
        comparison.print(&ours, &theirs);
        json.write(&comparison)?;
        Ok(comparison.measures_warm_claims())
    }

    async fn block<T: Target>(
        &self,
        block: usize,
        arrivals: &Arrivals,
        target: T,
    ) -> Result<Tally, Box<dyn Error>> {
        eprint!(".");
        let seed = self.load.seed.wrapping_add(block as u64);
        let times = Load::times(arrivals, seed, self.block)?;
        let limits = self.load.limits();
        Ok(drive::run(target, times, limits, CancellationToken::new(), |_| ()).await?)
    }
}

/// Keeps what a block has shown; answers its median.
fn keep(
    tally: Tally,
    source: Source,
    blocks: &RefCell<Vec<Tally>>,
) -> Result<Duration, Box<dyn Error>> {
    let median = tally.given.get(&source).and_then(|it| it.from_due.at(0.5));
    let reasons: Vec<_> = tally.refused.keys().cloned().collect();
    blocks.borrow_mut().push(tally);
    median.ok_or_else(|| {
        format!("a block without {} answers; refused: {}", source.name(), reasons.join(", ")).into()
    })
}

impl Comparison {
    fn measures_warm_claims(&self) -> bool {
        let are_given = self.hit_ratio.min(self.floor_given_ratio) >= LEAST_RATIO;
        are_given && self.not_sent == 0
    }

    fn print(&self, ours: &Side, theirs: &Side) {
        eprintln!();
        let Settings { target, arrivals, duration_s, .. } = &self.settings;
        println!("{target}: {arrivals}, {} blocks of {duration_s} s each", self.blocks);
        self.stamp.lines().iter().for_each(|it| println!("{it}"));
        let Sizes { request_bytes, response_bytes } = self.sizes;
        println!("encoded request {request_bytes} bytes, answer {response_bytes} bytes");
        let Depth { warm, target, .. } = self.depth;
        println!("pool before: {warm} warm of {target}; hit ratio {:.3} %", self.hit_ratio * 100.0);
        let rows = [
            ("hearth, warm", &ours.from_due),
            ("floor", &theirs.from_due),
            ("hearth, warm, from sent", &ours.from_sent),
            ("floor, from sent", &theirs.from_sent),
        ];
        println!("\n{}", table(rows.into_iter()));
        println!("ratio, median of {} blocks [95 % interval]", self.blocks);
        for RatioOf { quantile, counted_from, ratio, low, high } in &self.ratios {
            println!("{quantile:<7} from {counted_from:<5} {ratio:.2} [{low:.2}, {high:.2}]");
        }
        if !self.measures_warm_claims() {
            let percent = LEAST_RATIO * 100.0;
            println!("NOT a measure of warm claims: less than {percent} % given, or some not sent");
        }
    }
}
