//! The traces of the table.

use std::time::Duration;

use super::simulate::Host;
use super::trace::{Restore, Shape, Spread};

/// How claims come, and what the host bears.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the table calls it.
    pub name: &'static str,
    /// How claims come.
    pub shape: Shape,
    /// How long restores take, how many run at once.
    pub host: Host,
    /// Whether the promise has to be kept here, and few VMs to be idle.
    pub must_keep_promise: bool,
}

/// Batches are announced a restore's mean time and so much before they come.
pub const MARGIN: Duration = Duration::from_millis(500);

impl Scenario {
    /// How long before it comes a batch is announced.
    pub fn notice(&self) -> Duration {
        Duration::from_secs_f64(self.host.restore.mean) + MARGIN
    }

    /// All of the table. The cycle's period is a minute, chosen before anything was measured and no
    /// parameter of any policy; two others show what another would have done.
    pub fn all() -> Vec<Self> {
        use Spread::{Constant, Exponential, LogNormal};
        let cycle = |period| Shape::Cycle { low: 2.0, high: 60.0, period };
        let bursts = Shape::Bursts { rate: 400.0, burst: (0.02, 1.4), pause: (1.0, 1.2) };
        let batches = Shape::Batches { size: 16, rate: 30.0 };
        let step = Shape::Phases(vec![(10.0, 300.0), (100.0, 300.0)]);
        let silence = Shape::Phases(vec![(30.0, 60.0), (0.0, 600.0)]);
        let short = |spread| Host { restore: Restore { mean: 0.03, spread }, parallel: 16 };
        let medium = Host { restore: Restore { mean: 0.3, spread: LogNormal }, parallel: 64 };
        let long = Host { restore: Restore { mean: 2.0, spread: LogNormal }, parallel: 512 };
        let must = |name, shape, host| Self { name, shape, host, must_keep_promise: true };
        let new = |name, shape, host| Self { name, shape, host, must_keep_promise: false };
        vec![
            must("steady 30 ms", Shape::Poisson(30.0), short(Exponential)),
            must("cycle 30 ms", cycle(60.0), short(LogNormal)),
            must("cycle 300 ms", cycle(60.0), medium),
            new("cycle 2 s", cycle(60.0), long),
            new("bursts", bursts, short(LogNormal)),
            new("batches", batches, short(Constant)),
            new("step", step, short(LogNormal)),
            new("silence", silence, short(Exponential)),
            new("cycle of 20 s, 300 ms", cycle(20.0), medium),
            new("cycle of 600 s, 300 ms", cycle(600.0), medium),
        ]
    }
}
