//! The script of a [`super::Faulty`]: rules, counts, and who hangs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::{Deadline, Env};
use crate::error::{Result, VmRuntimeError};
use crate::id::{InvalidId, SnapshotId, VmId};
use crate::model::VmStatus;
use crate::transition::Verb;

/// The kinds of calls that rules are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A VM that is to boot.
    Create,
    /// A VM that is to start from a snapshot.
    Restore,
    /// `start_vm`.
    Start,
    /// `stop_vm`.
    Stop,
    /// `snapshot_vm`.
    Snapshot,
    /// `destroy_vm`.
    Destroy,
    /// `rename_vm`; the VM is the one of the old name.
    Rename,
    /// `pause_vm`.
    Pause,
    /// `resume_vm`.
    Resume,
    /// `pin_snapshot`.
    Pin,
    /// `unpin_snapshot`.
    Unpin,
    /// `delete_snapshot`.
    DeleteSnapshot,
    /// `export_snapshot`.
    Export,
    /// `preserve_vm` and `unpreserve_vm`.
    Preserve,
    /// `prefault_vm`.
    Prefault,
    /// `guest_channel` and `connect_vm`.
    GuestChannel,
    /// `probe`.
    Probe,
    /// `console`.
    Console,
    /// `snapshot_fits`.
    Fits,
    /// Every other question: these lag, hang and are answered out of date, and never fail.
    Query,
}

/// Which of the matching calls a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// All of them.
    Always,
    /// This many, from now on.
    Next(u64),
    /// The nth, the 2nth and so on, from now on.
    Every(u64),
    /// Each with this probability.
    Chance(f64),
}

/// What happens then. `Delay` and `Hang` come before the call goes on as usual or as another
/// rule has it; of the others the first one counts. A kind is one of
/// [`VmRuntimeError::KINDS`]; any other text is `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with an error of this kind, and nothing is done.
    Fail(&'static str),
    /// The call takes this much longer.
    Delay(Duration),
    /// The call does not go on before its rule is removed.
    Hang,
    /// The call is done, and its answer is an error of this kind.
    LoseAnswer(&'static str),
    /// The call answers that it is done, and nothing is. What has to answer more than that
    /// fails as `backend`.
    DoNothing,
    /// The call is done and answers that it is done, even where it failed. What has to answer more
    /// than that fails as it does.
    HideError,
    /// The call is done twice, as by somebody on the way who was in doubt; the second answer counts.
    Twice,
    /// The question about VMs is answered as it was last answered without this fault, or as the
    /// first one with it was. What is no such question is as usual.
    Stale,
}

/// Names a rule, to remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

/// A test's handle on a [`super::Faulty`]. When the last clone is dropped the script is empty,
/// and whatever hangs goes on.
#[derive(Clone, Debug)]
pub struct FaultyControl {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    script: Arc<Script>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.script.change(|state| state.rules.clear());
    }
}

impl FaultyControl {
    pub(super) fn new(script: Arc<Script>) -> Self {
        Self { owner: Arc::new(Owner { script }) }
    }

    /// From now on `fault` happens to calls of the kind `call`.
    pub fn add(&self, call: Call, when: When, fault: Fault) -> RuleId {
        self.script().add(None, call, when, fault)
    }

    /// As [`Self::add`], for calls on `vm_id` only.
    pub fn add_for(&self, vm_id: &VmId, call: Call, when: When, fault: Fault) -> RuleId {
        self.script().add(Some(vm_id.clone()), call, when, fault)
    }

    /// Takes a rule back; what hangs by it goes on.
    pub fn remove(&self, rule: RuleId) {
        self.script().change(|state| state.rules.retain(|it| it.id != rule));
    }

    /// Takes every rule back.
    pub fn clear(&self) {
        self.script().change(|state| state.rules.clear());
    }

    /// How many calls of this kind have come, failed ones included.
    pub fn count(&self, call: Call) -> u64 {
        self.script().state.lock().counts.get(&call).copied().unwrap_or_default()
    }

    /// How many calls of this kind hang now.
    pub fn hanging(&self, call: Call) -> usize {
        self.script().state.lock().hanging.get(&call).copied().unwrap_or_default()
    }

    /// Waits until `count` calls of this kind hang; false when `timeout` passes first.
    pub fn wait_hanging(&self, call: Call, count: usize, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        let mut state = self.script().state.lock();
        while state.hanging.get(&call).copied().unwrap_or_default() < count {
            let Some(left) = deadline.left() else { return false };
            self.script().changed.wait_for(&mut state, left);
        }
        true
    }

    fn script(&self) -> &Script {
        &self.owner.script
    }
}

/// The rules and what came of them.
pub(super) struct Script {
    env: Arc<dyn Env>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    next_id: u64,
    counts: HashMap<Call, u64>,
    hanging: HashMap<Call, usize>,
}

#[derive(Debug)]
struct Rule {
    id: RuleId,
    vm_id: Option<VmId>,
    call: Call,
    when: When,
    fault: Fault,
    /// Matching calls so far.
    seen: u64,
}

/// What is left to do with a call after its delays and hangs.
pub(super) enum Order {
    GoOn,
    Fail(&'static str),
    LoseAnswer(&'static str),
    DoNothing,
    HideError,
    Twice,
    Stale,
}

impl Order {
    pub(super) fn obey<R>(
        self,
        call: Call,
        vm_id: Option<&VmId>,
        mut act: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        match self {
            Self::GoOn | Self::HideError | Self::Stale => act(),
            Self::Twice => {
                drop(act());
                act()
            }
            Self::Fail(kind) => Err(error(kind, call, vm_id)),
            Self::LoseAnswer(kind) => act().and_then(|_| Err(error(kind, call, vm_id))),
            Self::DoNothing => Err(error("backend", call, vm_id)),
        }
    }
}

impl Script {
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, state: Mutex::default(), changed: Condvar::new() }
    }

    fn add(&self, vm_id: Option<VmId>, call: Call, when: When, fault: Fault) -> RuleId {
        self.change(|state| {
            state.next_id += 1;
            let id = RuleId(state.next_id);
            state.rules.push(Rule { id, vm_id, call, when, fault, seen: 0 });
            id
        })
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let changed = change(&mut self.state.lock());
        self.changed.notify_all();
        changed
    }

    /// Whether some question may be answered out of date.
    pub(super) fn has_stale(&self) -> bool {
        self.state.lock().rules.iter().any(|rule| rule.fault == Fault::Stale)
    }

    /// Counts a call, lets it lag and hang as the rules have it, and says what is left to do.
    pub(super) fn play(&self, call: Call, vm_id: Option<&VmId>) -> Order {
        let mut state = self.state.lock();
        *state.counts.entry(call).or_default() += 1;
        let due: Vec<_> = state
            .rules
            .iter_mut()
            .filter(|rule| rule.call == call)
            .filter(|rule| rule.vm_id.as_ref().is_none_or(|wanted| Some(wanted) == vm_id))
            .filter_map(|rule| rule.is_due(&*self.env).then_some((rule.id, rule.fault)))
            .collect();
        let mut order = Order::GoOn;
        for (rule, fault) in due {
            let decided = !matches!(order, Order::GoOn);
            match fault {
                Fault::Delay(delay) => self.wait(&mut state, rule, Some(delay)),
                Fault::Hang => {
                    *state.hanging.entry(call).or_default() += 1;
                    self.changed.notify_all();
                    self.wait(&mut state, rule, None);
                    *state.hanging.entry(call).or_default() -= 1;
                }
                _ if decided => {}
                Fault::Fail(kind) => order = Order::Fail(kind),
                Fault::LoseAnswer(kind) => order = Order::LoseAnswer(kind),
                Fault::DoNothing => order = Order::DoNothing,
                Fault::HideError => order = Order::HideError,
                Fault::Twice => order = Order::Twice,
                Fault::Stale => order = Order::Stale,
            }
        }
        order
    }

    /// Waits until the rule is removed, or for `delay`.
    fn wait(
        &self,
        state: &mut parking_lot::MutexGuard<'_, State>,
        rule: RuleId,
        delay: Option<Duration>,
    ) {
        let deadline = delay.map(Deadline::after);
        while state.rules.iter().any(|it| it.id == rule) {
            match deadline.map(|deadline| deadline.left()) {
                None => self.changed.wait(state),
                Some(Some(left)) => drop(self.changed.wait_for(state, left)),
                Some(None) => return,
            }
        }
    }
}

impl Rule {
    fn is_due(&mut self, env: &dyn Env) -> bool {
        self.seen += 1;
        match self.when {
            When::Always => true,
            When::Next(count) => self.seen <= count,
            When::Every(nth) => self.seen.is_multiple_of(nth.max(1)),
            When::Chance(chance) => env.unit() < chance,
        }
    }
}

/// An error of `kind`, as a backend might give it for `call` on `vm_id`.
fn error(kind: &str, call: Call, vm_id: Option<&VmId>) -> VmRuntimeError {
    use VmRuntimeError as E;
    let name = |fallback: &str| vm_id.map_or_else(|| fallback.to_owned(), VmId::to_string);
    let id = VmId::parse(&name("scripted")).expect("a name of the contract is an id");
    let vm = id.to_string();
    let snapshot_id = SnapshotId::parse("scripted").expect("it is an id");
    let what = format!("a scripted fault of {call:?}");
    match kind {
        "invalid_id" => E::InvalidId(InvalidId { id: vm, reason: "a script says so" }),
        "invalid_spec" => E::InvalidSpec { field: "vcpu_count", reason: what },
        "not_found" => E::NotFound { vm_id: id },
        "already_exists" => E::AlreadyExists { vm_id: id },
        "invalid_transition" => {
            E::InvalidTransition { vm_id: id, status: VmStatus::Failed, verb: verb_of(call) }
        }
        "stop_required" => E::StopRequired { vm_id: id },
        "snapshot_not_found" => E::SnapshotNotFound { vm, snapshot_id, reason: what },
        "snapshot_already_exists" => E::SnapshotAlreadyExists { vm_id: id, snapshot_id },
        "snapshot_in_use" => E::SnapshotInUse { snapshot_id, pinned_by: vec![what] },
        "snapshot_incompatible" => E::SnapshotIncompatible { snapshot_id, reason: what },
        "unsupported" => E::Unsupported { what },
        "exhausted" => E::Exhausted { what, retry_after: Some(Duration::from_secs(1)) },
        "timeout" => E::Timeout { what, after: Duration::from_secs(1) },
        "unavailable" => E::Unavailable { what, source: None },
        _ => E::Backend { what, source: None },
    }
}

const fn verb_of(call: Call) -> Verb {
    match call {
        Call::Stop | Call::Pause => Verb::Stop,
        Call::Snapshot | Call::Pin | Call::Unpin | Call::DeleteSnapshot | Call::Preserve => {
            Verb::Snapshot
        }
        Call::Destroy => Verb::Destroy,
        Call::Rename => Verb::Rename,
        Call::Create
        | Call::Restore
        | Call::Start
        | Call::Resume
        | Call::Prefault
        | Call::GuestChannel
        | Call::Probe
        | Call::Console
        | Call::Fits
        | Call::Export
        | Call::Query => Verb::Start,
    }
}
