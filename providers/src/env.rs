//! Time and randomness come in from outside, so that a test can step the one and repeat the
//! other.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::id::Uid;

/// Wall time, time since boot, and random bits.
pub trait Env: Send + Sync + 'static {
    /// The wall clock: for people, never for deadlines.
    fn now(&self) -> SystemTime;

    /// Time since the host booted, sleep included; never goes back, a step of the wall clock
    /// does not move it. Deadlines that outlive the process are kept in it.
    fn boot_time(&self) -> Duration;

    /// Names this boot of the host's kernel: processes and boot times of another one mean
    /// nothing.
    fn boot_id(&self) -> String;

    /// Fills `bytes` with random bits.
    fn fill(&self, bytes: &mut [u8]);

    /// A fresh uid.
    fn uid(&self) -> Uid {
        let mut bits = [0; 16];
        self.fill(&mut bits);
        Uid::from_random(bits)
    }

    /// A fresh uid that sorts by the wall clock: what is stored under such uids is stored side by
    /// side when it was made at the same time.
    fn uid_in_order(&self) -> Uid {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut bits = [0; 10];
        self.fill(&mut bits);
        Uid::from_time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), &bits)
    }

    /// A number in `0.0..1.0`, for jitter.
    fn unit(&self) -> f64 {
        let mut bits = [0; 4];
        self.fill(&mut bits);
        f64::from(u32::from_le_bytes(bits)) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The real world.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    #[cfg(target_os = "linux")]
    fn boot_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    #[cfg(not(target_os = "linux"))]
    fn boot_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    }

    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// A moment of the real world that blocking waits for a backend end at.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Duration);

impl Deadline {
    /// `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        Self(SystemEnv.boot_time().saturating_add(timeout))
    }

    /// What is left; `None` when it has passed.
    pub fn left(&self) -> Option<Duration> {
        self.0.checked_sub(SystemEnv.boot_time()).filter(|left| !left.is_zero())
    }
}

/// A world that a seed determines and whose clocks move when told.
#[derive(Debug)]
pub struct SeededEnv {
    random: Mutex<StdRng>,
    elapsed: Mutex<Duration>,
    wall_step: Mutex<Duration>,
    boot_id: String,
}

impl SeededEnv {
    /// The world of `seed`, an hour after boot and 50 years after the epoch.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            elapsed: Mutex::new(Duration::from_secs(3600)),
            wall_step: Mutex::new(Duration::from_secs(50 * 365 * 24 * 3600)),
            boot_id: format!("seeded-{seed}"),
        }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock() += by;
    }

    /// Steps the wall clock forward alone, as an administrator or NTP would.
    pub fn step_wall_clock(&self, by: Duration) {
        *self.wall_step.lock() += by;
    }
}

impl Env for SeededEnv {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + *self.wall_step.lock() + *self.elapsed.lock()
    }

    fn boot_time(&self) -> Duration {
        *self.elapsed.lock()
    }

    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.random.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_uids() {
        assert_eq!(SeededEnv::new(1).uid(), SeededEnv::new(1).uid());
        assert_ne!(SeededEnv::new(1).uid(), SeededEnv::new(2).uid());
    }

    #[test]
    fn a_step_of_the_wall_clock_leaves_boot_time_alone() {
        let env = SeededEnv::new(1);
        let (wall, boot) = (env.now(), env.boot_time());
        env.step_wall_clock(Duration::from_secs(7));
        assert_eq!(env.now(), wall + Duration::from_secs(7));
        assert_eq!(env.boot_time(), boot);
    }
}
