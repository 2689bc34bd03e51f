//! Says when calls are due, from a thread of its own.
//!
//! The runtime's timers have a resolution of a millisecond, many times what a warm acquire takes. A
//! thread that sleeps in the kernel, with the least timer slack, is late by microseconds; and
//! whatever it is late by counts, since a call bears the instant at which it was due. It does not
//! spin: that would take a core from what is measured.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest sleep, so that the end is heard.
const SLICE: Duration = Duration::from_millis(100);

/// Calls that may be due and not yet taken. When there are more the thread waits, and they are
/// late.
const BACKLOG: usize = 4096;

/// A call that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number, from 0.
    pub number: u64,
    /// When it is due, or was.
    pub at: Instant,
}

/// The thread, and what it says.
#[derive(Debug)]
pub struct Pacer {
    /// The calls as they become due. It ends after the last one, or when stopped.
    pub dues: mpsc::Receiver<Due>,
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Starts a thread that says each of `times` after `begin`, until `stop`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        times: impl Iterator<Item = Duration> + Send + 'static,
        begin: Instant,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let (say, dues) = mpsc::channel(BACKLOG);
        let thread = std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            wake_sharply();
            for (number, time) in (0..).zip(times) {
                let due = Due { number, at: begin + time };
                // Nobody listens, or nobody wants more: either is the end.
                if !sleep_until(due.at, &stop) || say.blocking_send(due).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { dues, thread })
    }

    /// Waits for the thread, which ends when nobody listens any more. Blocks for 0.1 s at most.
    ///
    /// # Panics
    /// When the thread has.
    pub fn join(self) {
        drop(self.dues);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// False when stopped.
fn sleep_until(at: Instant, stop: &CancellationToken) -> bool {
    loop {
        if stop.is_cancelled() {
            return false;
        }
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(SLICE));
    }
}

/// The kernel rounds sleeps up by 50 us to save power, unless told otherwise.
#[cfg(target_os = "linux")]
fn wake_sharply() {
    // What it is late by counts anyhow.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(not(target_os = "linux"))]
fn wake_sharply() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_said_in_order_and_never_before_they_are_due() {
        let begin = Instant::now();
        let times = (0..20).map(|it| Duration::from_millis(it / 2));
        let mut pacer = Pacer::start(times, begin, CancellationToken::new()).unwrap();
        for number in 0..20 {
            let due = pacer.dues.recv().await.unwrap();
            assert_eq!(due, Due { number, at: begin + Duration::from_millis(number / 2) });
            assert!(Instant::now() >= due.at);
        }
        assert_eq!(pacer.dues.recv().await, None);
        pacer.join();
    }

    #[tokio::test]
    async fn a_stopped_pacer_says_no_more() {
        let stop = CancellationToken::new();
        let times = [Duration::ZERO, Duration::from_secs(3600)].into_iter();
        let mut pacer = Pacer::start(times, Instant::now(), stop.clone()).unwrap();
        assert_eq!(pacer.dues.recv().await.map(|it| it.number), Some(0));
        stop.cancel();
        assert_eq!(pacer.dues.recv().await, None);
        pacer.join();
    }
}
