//! The world of a seed: clocks that go on over the lives of the service and the boots of its host,
//! and dice.

use std::time::{Duration, SystemTime};

use hearth_pool::env::{Env, SeededEnv};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A world whose clocks follow the paused clock of the life under way.
pub(crate) struct SimEnv {
    seeded: SeededEnv,
    /// When the life under way began, by its runtime's clock.
    begun: Mutex<Option<Instant>>,
    wall_step: Mutex<i64>,
    boot: Mutex<Boot>,
}

/// The host's kernel.
#[derive(Clone, Copy, Default)]
struct Boot {
    number: u64,
    /// When it was booted, by the world's clock; the first one long before the world began.
    at: Duration,
}

impl SimEnv {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seeded: SeededEnv::new(seed),
            begun: Mutex::default(),
            wall_step: Mutex::default(),
            boot: Mutex::default(),
        }
    }

    /// A life begins; called on its runtime.
    pub(crate) fn begin(&self) {
        *self.begun.lock() = Some(Instant::now());
    }

    /// It ends; called on its runtime. The time it took is kept.
    pub(crate) fn end(&self) {
        if let Some(begun) = self.begun.lock().take() {
            self.seeded.advance(begun.elapsed());
        }
    }

    /// Steps the wall clock by so many seconds, either way.
    pub(crate) fn step(&self, seconds: i64) {
        *self.wall_step.lock() += seconds;
    }

    /// The host is booted anew.
    pub(crate) fn reboot(&self) {
        let at = self.world_time();
        let mut boot = self.boot.lock();
        *boot = Boot { number: boot.number + 1, at };
    }

    /// Time by a clock that nothing steps and no boot begins anew.
    pub(crate) fn world_time(&self) -> Duration {
        self.seeded.boot_time() + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.begun.lock().map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

impl Env for SimEnv {
    fn now(&self) -> SystemTime {
        let now = self.seeded.now() + self.elapsed();
        let step = *self.wall_step.lock();
        let by = Duration::from_secs(step.unsigned_abs());
        if step < 0 { now - by } else { now + by }
    }

    fn boot_time(&self) -> Duration {
        self.world_time() - self.boot.lock().at
    }

    fn boot_id(&self) -> String {
        format!("{}-{}", self.seeded.boot_id(), self.boot.lock().number)
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.seeded.fill(bytes);
    }
}

/// Chance for one actor: no other actor's throws change its own.
pub(crate) struct Dice(SeededEnv);

impl Dice {
    /// The dice of the actor `stream` in the world of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(SeededEnv::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream))
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut bits = [0; 8];
        self.0.fill(&mut bits);
        u64::from_le_bytes(bits) % bound.max(1)
    }

    /// True in so many of a hundred throws.
    pub(crate) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A time of `from` to `to` milliseconds.
    pub(crate) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// One of `choices`.
    pub(crate) fn pick<'a, T>(&self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(usize::try_from(self.below(choices.len() as u64)).ok()?)
    }
}
