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

    /// Every fourth is silent.
    async fn ask(&self, number: u64, (): &()) -> Option<Result<(), String>> {
        tokio::time::sleep(MS).await;
        Some(if number.is_multiple_of(4) { Err("silent".to_owned()) } else { Ok(()) })
    }

    async fn renew(&self, (): &()) -> Result<(), String> {
        tokio::time::sleep(3 * MS).await;
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

fn wide() -> Limits {
    let (holding, streams) = (Holding::default(), Streams::default());
    Limits { max_in_flight: 10_000, holding, streams }
}

fn holding(hold: Duration, renew_ratio: f64) -> Limits {
    Limits { holding: Holding { hold, renew_ratio }, ..wide() }
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_another_ones_answer() {
    let tally = drive_each(Slow::new(50 * MS, 0..0), 100, MS, wide()).await;
    assert_eq!((tally.due, tally.not_sent, tally.given_count()), (100, 0, 100));
    let latencies = &tally.given[&Source::Warm].from_due;
    assert!(latencies.max().unwrap() < 53 * MS, "{:?}", latencies.max());
    assert!(tally.last_answer < 155 * MS, "{:?}", tally.last_answer);
    assert_eq!(tally.returned.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_server_is_in_the_latency_of_all_calls_that_it_met() {
    let tally = drive_each(Slow::new(MS, 10..20), 100, MS, wide()).await;
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
    let tally = drive(Slow::new(MS, 0..0), &mut dues, begin, wide(), |_| ()).await;
    let series = &tally.given[&Source::Warm];
    assert!(series.from_due.max().unwrap() > 199 * MS);
    assert!(series.from_sent.max().unwrap() < 5 * MS);
    assert!(tally.lag.max().unwrap() > 199 * MS);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_bound_are_counted_as_not_sent() {
    let limits = Limits { max_in_flight: 5, ..wide() };
    let tally = drive_each(Slow::new(500 * MS, 0..0), 20, MS, limits).await;
    assert_eq!((tally.due, tally.not_sent, tally.given_count()), (20, 15, 5));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_is_held_and_all_of_it_given_back_at_the_end() {
    let target = Slow::new(MS, 0..0);
    let limits = holding(Duration::from_secs(3600), 0.0);
    let tally = drive_each(target.clone(), 30, MS, limits).await;
    assert_eq!(target.most_held.load(Ordering::Relaxed), 30);
    assert_eq!((target.held.load(Ordering::Relaxed), tally.returned.count()), (0, 30));
    let target = Slow::new(MS, 0..0);
    drive_each(target.clone(), 300, 10 * MS, holding(20 * MS, 0.0)).await;
    assert!(target.most_held.load(Ordering::Relaxed) <= 5);
}

#[tokio::test(start_paused = true)]
async fn a_share_is_renewed_in_the_middle_of_its_hold_and_given_back_at_its_end() {
    let target = Slow::new(MS, 0..0);
    let tally = drive_each(target.clone(), 100, 10 * MS, holding(20 * MS, 0.5)).await;
    // The last are given back before they could be.
    assert!(tally.renewed.count().abs_diff(50) <= 1, "{}", tally.renewed.count());
    assert!(tally.renewed.max().unwrap() >= 3 * MS);
    assert_eq!((tally.returned.count(), target.held.load(Ordering::Relaxed)), (100, 0));
    assert!(target.most_held.load(Ordering::Relaxed) <= 5);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_waited_for_from_when_its_call_was_due_and_a_silent_one_is_given_back() {
    let target = Slow::new(10 * MS, 0..0);
    let tally = drive_each(target.clone(), 40, 5 * MS, wide()).await;
    assert_eq!((tally.asked.count(), tally.not_answered["silent"]), (30, 10));
    // Ten of the call, and one of the guest.
    assert!(tally.asked.at(0.5).unwrap() >= 11 * MS, "{:?}", tally.asked.at(0.5));
    assert_eq!((tally.returned.count(), target.held.load(Ordering::Relaxed)), (40, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_connection_is_late_from_when_it_was_due() {
    let limits = Limits { streams: Streams::at_most(1, 1), ..wide() };
    let tally = drive_each(Slow::new(10 * MS, 0..0), 5, MS, limits).await;
    let series = &tally.given[&Source::Warm];
    assert!(series.from_due.max().unwrap() > 45 * MS, "{:?}", series.from_due.max());
    assert!(series.from_sent.max().unwrap() < 13 * MS, "{:?}", series.from_sent.max());
    assert!(tally.lag.max().unwrap() > 35 * MS);
}

#[tokio::test(start_paused = true)]
async fn each_second_is_told_of() {
    let tally = drive_each(Slow::new(MS, 0..0), 250, 10 * MS, wide()).await;
    assert_eq!(tally.seconds.len(), 2);
    assert!(tally.seconds.iter().all(|it| it.given.abs_diff(100) <= 2), "{:?}", tally.seconds);
}

#[tokio::test]
async fn a_run_is_paced_by_its_times() {
    let times = (0..100).map(|it| it * MS / 10);
    let stop = CancellationToken::new();
    let target = Slow::new(Duration::ZERO, 0..0);
    let tally = run(target, times, wide(), stop, |_| ()).await.unwrap();
    assert_eq!((tally.due, tally.given_count(), tally.returned.count()), (100, 100, 100));
}
