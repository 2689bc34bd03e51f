//! What clients were told and what was killed: written down beside hearth, and held against it.
//!
//! A kill is noted before it is done, a lease is let go before it is released, and both after they
//! came true: what lies between may have happened or not.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State as VmState;
use hearth_proto::v1::{AcquireVmResponse, Vm};
use hearth_providers::env::{Env as _, SystemEnv};
use parking_lot::Mutex;

/// What is printed in the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) warm: usize,
    pub(crate) cold: usize,
    pub(crate) uses: usize,
    pub(crate) renewals: usize,
    pub(crate) releases: usize,
    pub(crate) expiries: usize,
    /// Leased VMs that were found to be FAILED.
    pub(crate) failures: usize,
    /// Acquires that got their answer at a later try.
    pub(crate) retries: usize,
    /// Of these, those whose VM an earlier try had got already.
    pub(crate) replays: usize,
    pub(crate) vmms_killed: usize,
    pub(crate) hearths_killed: usize,
    /// Leases that were looked for after a restart.
    pub(crate) audited: usize,
}

/// A lease that a client has.
#[derive(Clone, Debug)]
struct Lease {
    name: String,
    pid: i64,
    expire_time: SystemTime,
}

/// A moment of the run: only what was noted before counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

#[derive(Default)]
struct State {
    moment: u64,
    /// Every VM that was answered, and the request that it was answered to.
    answered: HashMap<String, String>,
    leases: HashMap<String, Lease>,
    /// Every VM that was killed, and since when hearth knows.
    killed: HashMap<String, Option<Moment>>,
    released: HashSet<String>,
    seen: HashSet<String>,
    counts: Counts,
    violations: Vec<String>,
}

/// How things stood before a list was asked for.
pub(crate) struct Before {
    /// When each was to end.
    leased: HashMap<String, SystemTime>,
    released: HashSet<String>,
}

/// The ledger of one run.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

impl Ledger {
    pub(crate) fn now(&self) -> Moment {
        let mut state = self.state.lock();
        state.moment += 1;
        Moment(state.moment)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.state.lock().counts);
    }

    pub(crate) fn violation(&self, what: String) {
        println!("violation: {what}");
        self.state.lock().violations.push(what);
    }

    /// A request that was asked for at `asked` was answered.
    pub(crate) fn answered(
        &self,
        request_id: &str,
        asked: Moment,
        got: &AcquireVmResponse,
        vm: &Vm,
    ) {
        let mut state = self.state.lock();
        let mut wrong = Vec::new();
        let before = state.answered.insert(vm.uid.clone(), request_id.to_owned());
        if let Some(other) = before {
            wrong.push(format!("{} was given to {request_id} after {other}", vm.uid));
        }
        let is_running = vm.state() == VmState::Running;
        let was_known_dead =
            state.killed.get(&vm.uid).copied().flatten().is_some_and(|it| it < asked);
        // One that it got before it was killed is its own, dead.
        if was_known_dead && (is_running || !got.replayed) {
            wrong.push(format!("{} was known to be dead when it was handed out: {vm:?}", vm.uid));
        }
        if !is_running && !state.killed.contains_key(&vm.uid) {
            wrong.push(format!("{} does not run, and nobody killed it: {vm:?}", vm.uid));
        }
        state.seen.insert(vm.uid.clone());
        match got.source() {
            Source::Warm => state.counts.warm += 1,
            Source::Cold | Source::Unspecified => state.counts.cold += 1,
        }
        state.leases.insert(vm.uid.clone(), lease(vm));
        drop(state);
        wrong.into_iter().for_each(|what| self.violation(what));
    }

    /// The lease was renewed.
    pub(crate) fn renewed(&self, vm: &Vm) {
        if let Some(lease) = self.state.lock().leases.get_mut(&vm.uid) {
            lease.expire_time = expire_time(vm).max(lease.expire_time);
        }
    }

    /// The client gives it back, or lets it end: from here on it may be there or not.
    pub(crate) fn let_go(&self, uid: &str) {
        self.state.lock().leases.remove(uid);
    }

    /// It is given back.
    pub(crate) fn released(&self, uid: &str) {
        let mut state = self.state.lock();
        state.released.insert(uid.to_owned());
    }

    /// These VMs are there now.
    pub(crate) fn see(&self, uids: impl IntoIterator<Item = String>) {
        self.state.lock().seen.extend(uids);
    }

    pub(crate) fn killing(&self, uid: &str) {
        self.state.lock().killed.insert(uid.to_owned(), None);
    }

    /// It had ended by itself or was gone.
    pub(crate) fn not_killed(&self, uid: &str) {
        let mut state = self.state.lock();
        if state.killed.get(uid) == Some(&None) {
            state.killed.remove(uid);
        }
    }

    /// From now on hearth knows that it is dead.
    pub(crate) fn known_dead(&self, uid: &str) {
        let now = self.now();
        self.state.lock().killed.insert(uid.to_owned(), Some(now));
    }

    pub(crate) fn is_killed(&self, uid: &str) -> bool {
        self.state.lock().killed.contains_key(uid)
    }

    pub(crate) fn expire_time(&self, uid: &str) -> Option<SystemTime> {
        self.state.lock().leases.get(uid).map(|lease| lease.expire_time)
    }

    /// What is leased and what was released by now, to be held against a later list.
    pub(crate) fn before(&self) -> Before {
        let state = self.state.lock();
        let end = |(uid, lease): (&String, &Lease)| (uid.clone(), lease.expire_time);
        let leased = state.leases.iter().map(end).collect();
        Before { leased, released: state.released.clone() }
    }

    /// Holds `listed`, which hearth has answered since, against the leases that clients had `before`
    /// and still have, and what they had given back.
    pub(crate) fn audit(&self, before: &Before, listed: &[Vm]) {
        let now = SystemEnv.now();
        let listed: HashMap<_, _> = listed.iter().map(|vm| (&vm.uid, vm)).collect();
        let mut wrong = Vec::new();
        let mut state = self.state.lock();
        let held = state.leases.iter().filter(|(uid, _)| before.leased.contains_key(*uid));
        let held: Vec<_> = held.filter(|(_, lease)| lease.expire_time > now).collect();
        let audited = held.len();
        for (uid, lease) in held {
            let is_killed = state.killed.contains_key(uid);
            let Some(vm) = listed.get(uid) else {
                wrong.push(format!("the lease of {uid} is lost: {lease:?}"));
                continue;
            };
            if vm.name != lease.name || vm.lease.is_none() {
                wrong.push(format!("{lease:?} became {vm:?}"));
            }
            // It may have been renewed since the list was made.
            if before.leased.get(uid).is_some_and(|end| expire_time(vm) < *end) {
                wrong.push(format!("{lease:?} now ends before: {vm:?}"));
            }
            let pid = vm.process.as_ref().map_or(0, |process| process.pid);
            let lives = vm.state() == VmState::Running && pid == lease.pid;
            if !lives && !is_killed {
                wrong.push(format!("{lease:?} does not run on, and nobody killed it: {vm:?}"));
            }
        }
        for uid in before.released.iter().filter(|uid| listed.contains_key(uid)) {
            let vm = listed[uid];
            if vm.lease.is_some() {
                wrong.push(format!("it was released, and is leased: {vm:?}"));
            }
        }
        state.counts.audited += audited;
        drop(state);
        wrong.into_iter().for_each(|what| self.violation(what));
    }

    /// Every VM there was.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().seen.iter().cloned().collect()
    }

    /// What came of it.
    pub(crate) fn outcome(&self) -> (Counts, Vec<String>) {
        let state = self.state.lock();
        (state.counts, state.violations.clone())
    }
}

fn lease(vm: &Vm) -> Lease {
    let pid = vm.process.as_ref().map_or(0, |process| process.pid);
    Lease { name: vm.name.clone(), pid, expire_time: expire_time(vm) }
}

fn expire_time(vm: &Vm) -> SystemTime {
    let time = vm.lease.as_ref().and_then(|lease| lease.expire_time);
    let (seconds, nanos) = time.map_or((0, 0), |time| (time.seconds, time.nanos));
    let since = Duration::new(seconds.try_into().unwrap_or(0), nanos.try_into().unwrap_or(0));
    SystemTime::UNIX_EPOCH + since
}
