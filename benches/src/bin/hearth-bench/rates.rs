//! `hearth-bench run --steps` and `hearth-bench saturate`: one rate after another.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use hearth_benches::load::plan::Plan;
use hearth_benches::load::report::Settings;
use hearth_benches::load::results::{Results, Saturated, Steps};
use hearth_benches::load::saturation;
use hearth_benches::load::steps::{Step, head, step};
use tokio_util::sync::CancellationToken;

use crate::arguments::{Json, Load, at_rates, parse_duration};
use crate::picture::Svg;
use crate::target::{Found, Where, until_stopped};

/// How long a pool may take to come to rest between two rates.
const RESTING: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Saturate {
    #[command(flatten)]
    target: Where,
    /// For how long each rate is offered.
    #[arg(long, default_value = "3s", value_parser = parse_duration, value_name = "DURATION")]
    step_duration: Duration,
    #[command(flatten)]
    load: Load,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl Saturate {
    /// Searches from the rate on; answers whether there was one that was sustained.
    ///
    /// # Errors
    /// When there is nothing to call, or the arguments do not fit.
    pub(crate) async fn run(self) -> Result<bool, Box<dyn Error>> {
        if self.load.is_closed() {
            return Err("a search offers rates: it has no --in-flight".into());
        }
        let json = Json::create(self.json.as_deref())?;
        let picture = Svg::create(self.picture.as_deref())?;
        let arrivals = self.load.process()?;
        if arrivals.end().is_some() {
            return Err("a search offers rates: a trace has its own".into());
        }
        let plan = self.load.plan(&arrivals, self.step_duration, None);
        let (found, stamp) = self.target.find(&self.load).await?;
        let mut settings = self.load.settings(self.target.name(), self.step_duration);
        at_rates(&mut settings, &self.load, &format!("rates from {}/s on", self.load.rate()));
        let stop = CancellationToken::new();
        let (found, plan, stop) = (&found, &plan, &stop);
        let probe = async |rate: f64| offer(found, plan, rate, self.load.seed, stop).await;
        let searching = saturation::search(self.load.rate(), probe);
        let saturation = until_stopped(stop, searching).await?;
        stamp.lines().iter().for_each(|it| println!("{it}"));
        print!("{saturation}");
        let is_found = saturation.rate_per_s.is_some();
        let saturated = Saturated { stamp, settings, saturation };
        json.write(&saturated)?;
        picture.draw(&Results::Saturated(Box::new(saturated)))?;
        Ok(is_found)
    }
}

/// Offers one rate after another; after Ctrl-C no more.
///
/// # Errors
/// When a rate is none, or the pool does not come to rest.
pub(crate) async fn steps(
    found: &Found,
    plan: &Plan,
    rates: &[f64],
    seed: u64,
) -> Result<Vec<Step>, Box<dyn Error>> {
    let stop = CancellationToken::new();
    let mut steps = Vec::with_capacity(rates.len());
    for rate in rates {
        match until_stopped(&stop, offer(found, plan, *rate, seed, &stop)).await {
            // What was measured before is not lost for that.
            Err(error) if stop.is_cancelled() && !steps.is_empty() => {
                eprintln!("hearth-bench: {error}");
                break;
            }
            offered => steps.push(offered?),
        }
    }
    Ok(steps)
}

/// Prints, writes and draws them; answers whether anything was given.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn show(steps: Steps, json: Json, picture: Svg) -> Result<bool, Box<dyn Error>> {
    let Settings { target, arrivals, duration_s, .. } = &steps.settings;
    println!("{target}: {arrivals}, {duration_s} s each");
    steps.stamp.lines().iter().for_each(|it| println!("{it}"));
    println!("{}", head());
    steps.steps.iter().for_each(|it| println!("{it}"));
    let is_given = steps.steps.iter().any(|it| it.achieved_per_s > 0.0);
    json.write(&steps)?;
    picture.draw(&Results::Steps(Box::new(steps)))?;
    Ok(is_given)
}

/// Offers one rate, to a pool at rest.
async fn offer(
    found: &Found,
    plan: &Plan,
    rate: f64,
    seed: u64,
    stop: &CancellationToken,
) -> Result<Step, Box<dyn Error>> {
    let offered = match found {
        Found::Hearth(target, depth) => {
            target.rest(RESTING, *depth).await?;
            step((**target).clone(), plan, rate, seed, stop.clone()).await?
        }
        Found::Floor(target, _) => step(target.clone(), plan, rate, seed, stop.clone()).await?,
    };
    if stop.is_cancelled() {
        return Err("interrupted".into());
    }
    eprintln!("{rate:>10.1}/s: {:.1} achieved", offered.achieved_per_s);
    Ok(offered)
}
