use hearth_providers::{SnapshotId, VmSpec};
use proptest::prelude::*;

use super::*;
use crate::ids::TemplateId;
use crate::templates::TemplateSnapshot;

fn uid(number: i64) -> Uid {
    Uid::from_random([number.unsigned_abs() as u8; 16])
}

/// A generation as it is begun; its etag says which.
fn begun(generation: i64) -> Template {
    let id = TemplateId::parse("t").unwrap();
    let etag = format!("made-{generation}");
    Template { generation, etag, ..Template::new(id, "memory", VmSpec::default()) }
}

fn ready(generation: i64) -> Template {
    let snapshot_id = SnapshotId::parse("s").unwrap();
    let snapshot = TemplateSnapshot {
        uid: uid(generation),
        vm_uid: uid(generation + 100),
        snapshot_id,
        restore_time: None,
    };
    Template { state: TemplateState::Ready, snapshot: Some(snapshot), ..begun(generation) }
}

fn numbers(history: &History) -> Vec<i64> {
    history.generations().iter().map(|it| it.generation).collect()
}

/// Builds the next generation, well or badly.
fn build(history: History, succeeds: bool) -> History {
    let next = history.next_generation();
    let history = history.begin(&begun(next));
    match succeeds {
        true => history.succeed(ready(next)),
        false => history.fail(begun(next), "on purpose".to_owned()),
    }
}

fn read(text: &serde_json::Value) -> History {
    serde_json::from_value(text.clone()).unwrap()
}

#[test]
fn the_last_generations_are_kept_and_pinned_and_no_more() {
    let mut history = History::new(ready(1));
    for _ in 0..9 {
        history = build(history, true).trimmed(|_| false);
    }
    assert_eq!(numbers(&history), [10, 9, 8, 7]);
    let pins: Vec<_> = history.pins().into_iter().collect();
    assert_eq!(pins[0], (uid(7), "template:t@7".to_owned()));
    assert_eq!(pins.len(), KEPT_GENERATIONS);
}

#[test]
fn what_a_pool_serves_from_is_kept_whatever_its_age() {
    let mut history = History::new(ready(1));
    for _ in 0..9 {
        history = build(history, true).trimmed(|it| it == 2);
    }
    assert_eq!(numbers(&history), [10, 9, 8, 7, 2]);
    assert_eq!(numbers(&history.trimmed(|_| false)), [10, 9, 8, 7]);
}

#[test]
fn failures_are_listed_bounded_and_push_out_no_good_one() {
    let mut history = build(History::new(ready(1)), true);
    for _ in 0..9 {
        history = build(history, false).trimmed(|_| false);
        assert_eq!(history.current().generation, 2, "it stays in use");
    }
    assert_eq!(numbers(&history), [11, 10, 9, 8, 2, 1]);
    assert_eq!(history.next_generation(), 12);
    assert_eq!(history.earlier().map(|it| it.generation).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_failure_after_nothing_but_failures_is_the_current_one() {
    let history = History::new(begun(1)).fail(begun(1), "first".to_owned());
    assert_eq!(numbers(&history), [1]);
    let history = history.begin(&begun(2));
    assert_eq!(history.current().state, TemplateState::Building, "callers are to wait");
    assert_eq!(history.written().state, TemplateState::Failed("first".to_owned()));
    let history = history.fail(begun(2), "second".to_owned());
    assert_eq!(history.current().state, TemplateState::Failed("second".to_owned()));
    assert_eq!((numbers(&history), history.is_building()), (vec![2, 1], false));
}

#[test]
fn what_is_so_in_this_life_only_is_not_written() {
    let history = History::new(ready(1)).judge(TemplateState::Building).begin(&begun(2));
    assert_eq!(history.current().state, TemplateState::Building);
    assert_eq!(numbers(&history), [2, 1]);
    let again = read(&serde_json::to_value(&history).unwrap());
    assert_eq!((again.current().state.clone(), numbers(&again)), (TemplateState::Ready, vec![1]));
    let failed = history.clone().fail(begun(2), "no disk".to_owned());
    assert_eq!(failed.current().state, TemplateState::Failed("no disk".to_owned()));
    assert_eq!(failed.written().state, TemplateState::Ready);
    let done = history.succeed(ready(2));
    assert_eq!((done.current().state.clone(), numbers(&done)), (TemplateState::Ready, vec![2, 1]));
}

#[test]
fn the_record_of_an_older_version_is_a_history_of_one() {
    let mut record = serde_json::to_value(ready(3)).unwrap();
    for later in ["create_time", "update_time"] {
        record.as_object_mut().unwrap().remove(later);
    }
    let history = read(&record);
    assert_eq!((numbers(&history), history.written().as_ref()), (vec![3], &ready(3)));
    // And an older version reads this one's: as the current generation.
    let both = serde_json::to_value(build(history, true)).unwrap();
    assert_eq!(serde_json::from_value::<Template>(both).unwrap().generation, 4);
}

#[test]
fn who_was_overtaken_is_told_and_ends_its_own_build_only() {
    let history = History::new(ready(1)).begin(&begun(2));
    let back = Template { generation: history.next_generation(), ..ready(1) };
    assert_eq!(back.generation, 3, "the number of what is being built is taken");
    let history = history.succeed(back);
    assert!(history.is_building() && history.has_overtaken(&begun(2)));
    let late = Template { generation: history.next_generation(), ..ready(2) };
    let history = history.succeed(late);
    assert_eq!((numbers(&history), history.is_building()), (vec![4, 3, 1], false));
}

proptest! {
    /// Whatever happens: numbers grow, bounds hold, and it is read as it was written.
    #[test]
    fn a_history_is_bounded_ordered_and_survives_the_journal(steps in prop::collection::vec(0..4, 0..60)) {
        let mut history = History::new(ready(1));
        let mut last = 1;
        for step in steps {
            let next = history.next_generation();
            prop_assert!(next > last);
            let target = history.earlier().next().cloned();
            history = match (step, target) {
                (0, _) => build(history, false),
                (1, Some(target)) => {
                    let back = Template { generation: next, ..target.as_ref().clone() };
                    history.succeed(back)
                }
                (2, Some(target)) => {
                    let bad = history.current().generation;
                    let back = Template { generation: next, ..target.as_ref().clone() };
                    history.succeed(back).condemn(bad, "no good")
                }
                _ => build(history, true),
            }
            .trimmed(|_| false);
            last = next;
            let all = numbers(&history);
            prop_assert!(all.windows(2).all(|pair| pair[0] > pair[1]));
            prop_assert!(all.contains(&last) && all.len() <= KEPT_GENERATIONS + KEPT_FAILURES);
            prop_assert!(history.failures().all(|it| it.snapshot.is_none()));
            let whole = history.earlier().count() + 1;
            prop_assert_eq!(history.pins().len(), whole, "each pins its own");
            let again = read(&serde_json::to_value(&history).unwrap());
            prop_assert_eq!(&again, &history);
        }
    }
}
