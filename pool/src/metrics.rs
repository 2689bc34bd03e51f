//! Every metric of this crate: its name, what it means, and one function for each observation.
//! Label sets are bounded by configuration and there from 0; ids and tenants are not labels. What has a
//! pool's name goes with the pool ([`recorder`]).

pub mod recorder;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_providers::VmRuntimeError;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use parking_lot::Mutex;

use crate::error::Error;
use crate::journal::Source;

/// The bounds of every histogram, in seconds.
pub const HISTOGRAM_BOUNDS_SECONDS: [f64; 20] = [
    25e-6, 50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3,
    100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0,
];

/// The stages of an acquire.
const STAGES: [&str; 6] = ["queue", "select", "commit", "resume", "restore", "total"];
/// The parts of a restore: the provider's work, until the guest is ready, and what the pool has it do
/// before it waits.
const RESTORE_STAGES: [&str; 4] = ["provider", "probe", "prepare", "total"];
/// Why acquires fail, of what is to be expected: there from 0. Mistakes of callers come as they are made.
const FAILURES: [&str; 15] = [
    "capacity_exhausted",
    "cold_path_saturated",
    "deadline_too_short",
    "draining",
    "internal",
    "pool_draining",
    "pool_empty",
    "quota_exceeded",
    "rate_limited",
    "rename_failed",
    "request_log_full",
    "restore_failed",
    "storage",
    "template_not_ready",
    "timeout",
];
/// What a guest is told of who it is, and how that went.
const IDENTITY: ([&str; 4], [&str; 2]) = (["env", "files", "hostname", "secrets"], ["ok", "error"]);
/// What reaping at a start counts.
const ORPHANS: [&str; 7] =
    ["cgroup", "container", "instance", "process", "snapshot", "socket", "vm"];
/// Why a warm VM was thrown away.
const DISCARDS: [&str; 6] =
    ["died", "over_age", "surplus", "old_generation", "not_ready", "probe_failed"];
/// Why a caller was turned away from the cold path.
const REJECTIONS: [&str; 6] =
    ["saturated", "deadline", "breaker", "warm_only", "unmeasured", "capacity"];

/// Says what each metric means, and makes those without a pool be there from 0.
pub fn describe() {
    let seconds = Unit::Seconds;
    describe_counter!("hearth_acquires_total", "Acquires answered, by source, result and reason");
    describe_histogram!("hearth_acquire_duration_seconds", seconds, "Time an acquire took here");
    describe_histogram!(
        "hearth_acquire_stage_duration_seconds",
        seconds,
        "Time of each stage of successful acquires"
    );
    describe_histogram!(
        "hearth_restore_duration_seconds",
        seconds,
        "Time of each stage of restores that succeeded"
    );
    describe_histogram!(
        "hearth_time_to_ready_seconds",
        seconds,
        "Time from the wish for a VM until its guest was ready, waits included: for the pool, or for one caller"
    );
    describe_counter!(
        "hearth_identity_steps_total",
        "Steps of telling a guest who it is; none as long as identities are refused as not built"
    );
    describe_counter!("hearth_restore_failures_total", "Restores that failed, by reason");
    describe_counter!("hearth_rename_failures_total", "Handovers that failed after the commit");
    describe_gauge!("hearth_warm_vms", "VMs that wait for a tenant");
    describe_gauge!("hearth_target_vms", "VMs that should wait for a tenant");
    describe_gauge!("hearth_restoring_vms", "VMs being restored");
    describe_gauge!("hearth_leased_vms", "VMs that tenants have");
    describe_gauge!("hearth_quarantined_vms", "Failed VMs kept for their evidence");
    describe_gauge!("hearth_oldest_warm_age_seconds", seconds, "Age of the oldest warm VM");
    describe_counter!("hearth_stale_discarded_total", "Warm VMs thrown away, by reason");
    describe_gauge!("hearth_cold_inflight", "Callers that wait for a restore");
    describe_counter!("hearth_cold_rejected_total", "Callers turned away from the cold path");
    describe_gauge!(
        "hearth_breaker_open",
        "Pools of the template whose restores are not tried for a while, as they failed"
    );
    describe_gauge!("hearth_demand_claims_per_second", "Claims that the sizing reckons with");
    describe_gauge!("hearth_predicted_miss_ratio", "Share of claims expected to find nothing warm");
    describe_gauge!(
        "hearth_refill_saturation_ratio",
        "Offered load over the restores that may run at once: from 1 on no depth is enough"
    );
    describe_counter!(
        "hearth_pool_empty_seconds_total",
        seconds,
        "Time during which a pool that should have warm VMs had none"
    );
    describe_counter!("hearth_lease_expired_total", "Leases that ended by time");
    describe_counter!("hearth_orphans_reaped_total", "What a start found that was nobody's");
    describe_histogram!(
        "hearth_journal_append_duration_seconds",
        seconds,
        "Time until the kernel has a lease's record"
    );
    counter!("hearth_lease_expired_total").absolute(0);
    gauge!("hearth_cold_inflight").set(0.0);
    for kind in ORPHANS {
        counter!("hearth_orphans_reaped_total", "kind" => kind).absolute(0);
    }
    for reason in REJECTIONS {
        counter!("hearth_cold_rejected_total", "reason" => reason).absolute(0);
    }
    for reason in VmRuntimeError::KINDS {
        counter!("hearth_rename_failures_total", "reason" => reason).absolute(0);
    }
    for (step, result) in IDENTITY.0.iter().flat_map(|step| IDENTITY.1.map(|it| (*step, it))) {
        counter!("hearth_identity_steps_total", "step" => step, "result" => result).absolute(0);
    }
}

/// Makes a provider's metrics be there from 0.
pub fn provider_known(provider: &str) {
    for reason in VmRuntimeError::KINDS {
        let provider = provider.to_owned();
        counter!("hearth_restore_failures_total", "provider" => provider, "reason" => reason)
            .absolute(0);
    }
}

/// The metrics of one pool, looked up once: they are shown as long as it has them.
#[derive(Debug)]
pub struct PoolMetrics {
    pool: String,
    warm: Gauge,
    target: Gauge,
    restoring: Gauge,
    leased: Gauge,
    quarantined: Gauge,
    oldest_warm_age: Gauge,
    claims_per_second: Gauge,
    predicted_miss_ratio: Gauge,
    saturation: Gauge,
    empty_seconds: Counter,
    breaker: Mutex<Breaker>,
    acquires: [Counter; 2],
    failures: Mutex<BTreeMap<&'static str, Counter>>,
    discards: [Counter; DISCARDS.len()],
    durations: [Histogram; 2],
    failed_duration: Histogram,
    stages: [Histogram; 6],
    restore_stages: [Histogram; RESTORE_STAGES.len()],
    time_to_ready: [Histogram; 2],
    provider: String,
}

/// This pool's part in the gauge of its template.
#[derive(Debug)]
struct Breaker {
    template: String,
    open: Gauge,
    is_open: bool,
}

impl Breaker {
    fn of(template: &str) -> Self {
        let open = gauge!("hearth_breaker_open", "template" => template.to_owned());
        Self { template: template.to_owned(), open, is_open: false }
    }

    fn set(&mut self, is_open: bool) {
        if is_open != self.is_open {
            self.open.increment(if is_open { 1.0 } else { -1.0 });
            self.is_open = is_open;
        }
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// How long each part of a restore took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreTiming {
    /// What the provider was asked for.
    pub provider: Duration,
    /// Until the guest was ready.
    pub probe: Duration,
    /// Warm-up, reading its memory in, pausing it.
    pub prepare: Duration,
    /// All of it, the wait for a thread included.
    pub total: Duration,
}

/// How long each stage of an acquire took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// In line, until a VM came.
    pub queue: Duration,
    /// Choosing a warm one.
    pub select: Duration,
    /// The journal append and the rename.
    pub commit: Duration,
    /// Letting a paused VM go on.
    pub resume: Duration,
    /// The restore that was waited for, of a dedicated VM.
    pub restore: Duration,
    /// From the call's arrival to its answer.
    pub total: Duration,
}

impl PoolMetrics {
    /// Those of `pool`, all there from 0.
    pub fn new(pool: &str, template: &str, provider: &str) -> Self {
        let gauge = |name: &'static str| gauge!(name, "pool" => pool.to_owned());
        let source = ["warm", "cold"];
        let failures = FAILURES.map(|reason| (reason, failed_counter(pool, reason)));
        Self {
            pool: pool.to_owned(),
            warm: gauge("hearth_warm_vms"),
            target: gauge("hearth_target_vms"),
            claims_per_second: gauge("hearth_demand_claims_per_second"),
            predicted_miss_ratio: gauge("hearth_predicted_miss_ratio"),
            saturation: gauge("hearth_refill_saturation_ratio"),
            empty_seconds: counter!("hearth_pool_empty_seconds_total", "pool" => pool.to_owned()),
            restoring: gauge("hearth_restoring_vms"),
            leased: gauge("hearth_leased_vms"),
            quarantined: gauge("hearth_quarantined_vms"),
            oldest_warm_age: gauge("hearth_oldest_warm_age_seconds"),
            breaker: Mutex::new(Breaker::of(template)),
            acquires: source.map(|source| {
                counter!("hearth_acquires_total", "pool" => pool.to_owned(), "source" => source, "result" => "ok", "reason" => "")
            }),
            failures: Mutex::new(failures.into()),
            discards: DISCARDS.map(|reason| {
                counter!("hearth_stale_discarded_total", "pool" => pool.to_owned(), "reason" => reason)
            }),
            durations: source.map(|source| {
                histogram!("hearth_acquire_duration_seconds", "pool" => pool.to_owned(), "source" => source, "result" => "ok")
            }),
            failed_duration: histogram!("hearth_acquire_duration_seconds", "pool" => pool.to_owned(), "source" => "", "result" => "error"),
            stages: STAGES
                .map(|stage| histogram!("hearth_acquire_stage_duration_seconds", "stage" => stage)),
            restore_stages: RESTORE_STAGES.map(|stage| {
                histogram!("hearth_restore_duration_seconds", "provider" => provider.to_owned(), "stage" => stage)
            }),
            time_to_ready: source.map(|source| {
                histogram!("hearth_time_to_ready_seconds", "pool" => pool.to_owned(), "source" => source)
            }),
            provider: provider.to_owned(),
        }
    }

    /// An acquire succeeded.
    pub fn acquired(&self, source: Source, timing: &Timing) {
        let index = index(source);
        self.acquires[index].increment(1);
        self.durations[index].record(timing.total.as_secs_f64());
        let Timing { queue, select, commit, resume, restore, total } = *timing;
        let stages = self.stages.iter().zip([queue, select, commit, resume, restore, total]);
        // A stage that an acquire did not have says nothing of those that had it.
        for (stage, took) in stages.filter(|it| !it.1.is_zero()) {
            stage.record(took.as_secs_f64());
        }
    }

    /// An acquire failed.
    pub fn acquire_failed(&self, error: &Error, took: Duration) {
        let reason = error.reason();
        let mut failures = self.failures.lock();
        failures.entry(reason).or_insert_with(|| failed_counter(&self.pool, reason)).increment(1);
        drop(failures);
        self.failed_duration.record(took.as_secs_f64());
    }

    /// A restore succeeded. A part that took no time was not asked for.
    pub fn restored(&self, timing: &RestoreTiming) {
        let RestoreTiming { provider, probe, prepare, total } = *timing;
        let stages = self.restore_stages.iter().zip([provider, probe, prepare, total]);
        for (stage, took) in stages.filter(|it| !it.1.is_zero()) {
            stage.record(took.as_secs_f64());
        }
    }

    /// A guest is ready, so long after a VM was wished for: for the pool, or for one caller.
    pub fn ready(&self, source: Source, took: Duration) {
        self.time_to_ready[index(source)].record(took.as_secs_f64());
    }

    /// A restore failed.
    pub fn restore_failed(&self, error: &VmRuntimeError) {
        let (provider, reason) = (self.provider.clone(), error.kind());
        counter!("hearth_restore_failures_total", "provider" => provider, "reason" => reason)
            .increment(1);
    }

    /// A warm VM was thrown away; `reason` is one of a fixed set.
    pub fn discarded(&self, reason: &'static str) {
        let counter = DISCARDS.iter().position(|it| *it == reason).map(|at| &self.discards[at]);
        debug_assert!(counter.is_some(), "{reason} is not in the list");
        counter.into_iter().for_each(|counter| counter.increment(1));
    }

    /// How many are warm, should be, are being restored.
    pub fn counts(&self, warm: usize, target: usize, restoring: usize) {
        self.warm.set(warm as f64);
        self.target.set(target as f64);
        self.restoring.set(restoring as f64);
    }

    /// How many tenants have.
    pub fn leased(&self, leased: usize) {
        self.leased.set(leased as f64);
    }

    /// How many of them ended by themselves.
    pub fn quarantined(&self, quarantined: usize) {
        self.quarantined.set(quarantined as f64);
    }

    /// How old the oldest warm one is; zero when there is none.
    pub fn oldest_warm_age(&self, age: Duration) {
        self.oldest_warm_age.set(age.as_secs_f64());
    }

    /// What demand is, which share of it will find nothing, and how much of what restores can do
    /// it takes.
    pub fn planned(&self, claims_per_second: f64, predicted_miss_ratio: f64, saturation: f64) {
        self.claims_per_second.set(claims_per_second);
        self.predicted_miss_ratio.set(predicted_miss_ratio);
        self.saturation.set(saturation);
    }

    /// For how long in all it had nothing warm and should have had, in whole seconds.
    pub fn empty_for(&self, in_all: Duration) {
        self.empty_seconds.absolute(in_all.as_secs());
    }

    /// Whether restores from its template are held back.
    pub fn breaker(&self, template: &str, is_open: bool) {
        let mut breaker = self.breaker.lock();
        if breaker.template != template {
            *breaker = Breaker::of(template);
        }
        breaker.set(is_open);
    }
}

const fn index(source: Source) -> usize {
    match source {
        Source::Warm => 0,
        Source::Cold => 1,
    }
}

fn failed_counter(pool: &str, reason: &'static str) -> Counter {
    counter!("hearth_acquires_total", "pool" => pool.to_owned(), "source" => "", "result" => "error", "reason" => reason)
}

/// A caller was turned away from the cold path.
pub fn cold_rejected(reason: &'static str) {
    counter!("hearth_cold_rejected_total", "reason" => reason).increment(1);
}

/// How many callers wait for a restore.
pub fn cold_inflight(change: f64) {
    gauge!("hearth_cold_inflight").increment(change);
}

/// A handover failed after the commit.
pub fn rename_failed(error: &VmRuntimeError) {
    counter!("hearth_rename_failures_total", "reason" => error.kind()).increment(1);
}

/// A lease ended by time.
pub fn lease_expired() {
    counter!("hearth_lease_expired_total").increment(1);
}

/// A start found `count` of `kind` that were nobody's.
pub fn orphans_reaped(kind: &'static str, count: usize) {
    counter!("hearth_orphans_reaped_total", "kind" => kind).increment(count as u64);
}

/// The metrics of the journal, looked up once.
#[derive(Debug)]
pub struct JournalMetrics {
    append: Histogram,
}

impl JournalMetrics {
    /// Those of the one journal.
    pub fn new() -> Self {
        Self { append: histogram!("hearth_journal_append_duration_seconds") }
    }

    /// The kernel has a lease's record.
    pub fn appended(&self, took: Duration) {
        self.append.record(took.as_secs_f64());
    }
}

impl Default for JournalMetrics {
    fn default() -> Self {
        Self::new()
    }
}
