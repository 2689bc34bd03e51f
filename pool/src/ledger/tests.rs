use super::*;

const BOUNDS: Bounds =
    Bounds { target: 3, max_parallel_restores: 4, max_waiting: 5, max_warm_age: None };
const NOW: Duration = Duration::from_secs(100);

fn vm(number: u8) -> WarmVm {
    let uid = Uid::from_random([number; 16]);
    WarmVm { vm_id: VmId::warm(uid), uid, ready_at: NOW + Duration::from_secs(number.into()) }
}

fn restore(ledger: &mut Ledger<u32>, number: u8) -> Settled<u32> {
    assert!(ledger.begin_restore(vm(number).vm_id, NOW));
    ledger.restored(vm(number))
}

#[test]
fn the_oldest_goes_first() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    (1..=3).for_each(|number| assert!(matches!(restore(&mut ledger, number), Settled::Warm)));
    assert!(!ledger.begin_restore(vm(4).vm_id, NOW), "the target is reached");
    assert_eq!(ledger.reserve(NOW).vm, Some(vm(1)));
    assert_eq!(ledger.reserve(NOW).vm, Some(vm(2)));
}

#[test]
fn dropped_acquire_costs_nothing() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    ledger.reserve(NOW);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Warm)));
    assert_eq!(ledger.reserve(NOW).vm, Some(vm(1)), "back in front");
}

#[test]
fn newcomers_never_barge() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    ledger.wait(&Tenant::anonymous(), true, 7).unwrap();
    assert!(ledger.begin_restore(vm(1).vm_id, NOW));
    assert_eq!(ledger.reserve(NOW).vm, None);
    assert!(matches!(ledger.restored(vm(1)), Settled::Serves(7, _)));
}

#[test]
fn a_waiter_adds_one_restore_unless_it_only_waits() {
    let mut ledger = Ledger::<u32>::new(Bounds { target: 0, ..BOUNDS });
    assert_eq!(ledger.permits(NOW), 0);
    ledger.wait(&Tenant::anonymous(), false, 1).unwrap();
    assert_eq!(ledger.permits(NOW), 0);
    let ticket = ledger.wait(&Tenant::anonymous(), true, 2).unwrap();
    assert_eq!(ledger.permits(NOW), 1);
    ledger.leave(&ticket);
    assert_eq!(ledger.permits(NOW), 0);
}

#[test]
fn the_over_aged_are_never_handed_out() {
    let max_warm_age = Some(Duration::from_secs(60));
    let mut ledger = Ledger::<u32>::new(Bounds { max_warm_age, ..BOUNDS });
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    let reservation = ledger.reserve(vm(1).ready_at + Duration::from_secs(60));
    assert_eq!((reservation.stale, reservation.vm), (vec![vm(1)], Some(vm(2))));
}

#[test]
fn the_dead_are_never_handed_out() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    assert_eq!(ledger.died(&vm(1).vm_id), Some(vm(1)));
    assert_eq!(ledger.reserve(NOW).vm, Some(vm(2)));
    assert_eq!(ledger.died(&vm(2).vm_id), None, "its caller learns of it");
    assert!(!ledger.commit(&vm(2).vm_id));
    assert_eq!(ledger.permits(NOW), 3);
}

#[test]
fn a_reserved_vm_that_died_does_not_come_back() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    restore(&mut ledger, 1);
    ledger.reserve(NOW);
    ledger.died(&vm(1).vm_id);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Surplus(_))));
}

#[test]
fn one_that_dies_between_its_probe_and_the_books_is_not_warm() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    assert!(ledger.begin_restore(vm(1).vm_id, NOW));
    ledger.died(&vm(1).vm_id);
    assert!(matches!(ledger.restored(vm(1)), Settled::Surplus(_)));
    assert_eq!((ledger.warm(), ledger.restoring()), (0, 0));
}

#[test]
fn a_full_line_turns_away() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    (0..5).for_each(|number| drop(ledger.wait(&Tenant::anonymous(), true, number).unwrap()));
    assert_eq!(ledger.wait(&Tenant::anonymous(), true, 9), Err(9));
}

#[test]
fn a_reserved_vm_of_an_old_generation_does_not_come_back() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    restore(&mut ledger, 1);
    restore(&mut ledger, 2);
    ledger.reserve(NOW);
    assert_eq!(ledger.take_all(), [vm(2)]);
    ledger.wait(&Tenant::anonymous(), true, 7).unwrap();
    assert!(matches!(ledger.give_back(&vm(1).vm_id, NOW), Some(Settled::Surplus(_))));
}

#[test]
fn a_reserved_vm_that_became_too_old_goes_to_nobody() {
    let max_warm_age = Some(Duration::from_secs(60));
    let mut ledger = Ledger::<u32>::new(Bounds { max_warm_age, ..BOUNDS });
    restore(&mut ledger, 1);
    ledger.reserve(NOW);
    ledger.wait(&Tenant::anonymous(), true, 7).unwrap();
    let later = vm(1).ready_at + Duration::from_secs(60);
    assert!(matches!(ledger.give_back(&vm(1).vm_id, later), Some(Settled::Surplus(_))));
}

#[test]
fn deaths_behind_one_that_nobody_takes_do_not_pile_up() {
    let mut ledger = Ledger::<u32>::new(BOUNDS);
    restore(&mut ledger, 1);
    for _ in 0..10_000 {
        restore(&mut ledger, 2);
        ledger.died(&vm(2).vm_id).unwrap();
    }
    assert!(ledger.oldest_first.len() < 100);
}
