//! How many restores the node bears at once, found by watching what they take. Pure.
//!
//! The limit grows while restores take about as long together as alone, and falls when they take
//! longer: more at once would only make each slower. The rule is the gradient of Netflix's
//! concurrency-limits (2018), `limit * tolerance * alone / now + sqrt(limit)`, smoothed; on a host
//! whose restores share `c` processors it settles a little above `c`.

/// How much longer than alone a restore may take before the limit falls.
const TOLERANCE: f64 = 1.5;
/// How much of each step is taken.
const SMOOTHING: f64 = 0.2;
/// Where it begins: enough to begin with, and to notice when it is too much.
const FIRST: f64 = 4.0;
/// It never falls below this: what makes one restore slow that runs alone is not the restores.
const LEAST: f64 = 2.0;

/// The limit of what runs at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Concurrency {
    limit: f64,
    most: f64,
}

impl Concurrency {
    /// One that never passes `most`, which is at least 1.
    pub fn new(most: usize) -> Self {
        let most = most.max(1) as f64;
        Self { limit: FIRST.min(most), most }
    }

    /// How many may run at once now.
    pub const fn limit(&self) -> usize {
        self.limit as usize
    }

    /// One has ended that took `slowdown` times what it takes alone, while `running` ran, itself
    /// included. Where that was far below the limit it says nothing about it.
    pub fn ended(&mut self, slowdown: f64, running: usize) {
        if (running as f64) < self.limit / 2.0 || !slowdown.is_finite() {
            return;
        }
        let gradient = (TOLERANCE / slowdown.max(1.0)).min(1.0);
        let next = self.limit.mul_add(gradient, self.limit.sqrt());
        self.limit =
            SMOOTHING.mul_add(next - self.limit, self.limit).clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the limit settles when `at(running)` is the slowdown, and as many run as may.
    fn settles(most: usize, at: impl Fn(f64) -> f64) -> usize {
        let mut concurrency = Concurrency::new(most);
        for _ in 0..2000 {
            let running = concurrency.limit();
            concurrency.ended(at(running as f64), running);
        }
        concurrency.limit()
    }

    #[test]
    fn it_grows_while_nothing_gets_slower() {
        assert_eq!(settles(16, |_| 1.0), 16);
        assert_eq!(settles(3, |_| 1.0), 3);
        assert_eq!(settles(1, |_| 9.0), 1);
    }

    #[test]
    fn it_stops_where_restores_share_processors() {
        for processors in [2.0, 8.0, 32.0] {
            let limit = settles(256, |running: f64| (running / processors).max(1.0)) as f64;
            assert!(
                (processors..=3.0 * processors).contains(&limit),
                "{limit} on {processors} processors"
            );
        }
    }

    #[test]
    fn few_say_nothing_about_many() {
        let mut concurrency = Concurrency::new(64);
        (0..100).for_each(|_| concurrency.ended(1.0, 1));
        assert_eq!(concurrency.limit(), FIRST as usize);
    }

    #[test]
    fn it_recovers() {
        let mut concurrency = Concurrency::new(16);
        (0..100).for_each(|_| concurrency.ended(50.0, 16));
        assert!(concurrency.limit() <= 2);
        (0..200).for_each(|_| concurrency.ended(1.0, concurrency.limit()));
        assert_eq!(concurrency.limit(), 16);
    }
}
