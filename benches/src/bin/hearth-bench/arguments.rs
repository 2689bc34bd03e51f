//! Arguments that the commands share: what load, on what.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hearth_benches::load::arrivals::Arrivals;
use hearth_benches::load::guest::Question;
use hearth_benches::load::hearth::Wish;
use hearth_benches::load::holding::{Holding, Streams};
use hearth_benches::load::plan::{Pace, Plan};
use hearth_benches::load::report::Settings;
use hearth_benches::policies::trace;
use hearth_proto::Credentials;
use serde::Serialize;

use crate::caller::Caller;

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
    /// Closed loop: so many workers, each of which makes the next call when the former was answered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096),
        conflicts_with_all = ["arrivals", "rate", "burst_factor", "batch", "trace", "max_in_flight"])]
    in_flight: Option<u16>,
    /// A call is a cycle: an acquire and, once it is answered, its release; two calls of the floor.
    #[arg(long, conflicts_with_all = ["hold", "renew"])]
    cycle: bool,
    /// Most calls under way at once on each connection; what waits for that counts as latency.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    streams_per_connection: Option<u32>,
    /// Most calls under way at once; one that is due beyond that is counted as not sent.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_in_flight: usize,
    /// Be refused when nothing is warm, whatever the pool's policy is.
    #[arg(long)]
    warm_only: bool,
    /// Hold a VM for so long before it is released; at most until the last call is answered.
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "DURATION")]
    hold: Duration,
    /// Share of VMs whose lease is renewed, once, in the middle of the hold.
    #[arg(long, default_value_t = 0.0, value_parser = parse_share, value_name = "RATIO",
        requires = "hold")]
    renew: f64,
    /// Ask each guest this over its channel, as a line, and time its answer. {} is the call's number.
    #[arg(long, value_name = "LINE", conflicts_with = "cycle")]
    ask: Option<String>,
    /// With --ask: what the answer has in it, {} as there [default: anything is an answer].
    #[arg(long, value_name = "TEXT", requires = "ask")]
    answer: Option<String>,
    /// With --ask: a port of the guest's vsock, in place of its channel.
    #[arg(long, default_value_t = 0, value_name = "PORT", requires = "ask")]
    guest_port: u32,
    /// Length of each lease: how long VMs outlive a generator that was killed.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    ttl: Duration,
    /// How long a call may take.
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) deadline: Duration,
    #[command(flatten)]
    caller: Caller,
}

impl Load {
    /// Who calls, and whom it trusts.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn credentials(&self) -> Result<Credentials, Box<dyn Error>> {
        self.caller.credentials()
    }

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

    /// The run that is asked for; a closed loop ends with `calls`, if there are as many.
    pub(crate) fn plan(&self, arrivals: &Arrivals, duration: Duration, calls: Option<u64>) -> Plan {
        let pace = match self.in_flight {
            Some(in_flight) => Pace::Closed { in_flight: in_flight.into(), calls },
            None => Pace::Open { arrivals: arrivals.clone(), max_in_flight: self.max_in_flight },
        };
        let holding = Holding { hold: self.hold, renew_ratio: self.renew };
        let streams = self
            .streams_per_connection
            .map_or_else(Streams::default, |it| Streams::at_most(it as usize, self.connections()));
        Plan { pace, duration, holding, streams, cycle: self.cycle }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.into()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    pub(crate) fn hold(&self) -> Duration {
        self.hold
    }

    pub(crate) fn wish(&self, pool: &str) -> Wish {
        let (ttl, deadline) = (self.ttl, self.deadline);
        let question = self.ask.clone().map(|ask| Question {
            ask,
            answer: self.answer.clone().unwrap_or_default(),
            port: self.guest_port,
        });
        Wish { pool: pool.to_owned(), ttl, warm_only: self.warm_only, deadline, question }
    }

    pub(crate) fn settings(&self, target: String, duration: Duration) -> Settings {
        let arrivals = match (self.arrivals, &self.trace) {
            _ if self.is_closed() => {
                format!("closed loop, {} in flight", self.in_flight.unwrap_or_default())
            }
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
            in_flight: self.in_flight.map(usize::from),
            block_calls: None,
            cycle: self.cycle,
            renew_ratio: self.renew,
            streams_per_connection: self.streams_per_connection,
            ask: self.ask.clone(),
        }
    }
}

/// What a file says of a load whose rate is another one in each step.
pub(crate) fn at_rates(settings: &mut Settings, load: &Load, rates: &str) {
    settings.arrivals = format!("{:?} at {rates}", load.arrivals).to_lowercase();
}

/// Reads `90s`, `5m`, `1h 30m`. For clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 1h30m"))
}

/// Reads a number from 0 to 1. For clap.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|it| (0.0..=1.0).contains(it));
    share.ok_or_else(|| "a share is from 0 to 1".to_owned())
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
