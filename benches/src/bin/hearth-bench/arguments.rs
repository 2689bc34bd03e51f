//! Arguments that the commands share: what load, on what.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hearth_benches::load::arrivals::{Arrivals, Times};
use hearth_benches::load::drive::Limits;
use hearth_benches::load::hearth::Wish;
use hearth_benches::load::report::Settings;
use hearth_benches::policies::trace;
use serde::Serialize;

/// How calls arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Process {
    /// At equal distances.
    Constant,
    /// Independently of each other.
    Poisson,
    /// In bursts and pauses of Pareto lengths.
    Pareto,
    /// So many at the same instant, the batches independently.
    Batches,
    /// As in a file.
    Trace,
}

/// The load.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// How calls arrive.
    #[arg(long, value_enum, default_value = "poisson", value_name = "PROCESS")]
    arrivals: Process,
    /// Calls a second, on average; a trace has its own.
    #[arg(long, default_value_t = 200.0, value_name = "RATE")]
    rate: f64,
    /// What the arrival times begin with: the same times for the same seed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// With --arrivals pareto: how many times the rate within a burst.
    #[arg(long, default_value_t = 10.0, value_name = "FACTOR")]
    burst_factor: f64,
    /// With --arrivals batches: calls in a batch.
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: u32,
    /// With --arrivals trace: seconds, one a line, in order.
    #[arg(long, value_name = "FILE", required_if_eq("arrivals", "trace"))]
    trace: Option<PathBuf>,
    /// Connections, used in turn.
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Most calls under way at once; one that is due beyond that is counted as not sent.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_in_flight: usize,
    /// Be refused when nothing is warm, whatever the pool's policy is.
    #[arg(long)]
    warm_only: bool,
    /// Hold a VM for so long before it is released; at most until the last call is answered.
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "DURATION")]
    hold: Duration,
    /// Length of each lease: how long VMs outlive a generator that was killed.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    ttl: Duration,
    /// How long a call may take.
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) deadline: Duration,
}

impl Load {
    /// The process.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub(crate) fn process(&self) -> Result<Arrivals, Box<dyn Error>> {
        let rate = self.rate;
        Ok(match self.arrivals {
            Process::Constant => Arrivals::Constant { rate },
            Process::Poisson => Arrivals::Poisson { rate },
            Process::Pareto => Arrivals::Bursts { rate, factor: self.burst_factor },
            Process::Batches => Arrivals::Batches { rate, size: self.batch },
            Process::Trace => {
                let path = self.trace.as_ref().ok_or("--arrivals trace takes a --trace")?;
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                let times = trace::read(&text).map_err(|it| format!("{}: {it}", path.display()))?;
                Arrivals::Recorded(times.into())
            }
        })
    }

    /// When calls are due within `duration`, in the run with this seed.
    ///
    /// # Errors
    /// When the process is none.
    pub(crate) fn times(
        arrivals: &Arrivals,
        seed: u64,
        duration: Duration,
    ) -> Result<impl Iterator<Item = Duration> + Send + 'static + use<>, String> {
        let times: Times = arrivals.times(seed)?;
        // The last call of a trace is at its end; elsewhere the end is the next call's.
        let with_end = arrivals.end().is_some();
        Ok(times.take_while(move |it| *it < duration || with_end && *it == duration))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.into()
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { max_in_flight: self.max_in_flight, hold: self.hold }
    }

    pub(crate) fn wish(&self, pool: &str) -> Wish {
        let (ttl, deadline) = (self.ttl, self.deadline);
        Wish { pool: pool.to_owned(), ttl, warm_only: self.warm_only, deadline }
    }

    pub(crate) fn settings(&self, target: String, duration: Duration) -> Settings {
        let arrivals = match (self.arrivals, &self.trace) {
            (Process::Trace, Some(path)) => format!("trace {}", path.display()),
            (Process::Pareto, _) => {
                format!("pareto bursts of {} x {}/s", self.burst_factor, self.rate)
            }
            (Process::Batches, _) => format!("batches of {}, {}/s", self.batch, self.rate),
            (Process::Constant, _) => format!("constant {}/s", self.rate),
            (Process::Poisson | Process::Trace, _) => format!("poisson {}/s", self.rate),
        };
        Settings {
            target,
            arrivals,
            duration_s: duration.as_secs_f64(),
            seed: self.seed,
            connections: self.connections(),
            max_in_flight: self.max_in_flight,
            hold_s: self.hold.as_secs_f64(),
            ttl_s: self.ttl.as_secs_f64(),
            warm_only: self.warm_only,
            deadline_s: self.deadline.as_secs_f64(),
        }
    }
}

/// Reads `90s`, `5m`, `1h 30m`. For clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 1h30m"))
}

/// A file for results, made before the measurement: one that cannot be made must not cost a run.
pub(crate) struct Json(Option<File>);

impl Json {
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let file = path
            .map(|path| File::create(path).map_err(|error| format!("{}: {error}", path.display())));
        Ok(Self(file.transpose()?))
    }

    /// Writes the results, if there is a file.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write(self, results: &impl Serialize) -> Result<(), Box<dyn Error>> {
        use std::io::Write as _;
        let Some(mut file) = self.0 else { return Ok(()) };
        let mut text = serde_json::to_vec_pretty(results)?;
        text.push(b'\n');
        Ok(file.write_all(&text)?)
    }
}
