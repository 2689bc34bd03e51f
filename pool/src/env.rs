//! Time and randomness from outside: the real ones, and a world whose time is tokio's.

use std::time::{Duration, SystemTime};

pub use hearth_providers::env::{Env, SeededEnv, SystemEnv};
use tokio::time::Instant;

/// A world that a seed determines and whose clocks follow tokio's, which a test may pause.
#[derive(Debug)]
pub struct VirtualEnv {
    seeded: SeededEnv,
    begun: Instant,
}

impl VirtualEnv {
    /// The world of `seed`, beginning now.
    pub fn new(seed: u64) -> Self {
        Self { seeded: SeededEnv::new(seed), begun: Instant::now() }
    }

    /// Steps the wall clock alone.
    pub fn step_wall_clock(&self, by: Duration) {
        self.seeded.step_wall_clock(by);
    }
}

impl Env for VirtualEnv {
    fn now(&self) -> SystemTime {
        self.seeded.now() + self.begun.elapsed()
    }

    fn boot_time(&self) -> Duration {
        self.seeded.boot_time() + self.begun.elapsed()
    }

    fn boot_id(&self) -> String {
        self.seeded.boot_id()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.seeded.fill(bytes);
    }
}
