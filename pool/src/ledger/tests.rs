use proptest::prelude::*;

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
    assert!(matches!(ledger.give_back(&vm(1).vm_id), Some(Settled::Warm)));
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
    assert!(matches!(ledger.give_back(&vm(1).vm_id), Some(Settled::Surplus(_))));
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

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Restored(usize),
    Failed(usize),
    Reserve,
    GiveBack(usize),
    Commit(usize),
    Died(usize),
    Wait(bool),
    Target(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        4 => (0..8_usize).prop_map(Step::Restored),
        1 => (0..8_usize).prop_map(Step::Failed),
        4 => Just(Step::Reserve),
        2 => (0..8_usize).prop_map(Step::GiveBack),
        3 => (0..8_usize).prop_map(Step::Commit),
        1 => (0..8_usize).prop_map(Step::Died),
        2 => any::<bool>().prop_map(Step::Wait),
        1 => (0..6_usize).prop_map(Step::Target),
    ]
}

/// Where a simpler model has each VM.
#[derive(Default)]
struct Model {
    restoring: Vec<WarmVm>,
    warm: Vec<WarmVm>,
    reserved: Vec<(WarmVm, bool)>,
    committed: Vec<Uid>,
}

impl Model {
    fn settled(&mut self, vm: WarmVm, settled: Settled<u32>) {
        match settled {
            Settled::Warm => self.warm.push(vm),
            Settled::Serves(_, served) => self.reserved.push((served, true)),
            Settled::Surplus(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn no_vm_is_in_two_hands(steps in prop::collection::vec(step(), 1..200)) {
        let mut ledger = Ledger::<u32>::new(BOUNDS);
        let mut model = Model::default();
        let mut number = 0_u8;
        let mut now = NOW;
        for step in steps {
            now += Duration::from_millis(100);
            let pick = |len: usize, index: usize| (len > 0).then(|| index % len);
            match step {
                Step::Begin => {
                    number = number.wrapping_add(1);
                    let wanted = ledger.bounds().target + ledger.waiting();
                    if ledger.begin_restore(vm(number).vm_id, now) {
                        prop_assert!(ledger.warm() + ledger.restoring() <= wanted);
                        model.restoring.push(vm(number));
                    }
                }
                Step::Restored(index) => if let Some(at) = pick(model.restoring.len(), index) {
                    let vm = model.restoring.remove(at);
                    let settled = ledger.restored(vm.clone());
                    model.settled(vm, settled);
                },
                Step::Failed(index) => if let Some(at) = pick(model.restoring.len(), index) {
                    let vm = model.restoring.remove(at);
                    ledger.restore_failed(&vm.vm_id, "no".to_owned(), now, 0.5);
                },
                Step::Reserve => if let Some(vm) = ledger.reserve(now).vm {
                    let at = model.warm.iter().position(|warm| *warm == vm);
                    prop_assert!(at.is_some(), "handed out what was not warm");
                    model.warm.remove(at.unwrap());
                    model.reserved.push((vm, true));
                },
                Step::GiveBack(index) => if let Some(at) = pick(model.reserved.len(), index) {
                    let (vm, alive) = model.reserved.remove(at);
                    let settled = ledger.give_back(&vm.vm_id).unwrap();
                    prop_assert!(alive || matches!(settled, Settled::Surplus(_)));
                    model.settled(vm, settled);
                },
                Step::Commit(index) => if let Some(at) = pick(model.reserved.len(), index) {
                    let (vm, alive) = model.reserved.remove(at);
                    prop_assert_eq!(ledger.commit(&vm.vm_id), alive);
                    prop_assert!(!model.committed.contains(&vm.uid) || number < 255);
                    model.committed.push(vm.uid);
                },
                Step::Died(index) => {
                    if let Some(at) = pick(model.warm.len(), index) {
                        let vm = model.warm.remove(at);
                        prop_assert_eq!(ledger.died(&vm.vm_id), Some(vm));
                    } else if let Some(at) = pick(model.reserved.len(), index) {
                        model.reserved[at].1 = false;
                        prop_assert_eq!(ledger.died(&model.reserved[at].0.vm_id), None);
                    }
                }
                Step::Wait(adds) => drop(ledger.wait(&Tenant::anonymous(), adds, 0)),
                Step::Target(target) => {
                    ledger.set_bounds(Bounds { target, ..BOUNDS });
                    for vm in ledger.take_surplus() {
                        model.warm.retain(|warm| *warm != vm);
                    }
                }
            }
            prop_assert_eq!(ledger.warm(), model.warm.len());
            prop_assert_eq!(ledger.restoring(), model.restoring.len());
        }
    }
}
