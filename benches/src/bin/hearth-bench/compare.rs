//! `hearth-bench compare-floor`: a hearth against the floor, in turns.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use hearth_benches::load::comparison::Comparison;
use hearth_benches::load::connect;
use hearth_benches::load::hearth::HearthTarget;
use hearth_benches::load::results::Results;
use hearth_benches::load::stamp::Stamp;
use hearth_benches::load::versus::{Sides, Versus};
use hearth_proto::Credentials;
use tokio::runtime::Runtime;

use crate::arguments::{Json, Load, parse_duration};
use crate::picture::Svg;

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
    /// For how long calls are due in a block, or sent.
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    block: Duration,
    /// With --in-flight: most calls in a block [default: with a --hold as long as a block, as many as
    /// the pool has warm VMs; else no bound].
    #[arg(long, value_name = "N", requires = "in_flight",
        value_parser = clap::value_parser!(u64).range(4..))]
    block_calls: Option<u64>,
    #[command(flatten)]
    load: Load,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl CompareFloor {
    /// Runs it; answers whether it measured what it says: warm claims, all of them sent.
    ///
    /// # Errors
    /// When either cannot be reached, or answers nothing.
    pub(crate) fn run(self, runtime: &Runtime) -> Result<bool, Box<dyn Error>> {
        let json = Json::create(self.json.as_deref())?;
        let picture = Svg::create(self.picture.as_deref())?;
        let arrivals = self.load.process()?;
        let (stamp, versus) = runtime.block_on(async {
            let caller = self.load.credentials()?;
            let transports = connect(&self.address, self.load.connections(), &caller).await?;
            let hearth = HearthTarget::new(transports, &self.load.wish(&self.pool));
            let stamp = Stamp::take(hearth.node().await.ok().as_ref());
            let caller = Credentials { token: None, ..caller };
            let transports = connect(&self.floor, self.load.connections(), &caller).await?;
            let versus = Versus::new(hearth, transports, self.load.deadline).await?;
            Ok::<_, Box<dyn Error>>((stamp, versus))
        })?;
        let calls = self.block_calls(versus.depth.warm);
        let plan = self.load.plan(&arrivals, self.block, calls);
        let (blocks, seed) = (self.blocks.into(), self.load.seed);
        let Sides { ours, floor, .. } =
            versus.measure(runtime, &plan, blocks, seed, || eprint!("."))?;
        eprintln!();
        let target = format!("{} {}, floor {}", self.address, self.pool, self.floor);
        let mut settings = self.load.settings(target, self.block);
        settings.block_calls = calls;
        let comparison = Comparison::new(stamp, settings, &versus, self.blocks, (&ours, &floor));
        print!("{comparison}");
        json.write(&comparison)?;
        let is_measured = comparison.measures_warm_claims();
        picture.draw(&Results::Comparison(Box::new(comparison)))?;
        Ok(is_measured)
    }

    /// A closed loop takes what it can: where nothing comes back within a block, no more than there
    /// is. Both sides end there, so that their blocks are alike.
    fn block_calls(&self, warm: i32) -> Option<u64> {
        let keeps_all = self.load.is_closed() && self.load.hold() >= self.block;
        let most = keeps_all.then(|| u64::try_from(warm).unwrap_or(0).max(1));
        self.block_calls.or(most)
    }
}
