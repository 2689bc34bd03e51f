//! What goes wrong: one row for each, and one with a handful.

use std::time::Duration;

use hearth_providers::VmRuntimeError;
use hearth_providers::faulty::{Call, Fault, FaultyControl, When};

/// Longer than anything may take on the memory provider, and soon over.
const SLOW: Duration = Duration::from_millis(40);
/// How often something goes wrong that could otherwise never be done.
const OFTEN: When = When::Chance(0.3);
const RARELY: When = When::Chance(0.1);

/// Something that goes wrong.
pub(crate) struct Row {
    pub(crate) name: String,
    rules: Vec<(Call, When, Fault)>,
    /// The provider says that a VM is gone, or called otherwise, that is not: a running pool believes
    /// it, and the next start looks.
    pub(crate) is_found_at_a_start: bool,
}

impl Row {
    fn new(name: &str, rules: Vec<(Call, When, Fault)>) -> Self {
        Self { name: name.to_owned(), rules, is_found_at_a_start: false }
    }

    /// From now on it goes wrong.
    pub(crate) fn begin(&self, control: &FaultyControl) {
        for (call, when, fault) in &self.rules {
            control.add(*call, *when, *fault);
        }
    }
}

/// What a pool asks of its provider while it serves.
const CALLS: [Call; 8] = [
    Call::Restore,
    Call::Probe,
    Call::Rename,
    Call::Destroy,
    Call::Snapshot,
    Call::Pin,
    Call::Unpin,
    Call::Resume,
];

/// What is done on threads of their own: only that may hang.
const ASIDE: [Call; 4] = [Call::Restore, Call::Probe, Call::Destroy, Call::Snapshot];

fn of(calls: &[Call], when: When, fault: Fault) -> Vec<(Call, When, Fault)> {
    calls.iter().map(|call| (*call, when, fault)).collect()
}

/// Every row.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in VmRuntimeError::KINDS {
        let rules = of(&CALLS, OFTEN, Fault::Fail(kind));
        rows.push(Row::new(&format!("calls_fail_as_{kind}"), rules));
    }
    for call in CALLS {
        let name = format!("{call:?}").to_lowercase();
        let row = |what: &str, rules| Row::new(&format!("{name}_{what}"), rules);
        rows.push(row("fails_always_for_a_while", vec![(call, When::Next(12), fail())]));
        rows.push(row("loses_its_answer", vec![(call, OFTEN, Fault::LoseAnswer("unavailable"))]));
        rows.push(row("is_done_twice", vec![(call, OFTEN, Fault::Twice)]));
        rows.push(row(
            "hides_its_error",
            vec![(call, OFTEN, Fault::HideError), (call, OFTEN, Fault::Twice)],
        ));
        let is_found_at_a_start = call == Call::Rename;
        let lies = row("says_it_is_done", vec![(call, OFTEN, Fault::DoNothing)]);
        rows.push(Row { is_found_at_a_start, ..lies });
    }
    for call in ASIDE {
        let name = format!("{call:?}_hangs").to_lowercase();
        rows.push(Row::new(&name, vec![(call, When::Next(2), Fault::Hang)]));
    }
    rows.push(Row::new("all_is_slow", of(&CALLS, When::Always, Fault::Delay(SLOW))));
    let mut slow_at_times = of(&CALLS, OFTEN, Fault::Delay(SLOW * 10));
    slow_at_times.push((Call::Query, When::Chance(0.02), Fault::Delay(SLOW)));
    rows.push(Row::new("some_is_slow", slow_at_times));
    for (name, when) in [("late", OFTEN), ("as_at_first", When::Always)] {
        let row = Row::new(&format!("questions_are_answered_{name}"), vec![stale(when)]);
        rows.push(Row { is_found_at_a_start: true, ..row });
    }
    rows.extend(handfuls());
    rows
}

/// A handful at once, for providers that take their time: first what a running pool gets over, then
/// what it cannot see.
pub(crate) fn handfuls() -> [Row; 2] {
    let mut failures = of(&CALLS, RARELY, fail());
    failures.extend(of(&CALLS, RARELY, Fault::LoseAnswer("timeout")));
    failures.extend(of(&[Call::Destroy, Call::Rename, Call::Restore], RARELY, Fault::Twice));
    failures.extend(of(&[Call::Restore, Call::Destroy], When::Every(5), Fault::Delay(SLOW)));
    failures.push((Call::Probe, RARELY, Fault::DoNothing));
    failures.push((Call::Probe, When::Next(1), Fault::Hang));
    let lies = [Call::Restore, Call::Probe, Call::Rename, Call::Destroy, Call::Snapshot];
    let mut lies = of(&lies, RARELY, Fault::DoNothing);
    lies.push(stale(RARELY));
    let lies = Row { is_found_at_a_start: true, ..Row::new("many_lies", lies) };
    [Row::new("many_failures", failures), lies]
}

fn fail() -> Fault {
    Fault::Fail("backend")
}

fn stale(when: When) -> (Call, When, Fault) {
    (Call::Query, when, Fault::Stale)
}
