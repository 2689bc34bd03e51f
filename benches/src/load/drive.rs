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

use super::pacer::{Due, Pacer};
use super::tally::{Second, Tally, Times, Verdict};

/// From the start to the first call's time zero: enough for a thread to begin.
const HEAD_START: Duration = Duration::from_millis(20);

/// Something that can be called.
pub trait Target: Clone + Send + Sync + 'static {
    /// What a call was given, and gives back.
    type Held: Send + 'static;

    /// Makes the call with this number, and ends by itself within a bound.
    fn call(&self, number: u64) -> impl Future<Output = Answer<Self::Held>> + Send;

    /// Gives back what a call was given; else says why it cannot be.
    fn give_back(&self, held: Self::Held) -> impl Future<Output = Result<(), String>> + Send;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most calls under way at once.
    pub max_in_flight: usize,
    /// How long to hold what was given. What is held when the last call is answered is given back
    /// then.
    pub hold: Duration,
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
    let mut returns: JoinSet<(Result<(), String>, Duration)> = JoinSet::new();
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
                        count(&mut tally, done, &target, &mut returns, limits.hold, &let_go);
                    }
                    let is_sent = calls.len() < limits.max_in_flight;
                    tally.due(due.at.saturating_duration_since(begin), is_sent);
                    if is_sent {
                        calls.spawn(call(target.clone(), due, begin));
                    }
                }
                None => is_over = true,
            },
            Some(done) = calls.join_next() => {
                count(&mut tally, done, &target, &mut returns, limits.hold, &let_go);
            }
            Some(done) = returns.join_next() => {
                let (result, took) = finished(done);
                tally.returned(result, took);
            }
            _ = seconds.tick() => progress(tally.second_over(calls.len())),
        }
        if is_over && calls.is_empty() {
            let_go.cancel();
            if returns.is_empty() {
                return tally;
            }
        }
    }
}

async fn call<T: Target>(target: T, due: Due, begin: Instant) -> Done<T::Held> {
    let sent = Instant::now();
    let answer = target.call(due.number).await;
    let since = |at: Instant| at.saturating_duration_since(begin);
    let times = Times { due: since(due.at), sent: since(sent), answered: since(Instant::now()) };
    Done { times, answer }
}

/// Counts an answer, and sees to it that what was given is given back.
fn count<T: Target>(
    tally: &mut Tally,
    done: Result<Done<T::Held>, tokio::task::JoinError>,
    target: &T,
    returns: &mut JoinSet<(Result<(), String>, Duration)>,
    hold: Duration,
    let_go: &CancellationToken,
) {
    let Done { times, answer } = finished(done);
    tally.answered(answer.verdict, times);
    tally.replayed += u64::from(answer.replayed);
    let Some(held) = answer.held else { return };
    let (target, let_go) = (target.clone(), let_go.clone());
    returns.spawn(async move {
        if !hold.is_zero() {
            // Either way it is given back now.
            let _ = tokio::time::timeout(hold, let_go.cancelled()).await;
        }
        let begun = Instant::now();
        (target.give_back(held).await, begun.elapsed())
    });
}

/// What a task answered. Tasks are never aborted: one that has no answer has panicked.
fn finished<R>(joined: Result<R, tokio::task::JoinError>) -> R {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::tally::Source;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Answers after a time; the calls of a range of numbers hang for longer.
    #[derive(Clone)]
    struct Slow {
        takes: Duration,
        hangs: std::ops::Range<u64>,
        held: Arc<AtomicUsize>,
        most_held: Arc<AtomicUsize>,
    }

    impl Slow {
        fn new(takes: Duration, hangs: std::ops::Range<u64>) -> Self {
            Self { takes, hangs, held: Arc::default(), most_held: Arc::default() }
        }
    }

    impl Target for Slow {
        type Held = ();

        async fn call(&self, number: u64) -> Answer<()> {
            let hangs = self.hangs.contains(&number);
            tokio::time::sleep(if hangs { 1000 * MS } else { self.takes }).await;
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_held.fetch_max(held, Ordering::Relaxed);
            Answer { verdict: Verdict::Given(Source::Warm), held: Some(()), replayed: false }
        }

        async fn give_back(&self, (): ()) -> Result<(), String> {
            self.held.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    }

    /// `count` calls, one each `distance`, said in paused time as the pacer would.
    async fn drive_each(target: Slow, count: u64, distance: Duration, limits: Limits) -> Tally {
        let (say, mut dues) = mpsc::channel(1);
        let begin = Instant::now();
        let saying = async move {
            for number in 0..count {
                let at = begin + distance * u32::try_from(number).unwrap();
                tokio::time::sleep_until(at).await;
                say.send(Due { number, at }).await.unwrap();
            }
        };
        let (tally, ()) = tokio::join!(drive(target, &mut dues, begin, limits, |_| ()), saying);
        tally
    }

    const WIDE: Limits = Limits { max_in_flight: 10_000, hold: Duration::ZERO };

    #[tokio::test(start_paused = true)]
    async fn no_call_waits_for_another_ones_answer() {
        let tally = drive_each(Slow::new(50 * MS, 0..0), 100, MS, WIDE).await;
        assert_eq!((tally.due, tally.not_sent, tally.given_count()), (100, 0, 100));
        let latencies = &tally.given[&Source::Warm].from_due;
        assert!(latencies.max().unwrap() < 53 * MS, "{:?}", latencies.max());
        assert!(tally.last_answer < 155 * MS, "{:?}", tally.last_answer);
        assert_eq!(tally.returned.count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_the_server_is_in_the_latency_of_all_calls_that_it_met() {
        let tally = drive_each(Slow::new(MS, 10..20), 100, MS, WIDE).await;
        let latencies = &tally.given[&Source::Warm].from_due;
        assert!(latencies.at(0.5).unwrap() < 5 * MS);
        assert!(latencies.at(0.95).unwrap() > 990 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_generator_that_is_late_does_not_hide_it() {
        let (say, mut dues) = mpsc::channel(1);
        let begin = Instant::now();
        tokio::time::sleep(200 * MS).await;
        say.send(Due { number: 0, at: begin }).await.unwrap();
        drop(say);
        let tally = drive(Slow::new(MS, 0..0), &mut dues, begin, WIDE, |_| ()).await;
        let series = &tally.given[&Source::Warm];
        assert!(series.from_due.max().unwrap() > 199 * MS);
        assert!(series.from_sent.max().unwrap() < 5 * MS);
        assert!(tally.lag.max().unwrap() > 199 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_beyond_the_bound_are_counted_as_not_sent() {
        let limits = Limits { max_in_flight: 5, ..WIDE };
        let tally = drive_each(Slow::new(500 * MS, 0..0), 20, MS, limits).await;
        assert_eq!((tally.due, tally.not_sent, tally.given_count()), (20, 15, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_is_held_and_all_of_it_given_back_at_the_end() {
        let target = Slow::new(MS, 0..0);
        let limits = Limits { hold: Duration::from_secs(3600), ..WIDE };
        let tally = drive_each(target.clone(), 30, MS, limits).await;
        assert_eq!(target.most_held.load(Ordering::Relaxed), 30);
        assert_eq!((target.held.load(Ordering::Relaxed), tally.returned.count()), (0, 30));
        let target = Slow::new(MS, 0..0);
        drive_each(target.clone(), 300, 10 * MS, Limits { hold: 20 * MS, ..WIDE }).await;
        assert!(target.most_held.load(Ordering::Relaxed) <= 5);
    }

    #[tokio::test(start_paused = true)]
    async fn each_second_is_told_of() {
        let tally = drive_each(Slow::new(MS, 0..0), 250, 10 * MS, WIDE).await;
        assert_eq!(tally.seconds.len(), 2);
        assert!(tally.seconds.iter().all(|it| it.given.abs_diff(100) <= 2), "{:?}", tally.seconds);
    }

    #[tokio::test]
    async fn a_run_is_paced_by_its_times() {
        let times = (0..100).map(|it| it * MS / 10);
        let stop = CancellationToken::new();
        let target = Slow::new(Duration::ZERO, 0..0);
        let tally = run(target, times, WIDE, stop, |_| ()).await.unwrap();
        assert_eq!((tally.due, tally.given_count(), tally.returned.count()), (100, 100, 100));
    }
}
