//! How whoever calls from one address behaves: calls that were worth nothing are counted, and who makes
//! too many of them is not heard for a while.
//!
//! Worth nothing is what was dropped before it was answered, what was beyond a tenant's rate, and what
//! nobody could be found for. Each has cost a stream, and nothing else bounds how often that is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_pool::bucket::{Rate, TokenBucket};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The conduct of one address.
#[derive(Debug)]
pub(crate) struct Conduct {
    rate: Rate,
    since: Instant,
    left: Mutex<TokenBucket>,
    is_exhausted: AtomicBool,
}

impl Conduct {
    /// Of one that has done nothing yet, and may make so many.
    pub(crate) fn new(rate: Rate) -> Self {
        let left = Mutex::new(TokenBucket::full(rate, Duration::ZERO));
        Self { rate, since: Instant::now(), left, is_exhausted: AtomicBool::new(false) }
    }

    /// A call was worth nothing; answers whether that was one too many.
    pub(super) fn wasted(&self) -> bool {
        let taken = self.left.lock().take(self.rate, self.since.elapsed());
        if taken.is_err() {
            self.is_exhausted.store(true, Ordering::Relaxed);
        }
        taken.is_err()
    }

    /// It may connect: it has not made too many, or has kept quiet since for long enough.
    pub(super) fn is_fine(&self) -> bool {
        if self.is_exhausted.load(Ordering::Relaxed) && self.is_forgotten() {
            self.is_exhausted.store(false, Ordering::Relaxed);
        }
        !self.is_exhausted.load(Ordering::Relaxed)
    }

    /// Nothing has to be remembered of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.left.lock().is_full(self.rate, self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_makes_too_many_is_not_heard_until_all_is_forgotten() {
        let conduct = Conduct::new(Rate { per_second: 10.0, burst: 20 });
        assert!((0..20).all(|_| !conduct.wasted()) && conduct.is_fine());
        assert!(conduct.wasted() && !conduct.is_fine());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!conduct.is_fine(), "not yet");
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert!(conduct.is_fine() && conduct.is_forgotten());
        assert!((0..20).all(|_| !conduct.wasted()));
    }
}
