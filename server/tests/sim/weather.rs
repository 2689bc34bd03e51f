//! What the provider does to the service: how long its calls take, which fail, which hang for a
//! while, and whose answers are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_pool::config::Limits;
use hearth_pool::jobs::{Class, Latency};
use hearth_providers::faulty::{Call, Fault, FaultyControl, When};

use crate::env::{Dice, SimEnv};
use crate::history::{History, What};

/// The bounds of the service: short ones, so that each of them is met.
pub(crate) fn limits() -> Limits {
    Limits {
        max_parallel_restores: 4,
        max_waiting: 6,
        max_wait: Duration::from_secs(3),
        restore_timeout: Duration::from_secs(2),
        probe_timeout: Duration::from_secs(1),
        verb_timeout: Duration::from_secs(1),
        build_timeout: Duration::from_secs(60),
        freeze_timeout: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Errors that say nothing about the VM.
const KINDS: [&str; 4] = ["backend", "timeout", "unavailable", "exhausted"];

/// What fails in a bad life, and how often at the most, in percent: alone, and with the work done.
/// A create that fails leaves nothing, says the contract, and a rename is local: their answers are
/// lost only as those of a job that hangs.
const FAULTS: [(Call, u64, u64); 11] = [
    (Call::Restore, 25, 4),
    (Call::Probe, 10, 0),
    (Call::Rename, 8, 4),
    (Call::Destroy, 20, 10),
    (Call::Resume, 10, 4),
    (Call::Pause, 10, 4),
    (Call::Create, 10, 0),
    (Call::Pin, 10, 0),
    (Call::Snapshot, 10, 0),
    (Call::Preserve, 10, 4),
    (Call::Unpin, 10, 4),
];

/// The weather over the lives of one seed.
pub(crate) struct Weather {
    pub(crate) faults: FaultyControl,
    is_bad: Arc<AtomicBool>,
    pub(crate) latency: Latency,
}

impl Weather {
    pub(crate) fn new(
        seed: u64,
        env: &Arc<SimEnv>,
        history: &History,
        faults: FaultyControl,
    ) -> Self {
        let is_bad = Arc::new(AtomicBool::new(false));
        let (bad, dice) = (Arc::clone(&is_bad), Dice::new(seed, 7));
        let (env, history) = (Arc::clone(env), history.clone());
        let latency: Latency = Arc::new(move |class| {
            let hangs = bad.load(Ordering::Relaxed) && dice.percent(1);
            let (usual, name) = match class {
                Class::Restore => (dice.millis(10, 60), "restore"),
                Class::Destroy => (dice.millis(2, 40), "destroy"),
                Class::Verb => (dice.millis(1, 8), "verb"),
                Class::Build => (dice.millis(50, 200), "build"),
                Class::Export => (dice.millis(1, 5), "export"),
                Class::Journal => (dice.millis(1, 8), "journal"),
            };
            // A hang ends later than any job is waited for.
            let latency = if hangs { dice.millis(2_100, 4_000) } else { usual };
            history.push(What::Job { class: name, until: env.world_time() + latency });
            latency
        });
        Self { faults, is_bad, latency }
    }

    /// Nothing fails any more.
    pub(crate) fn clear(&self) {
        self.faults.clear();
        self.is_bad.store(false, Ordering::Relaxed);
    }

    /// Another life's weather.
    pub(crate) fn change(&self, dice: &Dice) {
        self.clear();
        self.is_bad.store(dice.percent(80), Ordering::Relaxed);
        for (call, fails, loses) in FAULTS {
            let kind = *dice.pick(&KINDS).unwrap_or(&"backend");
            if dice.percent(60) {
                let chance = dice.below(fails + 1) as f64 / 100.0;
                self.faults.add(call, When::Chance(chance), Fault::Fail(kind));
            }
            if dice.percent(60) {
                let chance = dice.below(loses + 1) as f64 / 100.0;
                self.faults.add(call, When::Chance(chance), Fault::LoseAnswer(kind));
            }
        }
    }
}
