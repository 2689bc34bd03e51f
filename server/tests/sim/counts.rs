//! How often it happened what a simulation is for.

use crate::history::{Answer, Ask, What};

/// So often in one seed, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    crashes: u64,
    cancels: u64,
    replays: u64,
    cold_acquires: u64,
    pub(crate) expiries: u64,
    provider_errors: u64,
    torn_tails: u64,
    reboots: u64,
    overrides: u64,
    freezes: u64,
    resumes: u64,
    deletions: u64,
}

impl Counts {
    /// Each with its name, and in how many of a hundred seeds it has to happen, on average. Most
    /// lives end without a reboot, so that what they leave running is met.
    pub(crate) const fn all(&self) -> [(&'static str, u64, u64); 12] {
        [
            ("crashes", self.crashes, 100),
            ("cancels", self.cancels, 100),
            ("replays", self.replays, 100),
            ("cold acquires", self.cold_acquires, 100),
            ("expiries", self.expiries, 100),
            ("provider errors", self.provider_errors, 100),
            ("torn tails", self.torn_tails, 100),
            ("reboots", self.reboots, 30),
            ("network overrides", self.overrides, 100),
            ("freezes", self.freezes, 100),
            ("resumes", self.resumes, 50),
            ("artifacts deleted", self.deletions, 100),
        ]
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.cancels += other.cancels;
        self.replays += other.replays;
        self.cold_acquires += other.cold_acquires;
        self.expiries += other.expiries;
        self.provider_errors += other.provider_errors;
        self.torn_tails += other.torn_tails;
        self.reboots += other.reboots;
        self.overrides += other.overrides;
        self.freezes += other.freezes;
        self.resumes += other.resumes;
        self.deletions += other.deletions;
    }

    /// Notes what happened.
    pub(crate) const fn note(&mut self, what: &What) {
        match what {
            What::Crash(_) => self.crashes += 1,
            What::Leave(_) => self.cancels += 1,
            What::Failed { .. } => self.provider_errors += 1,
            What::Torn(_) => self.torn_tails += 1,
            What::Rebooted => self.reboots += 1,
            What::Answer(_, Answer::Frozen(_)) => self.freezes += 1,
            What::Answer(_, Answer::Resumed(_)) => self.resumes += 1,
            What::Ask(_, _, Ask::DeleteArtifact { .. }) => self.deletions += 1,
            _ => {}
        }
    }

    /// Notes that an acquire was answered.
    pub(crate) fn got(&mut self, ask: &Ask, answer: &Answer) {
        let (Ask::Acquire(ask), Answer::Got { replayed, is_cold, .. }) = (ask, answer) else {
            return;
        };
        self.replays += u64::from(*replayed);
        self.cold_acquires += u64::from(*is_cold && !replayed);
        self.overrides += u64::from(ask.device.is_some() && !replayed);
    }
}
