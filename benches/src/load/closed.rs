//! A closed loop: workers that each make the next call when the former was answered.
//!
//! It asks least while the server stalls, so its latencies leave stalls out (see [`super::drive`]
//! for a loop that does not). It is for what an open loop cannot show: how long a call takes when
//! nothing else is under way, and how many a second there are with so many under way. Here a call
//! is due when it can be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::drive::Target;
use super::holding::{Held, Holding, Streams, finished};
use super::tally::{Second, Tally, Times};

/// How many workers, and how far they go.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Workers: calls under way at once.
    pub in_flight: usize,
    /// No call is sent after that.
    pub duration: Duration,
    /// Most calls of all workers together.
    pub calls: Option<u64>,
    /// What becomes of what was given; it is given back beside the worker's next call.
    pub holding: Holding,
    /// Most calls under way at once on each connection.
    pub streams: Streams,
}

/// What the workers have in common.
struct Shared {
    closed: Closed,
    begin: Instant,
    next: AtomicU64,
    tally: Mutex<Tally>,
    stop: CancellationToken,
    let_go: CancellationToken,
}

/// Has workers call `target` until the duration or the calls are over, or `stop`, and waits until
/// all of it is given back. `progress` is told of each second.
pub async fn run<T: Target>(
    target: T,
    closed: Closed,
    stop: CancellationToken,
    mut progress: impl FnMut(&Second),
) -> Tally {
    let in_flight = closed.in_flight;
    let shared = Arc::new(Shared {
        closed,
        begin: Instant::now(),
        next: AtomicU64::new(0),
        tally: Mutex::default(),
        stop,
        let_go: CancellationToken::new(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        workers.spawn(work(target.clone(), Arc::clone(&shared)));
    }
    let second = Duration::from_secs(1);
    let mut seconds = tokio::time::interval_at(shared.begin + second, second);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held = Vec::with_capacity(in_flight);
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                Some(done) => held.push(finished(done)),
                None => break,
            },
            _ = seconds.tick() => {
                let over = shared.tally.lock().second_over(workers.len()).clone();
                progress(&over);
            }
        }
    }
    // Only now: what one worker holds is not there for the others.
    shared.let_go.cancel();
    let mut tally = std::mem::take(&mut *shared.tally.lock());
    held.iter_mut().for_each(|held: &mut Held<T>| held.let_go(&target, &shared.closed.streams));
    for mut held in held {
        while let Some(returned) = held.next().await {
            returned.count(&mut tally);
        }
    }
    tally
}

/// Makes one call after another; answers what it still holds.
async fn work<T: Target>(target: T, shared: Arc<Shared>) -> Held<T> {
    let Shared { closed, begin, .. } = &*shared;
    let mut held = Held::default();
    while !shared.stop.is_cancelled() && begin.elapsed() < closed.duration {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if closed.calls.is_some_and(|most| number >= most) {
            break;
        }
        let due = begin.elapsed();
        let stream = closed.streams.enter(number).await;
        let sent = if stream.is_some() { begin.elapsed() } else { due };
        let answer = target.call(number).await;
        let times = Times { due, sent, answered: begin.elapsed() };
        drop(stream);
        {
            let mut tally = shared.tally.lock();
            tally.due(due, true);
            tally.answered(answer.verdict, times);
            tally.replayed += u64::from(answer.replayed);
            while let Some(returned) = held.next_now() {
                returned.count(&mut tally);
            }
        }
        if let Some(given) = answer.held {
            let how = (closed.holding, &closed.streams);
            let call = (number, times.answered.saturating_sub(times.due));
            held.take(&target, call, given, how, &shared.let_go);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::drive::Answer;
    use super::super::tally::{Source, Verdict};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Takes 10 ms, and counts what is under way and what is held.
    #[derive(Clone, Default)]
    struct Counted {
        under_way: Arc<AtomicUsize>,
        most_under_way: Arc<AtomicUsize>,
        held: Arc<AtomicUsize>,
        most_held: Arc<AtomicUsize>,
    }

    impl Target for Counted {
        type Held = ();

        async fn call(&self, _: u64) -> Answer<()> {
            let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
            tokio::time::sleep(10 * MS).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_held.fetch_max(held, Ordering::Relaxed);
            Answer { verdict: Verdict::Given(Source::Warm), held: Some(()), replayed: false }
        }

        async fn give_back(&self, (): ()) -> Result<(), String> {
            self.held.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn closed(in_flight: usize) -> Closed {
        let (holding, streams) = (Holding::default(), Streams::default());
        Closed { in_flight, duration: 1000 * MS, calls: None, holding, streams }
    }

    async fn run_it(target: &Counted, closed: Closed) -> Tally {
        run(target.clone(), closed, CancellationToken::new(), |_| ()).await
    }

    #[tokio::test(start_paused = true)]
    async fn each_worker_makes_the_next_call_when_the_former_was_answered() {
        for in_flight in [1, 8] {
            let target = Counted::default();
            let tally = run_it(&target, closed(in_flight)).await;
            let expected = 100 * in_flight as u64;
            assert!(tally.given_count().abs_diff(expected) <= expected / 10);
            assert_eq!(tally.due, tally.given_count());
            assert_eq!(target.most_under_way.load(Ordering::Relaxed), in_flight);
            let rate = tally.given_per_s().unwrap() / (100.0 * in_flight as f64);
            assert!((0.9..=1.01).contains(&rate), "{rate}");
            assert!(tally.given[&Source::Warm].from_due.max().unwrap() < 13 * MS);
            assert_eq!(tally.lag.max(), Some(Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_made_than_were_asked_for() {
        let closed = Closed { calls: Some(37), ..closed(8) };
        let tally = run_it(&Counted::default(), closed).await;
        assert_eq!((tally.given_count(), tally.returned.count()), (37, 37));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_beyond_the_end_is_given_back_then() {
        let target = Counted::default();
        let holding = Holding { hold: Duration::from_secs(3600), renew_ratio: 0.0 };
        let tally = run_it(&target, Closed { calls: Some(50), holding, ..closed(4) }).await;
        assert_eq!(target.most_held.load(Ordering::Relaxed), 50);
        assert_eq!((target.held.load(Ordering::Relaxed), tally.returned.count()), (0, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_bound_what_is_under_way_and_the_wait_is_seen() {
        let target = Counted::default();
        let tally = run_it(&target, Closed { streams: Streams::at_most(2, 1), ..closed(8) }).await;
        assert_eq!(target.most_under_way.load(Ordering::Relaxed), 2);
        assert!(tally.lag.max().unwrap() >= 20 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_run_sends_no_more_and_each_second_is_told_of() {
        let stop = CancellationToken::new();
        let mut seconds = 0;
        let closed = Closed { duration: Duration::from_secs(3600), ..closed(2) };
        let tally = run(Counted::default(), closed, stop.clone(), |second| {
            assert!(second.given.abs_diff(200) < 20, "{second:?}");
            seconds += 1;
            if seconds == 3 {
                stop.cancel();
            }
        });
        let tally = tally.await;
        assert_eq!(tally.seconds.len(), 3);
        assert!(tally.last_answer < 3020 * MS);
    }
}
