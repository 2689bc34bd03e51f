//! The books against plain lists by state: whatever happens in whatever order, both say the same.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Restored(Index),
    Failed(Index),
    Adopt { age_millis: u64 },
    Reserve,
    GiveBack(Index),
    Commit(Index),
    Died(Index),
    Wait { tenant: u8, adds_restore: bool },
    Leave(Index),
    DismissWaiters,
    SetBounds(Bounds),
    TakeStale,
    TakeSurplus,
    NewGeneration,
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        6 => Just(Step::Begin),
        6 => index().prop_map(Step::Restored),
        1 => index().prop_map(Step::Failed),
        1 => (0..3000_u64).prop_map(|age_millis| Step::Adopt { age_millis }),
        5 => Just(Step::Reserve),
        3 => index().prop_map(Step::GiveBack),
        3 => index().prop_map(Step::Commit),
        2 => index().prop_map(Step::Died),
        3 => (0..3_u8, any::<bool>())
            .prop_map(|(tenant, adds_restore)| Step::Wait { tenant, adds_restore }),
        1 => index().prop_map(Step::Leave),
        1 => Just(Step::DismissWaiters),
        1 => bounds().prop_map(Step::SetBounds),
        1 => Just(Step::TakeStale),
        1 => Just(Step::TakeSurplus),
        1 => Just(Step::NewGeneration),
        4 => (0..400_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

prop_compose! {
    fn bounds()(
        target in 0..6_usize,
        max_parallel_restores in 0..5_usize,
        max_waiting in 0..6_usize,
        max_warm_age_millis in prop::option::of(1..3000_u64),
    ) -> Bounds {
        let max_warm_age = max_warm_age_millis.map(Duration::from_millis);
        Bounds { target, max_parallel_restores, max_waiting, max_warm_age }
    }
}

/// A VM with what only the model knows of it.
#[derive(Clone, Debug)]
struct Known {
    vm: WarmVm,
    generation: u64,
    /// It died, or was taken from the books: nobody may have it any more.
    is_lost: bool,
}

/// Where everything is. A VM that is in no list is gone.
struct Model {
    bounds: Bounds,
    now: Duration,
    generation: u64,
    made: u8,
    restoring: Vec<Known>,
    /// The oldest first.
    warm: Vec<Known>,
    reserved: Vec<Known>,
    /// Tenants with their waiters, whose turn it is first.
    line: Vec<(u8, Vec<u32>)>,
    tickets: Vec<(Ticket, u32, bool)>,
    waiters: u32,
}

impl Model {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            now: Duration::from_secs(100),
            generation: 0,
            made: 0,
            restoring: Vec::new(),
            warm: Vec::new(),
            reserved: Vec::new(),
            line: Vec::new(),
            tickets: Vec::new(),
            waiters: 0,
        }
    }

    fn make(&mut self, ready_at: Duration) -> Known {
        self.made += 1;
        let uid = Uid::from_random([self.made; 16]);
        let vm = WarmVm { vm_id: VmId::warm(uid), uid, ready_at };
        Known { vm, generation: self.generation, is_lost: false }
    }

    fn is_stale(&self, vm: &WarmVm) -> bool {
        self.bounds.max_warm_age.is_some_and(|age| vm.ready_at + age <= self.now)
    }

    fn waiting(&self) -> usize {
        self.line.iter().map(|(_, waiters)| waiters.len()).sum()
    }

    fn adding_restores(&self) -> usize {
        let waits = |waiter: &u32| self.line.iter().any(|(_, waiters)| waiters.contains(waiter));
        self.tickets.iter().filter(|(_, waiter, adds)| *adds && waits(waiter)).count()
    }

    fn serve(&mut self) -> Option<u32> {
        (!self.line.is_empty()).then(|| {
            let (tenant, mut waiters) = self.line.remove(0);
            let served = waiters.remove(0);
            if !waiters.is_empty() {
                self.line.push((tenant, waiters));
            }
            served
        })
    }

    fn leave(&mut self, waiter: u32) {
        self.line.iter_mut().for_each(|(_, waiters)| waiters.retain(|it| *it != waiter));
        self.line.retain(|(_, waiters)| !waiters.is_empty());
    }

    /// What must become of a VM that came in, and notes it.
    fn settle(&mut self, known: Known, waited_before: bool) -> Settled<u32> {
        if known.is_lost {
            return Settled::Surplus(known.vm);
        }
        if let Some(waiter) = self.serve() {
            assert_eq!(known.generation, self.generation, "served an old generation");
            self.reserved.push(known.clone());
            return Settled::Serves(waiter, known.vm);
        }
        if self.warm.len() >= self.bounds.target {
            return Settled::Surplus(known.vm);
        }
        let ready_at = known.vm.ready_at;
        let is_before = |it: &Known| match waited_before {
            true => it.vm.ready_at >= ready_at,
            false => it.vm.ready_at > ready_at,
        };
        let place = self.warm.iter().position(is_before).unwrap_or(self.warm.len());
        self.warm.insert(place, known);
        Settled::Warm
    }

    fn take_stale(&mut self) -> Vec<WarmVm> {
        let (stale, warm) = self.warm.drain(..).partition(|it: &Known| {
            self.bounds.max_warm_age.is_some_and(|age| it.vm.ready_at + age <= self.now)
        });
        self.warm = warm;
        stale.into_iter().map(|it: Known| it.vm).collect()
    }
}

fn take<T>(from: &mut Vec<T>, index: &Index) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(index.index(from.len())))
}

fn same(one: Settled<u32>, other: Settled<u32>) -> Result<(), TestCaseError> {
    prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    Ok(())
}

fn apply(ledger: &mut Ledger<u32>, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Begin => {
            let known = model.make(model.now);
            let wanted = model.bounds.target + model.adding_restores();
            let at_work = model.warm.len() + model.restoring.len();
            let permits = ledger.permits(model.now);
            let free = model.bounds.max_parallel_restores.saturating_sub(model.restoring.len());
            let most = wanted.saturating_sub(at_work).min(free);
            match ledger.breaker().failures() {
                0 => prop_assert_eq!(permits, most),
                _ => prop_assert!(permits <= most.min(1)),
            }
            prop_assert_eq!(ledger.begin_restore(known.vm.vm_id.clone(), model.now), permits > 0);
            if permits > 0 {
                prop_assert!(at_work < model.bounds.target + model.waiting());
                model.restoring.push(known);
            }
        }
        Step::Restored(index) => {
            let Some(mut known) = take(&mut model.restoring, &index) else { return Ok(()) };
            known.vm.ready_at = model.now;
            // As the driver does it: what was made of an old template is not brought in.
            if known.generation == model.generation {
                same(ledger.restored(known.vm.clone()), model.settle(known, false))?;
            } else {
                ledger.abandon_restore(&known.vm.vm_id);
            }
        }
        Step::Failed(index) => {
            let Some(known) = take(&mut model.restoring, &index) else { return Ok(()) };
            ledger.restore_failed(&known.vm.vm_id, "no".to_owned(), model.now, 0.5);
            prop_assert!(ledger.breaker().failures() > 0);
        }
        Step::Adopt { age_millis } => {
            let known = model.make(model.now.saturating_sub(Duration::from_millis(age_millis)));
            // A restart adopts what is young.
            if !model.is_stale(&known.vm) {
                same(ledger.adopt(known.vm.clone()), model.settle(known, false))?;
            }
        }
        Step::Reserve => {
            let stale = model.take_stale();
            let is_free = model.line.is_empty() && !model.warm.is_empty();
            let known = is_free.then(|| model.warm.remove(0));
            let vm = known.as_ref().map(|known| known.vm.clone());
            prop_assert_eq!(ledger.reserve(model.now), Reservation { vm, stale });
            if let Some(known) = known {
                prop_assert!(!model.is_stale(&known.vm), "handed out what is too old");
                prop_assert_eq!(known.generation, model.generation, "of an old generation");
                model.reserved.push(known);
            }
        }
        Step::GiveBack(index) => {
            let Some(mut known) = take(&mut model.reserved, &index) else { return Ok(()) };
            known.is_lost |= model.is_stale(&known.vm);
            let settled = ledger.give_back(&known.vm.vm_id, model.now);
            prop_assert!(settled.is_some());
            settled.map_or(Ok(()), |it| same(it, model.settle(known, true)))?;
        }
        Step::Commit(index) => {
            let Some(known) = take(&mut model.reserved, &index) else { return Ok(()) };
            prop_assert_eq!(ledger.commit(&known.vm.vm_id), !known.is_lost);
            prop_assert!(!ledger.commit(&known.vm.vm_id), "committed twice");
            prop_assert!(ledger.give_back(&known.vm.vm_id, model.now).is_none());
        }
        Step::Died(index) => {
            let counts = (model.restoring.len(), model.warm.len(), model.reserved.len());
            let all = counts.0 + counts.1 + counts.2;
            if all == 0 {
                return Ok(());
            }
            match index.index(all) {
                at if at < counts.1 => {
                    let vm = model.warm.remove(at).vm;
                    prop_assert_eq!(ledger.died(&vm.vm_id), Some(vm));
                }
                at => {
                    let mut others = model.restoring.iter_mut().chain(&mut model.reserved);
                    if let Some(known) = others.nth(at - counts.1) {
                        known.is_lost = true;
                        prop_assert_eq!(ledger.died(&known.vm.vm_id), None);
                    }
                }
            }
        }
        Step::Wait { tenant, adds_restore } => {
            model.waiters += 1;
            let waiter = model.waiters;
            let joined = ledger.wait(&Tenant::new(&format!("t{tenant}")), adds_restore, waiter);
            prop_assert_eq!(joined.is_ok(), model.waiting() < model.bounds.max_waiting);
            let Ok(ticket) = joined else { return Ok(()) };
            model.tickets.push((ticket, waiter, adds_restore));
            match model.line.iter_mut().find(|(it, _)| *it == tenant) {
                Some((_, waiters)) => waiters.push(waiter),
                None => model.line.push((tenant, vec![waiter])),
            }
        }
        // Also those whose turn has come: then it changes nothing.
        Step::Leave(index) => {
            let Some((ticket, waiter, _)) = take(&mut model.tickets, &index) else { return Ok(()) };
            ledger.leave(&ticket);
            model.leave(waiter);
        }
        Step::DismissWaiters => {
            let dismissed: Vec<u32> = std::iter::from_fn(|| model.serve()).collect();
            prop_assert_eq!(ledger.dismiss_waiters(), dismissed);
        }
        Step::SetBounds(bounds) => {
            ledger.set_bounds(bounds);
            model.bounds = bounds;
        }
        Step::TakeStale => prop_assert_eq!(ledger.take_stale(model.now), model.take_stale()),
        Step::TakeSurplus => {
            let count = model.warm.len().saturating_sub(model.bounds.target);
            let surplus: Vec<_> = model.warm.drain(..count).map(|it| it.vm).collect();
            prop_assert_eq!(ledger.take_surplus(), surplus);
        }
        Step::NewGeneration => {
            model.generation += 1;
            let old: Vec<_> = model.warm.drain(..).map(|it| it.vm).collect();
            prop_assert_eq!(ledger.take_all(), old);
            model.reserved.iter_mut().for_each(|it| it.is_lost = true);
        }
        Step::Pass { millis } => model.now += Duration::from_millis(millis),
    }
    Ok(())
}

fn compare(ledger: &mut Ledger<u32>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(ledger.warm(), model.warm.len());
    prop_assert_eq!(ledger.restoring(), model.restoring.len());
    prop_assert_eq!(ledger.waiting(), model.waiting());
    prop_assert_eq!(ledger.line.adding_restores(), model.adding_restores());
    prop_assert_eq!(ledger.oldest_ready_at(), model.warm.first().map(|it| it.vm.ready_at));
    // Everything that is known is somewhere, and nothing is in the books beside it.
    let known = [&model.warm, &model.restoring, &model.reserved].map(Vec::len);
    prop_assert_eq!(ledger.vms.len(), known.iter().sum::<usize>());
    prop_assert!(ledger.oldest_first.len() <= 2 * ledger.warm + MIN_SWEPT + 1);
    Ok(())
}

proptest! {
    #[test]
    fn the_books_say_what_plain_lists_say(
        bounds in bounds(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut ledger = Ledger::<u32>::new(bounds);
        let mut model = Model::new(bounds);
        for step in steps {
            apply(&mut ledger, &mut model, step)?;
            compare(&mut ledger, &model)?;
        }
    }
}
