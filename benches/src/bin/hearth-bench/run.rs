//! `hearth-bench run`: one run, against a hearth or against the floor.

use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use hearth_benches::load::connect;
use hearth_benches::load::drive::{self, Target};
use hearth_benches::load::floor::{Blob, FloorTarget};
use hearth_benches::load::hearth::{HearthTarget, Sizes};
use hearth_benches::load::report::{Report, progress};
use hearth_benches::load::stamp::Stamp;
use hearth_benches::load::tally::Tally;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Json, Load, parse_duration};

/// How long a pool may take to fill before the first call.
const FILLING: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The hearth: host:port, a URI, or unix:/path.
    #[arg(long, env = "HEARTH_ADDRESS", value_name = "ADDRESS", required_unless_present = "floor")]
    address: Option<String>,
    /// The pool to acquire from.
    #[arg(long, value_name = "POOL", required_unless_present = "floor")]
    pool: Option<String>,
    /// Load this floor, and not the hearth; that is asked for the sizes of its messages.
    #[arg(long, value_name = "ADDRESS")]
    floor: Option<String>,
    /// With --floor: the encoded size of the request, where there is no hearth to ask.
    #[arg(long, value_name = "BYTES", requires = "floor", requires = "response_bytes")]
    request_bytes: Option<usize>,
    /// With --floor: the same, of the answer.
    #[arg(long, value_name = "BYTES", requires = "floor", requires = "request_bytes")]
    response_bytes: Option<usize>,
    /// For how long calls are due [default: 10s; a trace: all of it].
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    #[command(flatten)]
    load: Load,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Run {
    /// Runs it; answers whether any call was given what it asked for.
    ///
    /// # Errors
    /// When there is nothing to call, or the arguments do not fit.
    pub(crate) async fn run(self) -> Result<bool, Box<dyn Error>> {
        let json = Json::create(self.json.as_deref())?;
        let arrivals = self.load.process()?;
        let duration = self.duration.or(arrivals.end()).unwrap_or(Duration::from_secs(10));
        let times = Load::times(&arrivals, self.load.seed, duration)?;
        let report = match (&self.floor, &self.address, &self.pool) {
            (Some(floor), _, _) => {
                let sizes = self.sizes().await?;
                let target = floor_target(floor, sizes, &self.load).await?;
                let (tally, is_cut) = self.measure(target, times).await?;
                let settings = self.load.settings(format!("floor {floor}"), duration);
                let stamp = Stamp::take(None);
                let mut report = Report::new(stamp, settings, &tally, duration, is_cut);
                report.sizes = Some(sizes);
                report
            }
            (None, Some(address), Some(pool)) => {
                let channels = connect(address, self.load.connections()).await?;
                let target = HearthTarget::new(channels, &self.load.wish(pool));
                let stamp = Stamp::take(Some(&target.node().await?));
                let before = target.fill(FILLING).await?;
                let (tally, is_cut) = self.measure(target.clone(), times).await?;
                let after = target.depth().await?;
                let settings = self.load.settings(format!("{address} {pool}"), duration);
                let mut report = Report::new(stamp, settings, &tally, duration, is_cut);
                (report.pool_before, report.pool_after) = (Some(before), Some(after));
                report
            }
            (None, _, _) => return Err("--address and --pool, or --floor".into()),
        };
        print!("{report}");
        json.write(&report)?;
        Ok(report.given > 0)
    }

    /// Runs the load to its end, or until Ctrl-C, and then waits for what is under way; answers
    /// whether it was that.
    async fn measure<T: Target>(
        &self,
        target: T,
        times: impl Iterator<Item = Duration> + Send + 'static,
    ) -> Result<(Tally, bool), Box<dyn Error>> {
        let stop = CancellationToken::new();
        let tell = |second: &_| eprintln!("{}", progress(second));
        let running = drive::run(target, times, self.load.limits(), stop.clone(), tell);
        let interrupted = async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            tally = running => Ok((tally?, stop.is_cancelled())),
            never = interrupted => match never {},
        }
    }

    /// How large the messages of the floor shall be.
    async fn sizes(&self) -> Result<Sizes, Box<dyn Error>> {
        if let (Some(request_bytes), Some(response_bytes)) =
            (self.request_bytes, self.response_bytes)
        {
            return Ok(Sizes { request_bytes, response_bytes });
        }
        let (Some(address), Some(pool)) = (&self.address, &self.pool) else {
            return Err("--floor takes --request-bytes and --response-bytes, or --address and \
                        --pool to measure them"
                .into());
        };
        let target = HearthTarget::new(connect(address, 1).await?, &self.load.wish(pool));
        Ok(target.sizes().await?)
    }
}

/// The floor at `address`, called with messages of these sizes.
///
/// # Errors
/// When it cannot be reached, or there are no messages of these sizes.
pub(crate) async fn floor_target(
    address: &str,
    sizes: Sizes,
    load: &Load,
) -> Result<FloorTarget, Box<dyn Error>> {
    let Sizes { request_bytes, response_bytes } = sizes;
    let answer = u32::try_from(response_bytes)?;
    let is_possible = Blob::of_size(response_bytes, 0).is_some();
    let request = Blob::of_size(request_bytes, answer).filter(|_| is_possible);
    let request = request
        .ok_or_else(|| format!("no messages of {request_bytes} and {response_bytes} bytes"))?;
    let channels = connect(address, load.connections()).await?;
    Ok(FloorTarget::new(channels, request, load.deadline))
}
