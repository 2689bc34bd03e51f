//! Makes calls when they are due, whatever became of the ones before.
//!
//! One task takes the calls as they become due and gives each a task of its own; the answers come
//! back to it, so that counting takes no lock. When too many are under way a call is not sent, and
//! counted as that: the bound keeps this program alive and must not make a slow server look good.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::holding::{Held, Holding, Streams, finished};
use super::pacer::{Due, Pacer};
use super::tally::{Second, Tally, Times, Verdict};

/// From the start to the first call's time zero: enough for a thread to begin.
const HEAD_START: Duration = Duration::from_millis(20);

/// Something that can be called.
pub trait Target: Clone + Send + Sync + 'static {
    /// What a call was given, and gives back.
    type Held: Send + Sync + 'static;

    /// Makes the call with this number, and ends by itself within a bound.
    fn call(&self, number: u64) -> impl Future<Output = Answer<Self::Held>> + Send;

    /// Gives back what a call was given; else says why it cannot be.
    fn give_back(&self, held: Self::Held) -> impl Future<Output = Result<(), String>> + Send;

    /// Asks what the call with this number was given something, and waits for its answer; else says
    /// why there is none. `None` where nothing is to be asked.
    fn ask(
        &self,
        number: u64,
        held: &Self::Held,
    ) -> impl Future<Output = Option<Result<(), String>>> + Send {
        let _ = (number, held);
        std::future::ready(None)
    }

    /// Whether [`Self::ask`] asks anything.
    fn asks(&self) -> bool {
        false
    }

    /// Lets what a call was given be held for longer; else says why it cannot be.
    fn renew(&self, held: &Self::Held) -> impl Future<Output = Result<(), String>> + Send {
        let _ = held;
        std::future::ready(Err("nothing to renew".to_owned()))
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer<H> {
    /// Given or refused.
    pub verdict: Verdict,
    /// What is to be given back.
    pub held: Option<H>,
    /// Whether it was the answer to another call.
    pub replayed: bool,
}

/// How far to go.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most calls under way at once.
    pub max_in_flight: usize,
    /// What becomes of what was given.
    pub holding: Holding,
    /// Most calls under way at once on each connection. One that waits for others is sent late.
    pub streams: Streams,
}

/// Calls `target` at `times`, until they end or `stop`, and waits for all answers. `progress` is
/// told of each second.
///
/// # Errors
/// When there is no thread for the pacer.
pub async fn run<T: Target>(
    target: T,
    times: impl Iterator<Item = Duration> + Send + 'static,
    limits: Limits,
    stop: CancellationToken,
    progress: impl FnMut(&Second),
) -> io::Result<Tally> {
    let begin = Instant::now() + HEAD_START;
    let mut pacer = Pacer::start(times, begin, stop)?;
    let tally = drive(target, &mut pacer.dues, begin, limits, progress).await;
    pacer.join();
    Ok(tally)
}

struct Done<H> {
    number: u64,
    times: Times,
    answer: Answer<H>,
}

async fn drive<T: Target>(
    target: T,
    dues: &mut mpsc::Receiver<Due>,
    begin: Instant,
    limits: Limits,
    mut progress: impl FnMut(&Second),
) -> Tally {
    let mut tally = Tally::default();
    let mut calls: JoinSet<Done<T::Held>> = JoinSet::new();
    let mut held = Held::default();
    let let_go = CancellationToken::new();
    let second = Duration::from_secs(1);
    let mut seconds = tokio::time::interval_at(begin + second, second);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_over = false;
    loop {
        tokio::select! {
            due = dues.recv(), if !is_over => match due {
                Some(due) => {
                    // Those that are answered are not under way, though they were not counted yet.
                    while let Some(done) = calls.try_join_next() {
                        count(&mut tally, done, &target, &mut held, &limits, &let_go);
                    }
                    let is_sent = calls.len() < limits.max_in_flight;
                    tally.due(due.at.saturating_duration_since(begin), is_sent);
                    if is_sent {
                        calls.spawn(call(target.clone(), due, begin, limits.streams.clone()));
                    }
                }
                None => is_over = true,
            },
            Some(done) = calls.join_next() => {
                count(&mut tally, done, &target, &mut held, &limits, &let_go);
            }
            Some(returned) = held.next() => returned.count(&mut tally),
            _ = seconds.tick() => progress(tally.second_over(calls.len())),
        }
        if is_over && calls.is_empty() {
            let_go.cancel();
            held.let_go(&target, &limits.streams);
            if held.is_empty() {
                return tally;
            }
        }
    }
}

async fn call<T: Target>(target: T, due: Due, begin: Instant, streams: Streams) -> Done<T::Held> {
    let _stream = streams.enter(due.number).await;
    let sent = Instant::now();
    let answer = target.call(due.number).await;
    let since = |at: Instant| at.saturating_duration_since(begin);
    let times = Times { due: since(due.at), sent: since(sent), answered: since(Instant::now()) };
    Done { number: due.number, times, answer }
}

/// Counts an answer, and sees to it that what was given is given back.
fn count<T: Target>(
    tally: &mut Tally,
    done: Result<Done<T::Held>, tokio::task::JoinError>,
    target: &T,
    held: &mut Held<T>,
    limits: &Limits,
    let_go: &CancellationToken,
) {
    let Done { number, times, answer } = finished(done);
    tally.answered(answer.verdict, times);
    tally.replayed += u64::from(answer.replayed);
    if let Some(given) = answer.held {
        let call = (number, times.answered.saturating_sub(times.due));
        held.take(target, call, given, (limits.holding, &limits.streams), let_go);
    }
}

#[cfg(test)]
mod tests;
