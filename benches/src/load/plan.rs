//! A run as it was asked for: an open loop or a closed one, single calls or cycles.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::closed::{self, Closed};
use super::cycle::Cycle;
use super::drive::{self, Limits, Target};
use super::holding::{Holding, Streams};
use super::tally::{Second, Tally};

/// What makes the next call happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// That it is due, whatever became of the ones before.
    Open {
        /// When calls are due.
        arrivals: Arrivals,
        /// Most calls under way at once; one that is due beyond that is not sent.
        max_in_flight: usize,
    },
    /// That one before was answered.
    Closed {
        /// Calls under way at once.
        in_flight: usize,
        /// Most calls, if there is a most.
        calls: Option<u64>,
    },
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What makes the next call happen.
    pub pace: Pace,
    /// For how long calls are due, or sent.
    pub duration: Duration,
    /// What becomes of what was given; nothing is left of that by a cycle.
    pub holding: Holding,
    /// Most calls under way at once on each connection.
    pub streams: Streams,
    /// Whether a call is a [`Cycle`].
    pub cycle: bool,
}

impl Plan {
    /// Carries it out on `target`, with arrival times of this seed, to its end or until `stop`.
    /// `progress` is told of each second.
    ///
    /// # Errors
    /// `InvalidInput` when the arrivals are none; else there is no thread for the pacer.
    pub async fn run<T: Target>(
        &self,
        target: T,
        seed: u64,
        stop: CancellationToken,
        progress: impl FnMut(&Second),
    ) -> io::Result<Tally> {
        match self.cycle {
            true => self.run_calls(Cycle(target), seed, stop, progress).await,
            false => self.run_calls(target, seed, stop, progress).await,
        }
    }

    async fn run_calls<T: Target>(
        &self,
        target: T,
        seed: u64,
        stop: CancellationToken,
        progress: impl FnMut(&Second),
    ) -> io::Result<Tally> {
        let duration = self.duration;
        let holding = self.holding.within(duration);
        let streams = self.streams.clone();
        match &self.pace {
            Pace::Open { arrivals, max_in_flight } => {
                let invalid = |it| io::Error::new(io::ErrorKind::InvalidInput, it);
                let times = arrivals.times(seed).map_err(invalid)?;
                // The last call of a trace is at its end; elsewhere the end is the next call's.
                let with_end = arrivals.end().is_some();
                let is_due = move |at: &Duration| *at < duration || with_end && *at == duration;
                let limits = Limits { max_in_flight: *max_in_flight, holding, streams };
                drive::run(target, times.take_while(is_due), limits, stop, progress).await
            }
            Pace::Closed { in_flight, calls } => {
                let (in_flight, calls) = (*in_flight, *calls);
                let closed = Closed { in_flight, duration, calls, holding, streams };
                Ok(closed::run(target, closed, stop, progress).await)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::drive::Answer;
    use super::super::tally::{Source, Verdict};
    use super::*;

    /// Takes 10 ms a call.
    #[derive(Clone)]
    struct Slow;

    impl Target for Slow {
        type Held = ();

        async fn call(&self, _: u64) -> Answer<()> {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Answer { verdict: Verdict::Given(Source::Floor), held: None, replayed: false }
        }

        async fn give_back(&self, (): ()) -> Result<(), String> {
            Ok(())
        }
    }

    fn plan(pace: Pace) -> Plan {
        let (holding, streams) = (Holding::default(), Streams::default());
        Plan { pace, duration: Duration::from_secs(1), holding, streams, cycle: false }
    }

    async fn tally(plan: &Plan) -> io::Result<Tally> {
        plan.run(Slow, 1, CancellationToken::new(), |_| ()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_cycle_takes_two_calls() {
        let mut plan = plan(Pace::Closed { in_flight: 1, calls: Some(20) });
        let single = tally(&plan).await.unwrap();
        plan.cycle = true;
        let cycles = tally(&plan).await.unwrap();
        assert_eq!((single.given_count(), cycles.given_count()), (20, 20));
        let ratio = cycles.last_answer.as_secs_f64() / single.last_answer.as_secs_f64();
        assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
    }

    #[tokio::test]
    async fn the_last_call_of_a_trace_is_at_its_end_and_no_arrivals_are_refused() {
        let open = |arrivals| plan(Pace::Open { arrivals, max_in_flight: 10 });
        let recorded = Plan {
            duration: Duration::from_millis(20),
            ..open(Arrivals::Recorded([0.0, 0.01, 0.02, 0.03].into()))
        };
        // 0.03 is the trace's end, and beyond the duration; 0.02 is at it.
        assert_eq!(tally(&recorded).await.unwrap().due, 3);
        let error = tally(&open(Arrivals::Constant { rate: 0.0 })).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
