//! `hearth-bench run`: one run, against a hearth or against the floor.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use hearth_benches::load::drive::Target;
use hearth_benches::load::histograms::Histograms;
use hearth_benches::load::plan::Plan;
use hearth_benches::load::report::{Report, progress};
use hearth_benches::load::results::{Results, Steps};
use hearth_benches::load::stages;
use hearth_benches::load::tally::Tally;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Json, Load, at_rates, parse_duration};
use crate::picture::Svg;
use crate::rates;
use crate::target::{Found, Where, until_stopped};

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    target: Where,
    /// For how long calls are due [default: 10s; a trace: all of it].
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    /// Rates, each for the duration and with a row of its own, in place of one --rate.
    #[arg(long, value_delimiter = ',', value_name = "RATE,RATE",
        conflicts_with_all = ["rate", "trace", "in_flight"])]
    steps: Vec<f64>,
    #[command(flatten)]
    load: Load,
    /// Where the server's metrics are, as http://127.0.0.1:7071/metrics: read before and after, for
    /// the times of its stages.
    #[arg(long, value_name = "URL", conflicts_with_all = ["floor", "steps"])]
    metrics: Option<String>,
    /// Write all of the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl Run {
    /// Runs it; answers whether any call was given what it asked for.
    ///
    /// # Errors
    /// When there is nothing to call, or the arguments do not fit.
    pub(crate) async fn run(self) -> Result<bool, Box<dyn Error>> {
        let json = Json::create(self.json.as_deref())?;
        let picture = Svg::create(self.picture.as_deref())?;
        let arrivals = self.load.process()?;
        let duration = self.duration.or(arrivals.end()).unwrap_or(Duration::from_secs(10));
        let plan = self.load.plan(&arrivals, duration, None);
        let mut settings = self.load.settings(self.target.name(), duration);
        let (found, stamp) = self.target.find(&self.load).await?;
        if !self.steps.is_empty() {
            let rates: Vec<_> = self.steps.iter().map(f64::to_string).collect();
            at_rates(&mut settings, &self.load, &format!("{} calls a second", rates.join(", ")));
            let steps = rates::steps(&found, &plan, &self.steps, self.load.seed).await?;
            let steps = Steps { stamp, settings, steps };
            return rates::show(steps, json, picture);
        }
        let report = match found {
            Found::Floor(target, sizes) => {
                let (tally, is_cut) = self.measure(target, &plan).await?;
                let mut report = Report::new(stamp, settings, &tally, duration, is_cut);
                report.sizes = Some(sizes);
                report
            }
            Found::Hearth(target, before) => {
                let stages_before = self.histograms().await?;
                let (tally, is_cut) = self.measure((*target).clone(), &plan).await?;
                let stages_after = self.histograms().await;
                let after = target.depth().await?;
                let mut report = Report::new(stamp, settings, &tally, duration, is_cut);
                (report.pool_before, report.pool_after) = (Some(before), Some(after));
                // A run that was measured is not lost for that.
                match stages_after {
                    Ok(stages_after) => {
                        report.stages = stages::between(&stages_before, &stages_after);
                    }
                    Err(error) => eprintln!("hearth-bench: {error}"),
                }
                report
            }
        };
        print!("{report}");
        json.write(&report)?;
        let is_given = report.given > 0;
        picture.draw(&Results::Run(Box::new(report)))?;
        Ok(is_given)
    }

    /// What the server says of its stages so far; nothing where it is not to be asked.
    async fn histograms(&self) -> Result<Histograms, String> {
        match &self.metrics {
            Some(url) => stages::read(url).await,
            None => Ok(Histograms::new()),
        }
    }

    /// Runs the load to its end, or until Ctrl-C, and then waits for what is under way; answers
    /// whether it was that.
    async fn measure<T: Target>(
        &self,
        target: T,
        plan: &Plan,
    ) -> Result<(Tally, bool), Box<dyn Error>> {
        let stop = CancellationToken::new();
        let tell = |second: &_| eprintln!("{}", progress(second));
        let running = plan.run(target, self.load.seed, stop.clone(), tell);
        let tally = until_stopped(&stop, running).await?;
        Ok((tally, stop.is_cancelled()))
    }
}
