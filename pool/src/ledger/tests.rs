use std::collections::HashMap;

use super::*;

const BOUNDS: Bounds = Bounds {
    target: 3,
    max_parallel_restores: 4,
    max_waiting: 5,
    max_warm_age: None,
    most: usize::MAX,
    max_surge: 1,
};
const NOW: Duration = Duration::from_secs(100);

pub(super) fn made_of() -> Arc<Template> {
    let id = crate::ids::TemplateId::parse("t").unwrap();
    Arc::new(Template::new(id, "memory", hearth_providers::VmSpec::default()))
}

fn vm(number: u8) -> WarmVm {
    let uid = Uid::from_random([number; 16]);
    let ready_at = NOW + Duration::from_secs(number.into());
    WarmVm { vm_id: VmId::warm(uid), uid, ready_at, made_of: made_of() }
}

fn restore(ledger: &mut Ledger<u32>, number: u8) -> Settled<u32> {
    assert!(ledger.begin_restore(vm(number).vm_id, NOW));
    ledger.restored(vm(number), NOW)
}

fn books(bounds: Bounds) -> Ledger<u32> {
    Ledger::new(bounds, Floors::default(), NOW)
}

fn anyone() -> Tenant {
    Tenant::anonymous()
}

#[test]
fn the_oldest_goes_first() {
    let mut ledger = books(BOUNDS);
    (1..=3).for_each(|number| assert!(matches!(restore(&mut ledger, number), Settled::Warm)));
    assert!(!ledger.begin_restore(vm(4).vm_id, NOW), "the target is reached");
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(1)));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(2)));
}

#[test]
fn dropped_acquire_costs_nothing() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    ledger.reserve(&anyone(), NOW);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Warm)));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(1)), "back in front");
}

#[test]
fn newcomers_never_barge() {
    let mut ledger = books(BOUNDS);
    ledger.wait(&anyone(), 1, true, 7).unwrap();
    assert!(ledger.begin_restore(vm(1).vm_id, NOW));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, None);
    assert!(matches!(ledger.restored(vm(1), NOW), Settled::Serves(7, _)));
}

#[test]
fn a_waiter_adds_one_restore_unless_it_only_waits() {
    let mut ledger = books(Bounds { target: 0, ..BOUNDS });
    assert_eq!(ledger.permits(NOW), 0);
    ledger.wait(&anyone(), 1, false, 1).unwrap();
    assert_eq!(ledger.permits(NOW), 0);
    let ticket = ledger.wait(&anyone(), 1, true, 2).unwrap();
    assert_eq!(ledger.permits(NOW), 1);
    ledger.leave(&ticket);
    assert_eq!(ledger.permits(NOW), 0);
}

#[test]
fn the_over_aged_are_never_handed_out() {
    let max_warm_age = Some(Duration::from_secs(60));
    let mut ledger = books(Bounds { max_warm_age, ..BOUNDS });
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    let reservation = ledger.reserve(&anyone(), vm(1).ready_at + Duration::from_secs(60));
    assert_eq!((reservation.stale, reservation.vm), (vec![vm(1)], Some(vm(2))));
}

#[test]
fn the_dead_are_never_handed_out() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    assert_eq!(ledger.died(&vm(1).vm_id), Some(vm(1)));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(2)));
    assert_eq!(ledger.died(&vm(2).vm_id), None, "its caller learns of it");
    assert!(!ledger.commit(&vm(2).vm_id));
    assert_eq!(ledger.permits(NOW), 3);
}

#[test]
fn a_reserved_vm_that_died_does_not_come_back() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    ledger.reserve(&anyone(), NOW);
    ledger.died(&vm(1).vm_id);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Surplus(_))));
}

#[test]
fn one_that_dies_between_its_probe_and_the_books_is_not_warm() {
    let mut ledger = books(BOUNDS);
    assert!(ledger.begin_restore(vm(1).vm_id, NOW));
    ledger.died(&vm(1).vm_id);
    assert!(matches!(ledger.restored(vm(1), NOW), Settled::Surplus(_)));
    assert_eq!((ledger.warm(), ledger.restoring()), (0, 0));
}

#[test]
fn a_full_line_turns_away() {
    let mut ledger = books(BOUNDS);
    (0..5).for_each(|number| drop(ledger.wait(&anyone(), 1, true, number).unwrap()));
    assert_eq!(ledger.wait(&anyone(), 1, true, 9), Err(9));
}

#[test]
fn a_reserved_vm_of_an_old_generation_does_not_come_back() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    ledger.reserve(&anyone(), NOW);
    assert_eq!(ledger.take_all(), [vm(2)]);
    ledger.wait(&anyone(), 1, true, 7).unwrap();
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Surplus(_))));
}

#[test]
fn a_reserved_vm_that_became_too_old_goes_to_nobody() {
    let max_warm_age = Some(Duration::from_secs(60));
    let mut ledger = books(Bounds { max_warm_age, ..BOUNDS });
    restore(&mut ledger, 1);
    ledger.reserve(&anyone(), NOW);
    ledger.wait(&anyone(), 1, true, 7).unwrap();
    let later = vm(1).ready_at + Duration::from_secs(60);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, later), Some(Settled::Surplus(_))));
}

#[test]
fn deaths_behind_one_that_nobody_takes_do_not_pile_up() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    for _ in 0..10_000 {
        restore(&mut ledger, 2);
        ledger.died(&vm(2).vm_id).unwrap();
    }
    assert!(ledger.current.oldest_first.len() < 100);
}

#[test]
fn a_new_generation_rolls_in_without_a_gap() {
    let mut ledger = books(BOUNDS);
    (1..=3).for_each(|number| drop(restore(&mut ledger, number)));
    assert!(ledger.begin_rollout().is_empty());
    assert_eq!((ledger.warm(), ledger.outdated()), (3, 3));
    assert_eq!(ledger.permits(NOW), 1, "the canary is alone");
    assert!(ledger.begin_restore(vm(4).vm_id, NOW));
    assert_eq!(ledger.permits(NOW), 0);
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(1)), "the old ones serve");
    assert!(matches!(ledger.restored(vm(4), NOW), Settled::Warm));
    assert!(ledger.take_replaced().is_empty(), "nothing too many yet");
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(2)), "while there are any");
    for number in 5..=6 {
        assert!(ledger.begin_restore(vm(number).vm_id, NOW), "{number}");
        ledger.restored(vm(number), NOW);
        assert!(ledger.warm() <= 4, "at most one more than wanted");
        ledger.take_replaced();
    }
    assert_eq!((ledger.warm(), ledger.outdated(), ledger.is_rolling()), (3, 0, false));
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Surplus(_))), "too late");
}

#[test]
fn a_generation_that_cannot_be_proven_is_taken_back() {
    let mut ledger = books(BOUNDS);
    (1..=3).for_each(|number| drop(restore(&mut ledger, number)));
    ledger.begin_rollout();
    assert!(ledger.begin_restore(vm(4).vm_id, NOW));
    ledger.restore_failed(&vm(4).vm_id, "broken".to_owned(), NOW, 0.0);
    assert!(ledger.is_unproven());
    assert!(ledger.undo_rollout().is_empty());
    assert_eq!((ledger.warm(), ledger.outdated(), ledger.breaker().failures()), (3, 0, 0));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(1)));
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Warm)), "good again");
}

#[test]
fn a_new_vm_that_is_thrown_away_has_served_nobody() {
    let mut ledger = books(BOUNDS);
    restore(&mut ledger, 1);
    ledger.begin_rollout();
    assert!(matches!(ledger.adopt(vm(2)), Settled::Warm));
    assert_eq!(ledger.reserve(&anyone(), NOW).vm, Some(vm(1)), "the old one");
    ledger.set_bounds(Bounds { most: 0, ..BOUNDS });
    assert_eq!(ledger.take_surplus(), [vm(2)]);
    assert!(
        matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Warm)),
        "nobody has a new one"
    );
}

#[test]
fn after_a_cut_over_nothing_old_is_handed_out() {
    let mut ledger = books(BOUNDS);
    (1..=3).for_each(|number| drop(restore(&mut ledger, number)));
    ledger.reserve(&anyone(), NOW);
    assert_eq!(ledger.cut_over().len(), 2);
    assert!(!ledger.commit(&vm(1).vm_id), "reserved before");
    assert_eq!((ledger.reserve(&anyone(), NOW).vm, ledger.permits(NOW)), (None, 1));
    restore(&mut ledger, 4);
    assert_eq!((ledger.permits(NOW), ledger.is_rolling()), (2, false));
}

#[test]
fn what_is_kept_for_a_tenant_nobody_else_gets() {
    let (kept, other) = (Tenant::new("kept"), Tenant::new("other"));
    let floors = Floors::new(HashMap::from([(kept.clone(), 2)]));
    let mut ledger = Ledger::<u32>::new(BOUNDS, floors, NOW);
    (1..=3).for_each(|number| drop(restore(&mut ledger, number)));
    assert!(ledger.reserve(&other, NOW).vm.is_some());
    assert_eq!(ledger.reserve(&other, NOW).vm, None, "the last two are kept");
    ledger.wait(&other, 1, true, 7).unwrap();
    assert!(ledger.reserve(&kept, NOW).vm.is_some(), "although somebody waits");
    // What comes in fills what is kept first, and then serves who waits.
    assert!(matches!(restore(&mut ledger, 4), Settled::Warm));
    assert!(matches!(restore(&mut ledger, 5), Settled::Serves(7, _)));
}

#[test]
fn a_budget_holds_restores_back() {
    let mut ledger = books(Bounds { most: 2, ..BOUNDS });
    restore(&mut ledger, 1);
    assert_eq!(ledger.permits_and_limit(NOW), (1, RestoreLimit::Capacity));
    restore(&mut ledger, 2);
    assert_eq!(ledger.permits(NOW), 0);
    ledger.set_bounds(Bounds { most: 1, ..BOUNDS });
    assert_eq!(ledger.take_surplus(), [vm(1)]);
}

#[test]
fn the_time_of_a_restore_counts_from_the_wish_for_it() {
    let mut ledger = books(Bounds { target: 1, ..BOUNDS });
    restore(&mut ledger, 1);
    ledger.reserve(&anyone(), NOW);
    let begun = NOW + Duration::from_secs(2);
    assert!(ledger.begin_restore(vm(2).vm_id, begun));
    ledger.restored(vm(2), begun + Duration::from_secs(3));
    let mean = ledger.demand().restore_time().unwrap();
    assert!(mean > Duration::from_secs(1), "{mean:?}");
}

#[test]
fn each_warm_vm_is_probed_in_its_turn() {
    let mut ledger = books(BOUNDS);
    (1..=3).for_each(|number| drop(restore(&mut ledger, number)));
    let since = vm(2).ready_at;
    ledger.reserve(&anyone(), NOW);
    assert_eq!(ledger.due_for_probe(since), Some(vm(2)), "the first is reserved");
    assert_eq!(ledger.due_for_probe(since), None, "it is being probed");
    ledger.give_back(&vm(1).vm_id, NOW);
    assert_eq!(ledger.due_for_probe(since), Some(vm(1)), "it came back");
    let later = vm(3).ready_at;
    ledger.probed(vm(2).vm_id, later);
    assert_eq!(ledger.due_for_probe(later), Some(vm(3)));
    assert_eq!(ledger.due_for_probe(later), Some(vm(2)), "its turn comes again");
}
