//! The books against plain lists by state: whatever happens in whatever order, both say the same.

use std::collections::HashMap;

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
    TakeReplaced,
    CutOver,
    BeginRollout,
    UndoRollout,
    TakeAll,
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
        2 => Just(Step::TakeReplaced),
        1 => Just(Step::CutOver),
        1 => Just(Step::BeginRollout),
        1 => Just(Step::UndoRollout),
        1 => Just(Step::TakeAll),
        4 => (0..400_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

prop_compose! {
    fn bounds()(
        target in 0..6_usize,
        max_parallel_restores in 0..5_usize,
        max_waiting in 0..6_usize,
        max_warm_age_millis in prop::option::of(1..3000_u64),
        most in prop_oneof![2 => Just(usize::MAX), 1 => 0..8_usize],
        max_surge in 1..4_usize,
    ) -> Bounds {
        let max_warm_age = max_warm_age_millis.map(Duration::from_millis);
        Bounds { target, max_parallel_restores, max_waiting, max_warm_age, most, max_surge }
    }
}

/// A VM with what only the model knows of it.
#[derive(Clone, Debug)]
struct Known {
    vm: WarmVm,
    is_outdated: bool,
    /// It died, or was taken from the books: nobody may have it any more.
    is_lost: bool,
}

/// The waiters of one tenant.
struct Waiting {
    tenant: u8,
    share: u64,
    since: u64,
    waiters: Vec<u32>,
}

/// What one turn costs a tenant: number n weighs n + 1.
fn cost_of_turn(tenant: u8) -> u64 {
    (1 << 20) / (u64::from(tenant) + 1)
}

/// Where everything is. A VM that is in no list is gone.
struct Model {
    bounds: Bounds,
    now: Duration,
    made_of: Arc<Template>,
    /// A generation rolls in; whether it is proven.
    rollout: Option<bool>,
    /// One of it went to somebody.
    has_served: bool,
    made: u8,
    restoring: Vec<Known>,
    /// The oldest first.
    warm: Vec<Known>,
    /// The same of the generation before.
    outdated: Vec<Known>,
    reserved: Vec<Known>,
    /// Tenants with their waiters.
    line: Vec<Waiting>,
    /// Who was served how often, in shares, also when it has left.
    shares: HashMap<u8, u64>,
    reached: u64,
    turns: u64,
    tickets: Vec<(Ticket, u32, bool)>,
    waiters: u32,
}

impl Model {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            now: Duration::from_secs(100),
            made_of: super::tests::made_of(),
            rollout: None,
            has_served: false,
            made: 0,
            restoring: Vec::new(),
            warm: Vec::new(),
            outdated: Vec::new(),
            reserved: Vec::new(),
            line: Vec::new(),
            shares: HashMap::new(),
            reached: 0,
            turns: 0,
            tickets: Vec::new(),
            waiters: 0,
        }
    }

    fn make(&mut self, ready_at: Duration) -> Known {
        self.made += 1;
        let uid = Uid::from_random([self.made; 16]);
        let made_of = Arc::clone(&self.made_of);
        let vm = WarmVm { vm_id: VmId::warm(uid), uid, ready_at, made_of };
        Known { vm, is_outdated: false, is_lost: false }
    }

    fn is_stale(&self, vm: &WarmVm) -> bool {
        self.bounds.max_warm_age.is_some_and(|age| vm.ready_at + age <= self.now)
    }

    fn waiting(&self) -> usize {
        self.line.iter().map(|it| it.waiters.len()).sum()
    }

    fn adding_restores(&self) -> usize {
        let waits = |waiter: &u32| self.line.iter().any(|it| it.waiters.contains(waiter));
        self.tickets.iter().filter(|(_, waiter, adds)| *adds && waits(waiter)).count()
    }

    fn join(&mut self, tenant: u8, waiter: u32) {
        self.turns += 1;
        match self.line.iter_mut().find(|it| it.tenant == tenant) {
            Some(it) => it.waiters.push(waiter),
            None => {
                let share = self.shares.get(&tenant).copied().unwrap_or(0).max(self.reached);
                let (since, waiters) = (self.turns, vec![waiter]);
                self.line.push(Waiting { tenant, share, since, waiters });
            }
        }
    }

    fn serve(&mut self) -> Option<u32> {
        let next = self.line.iter_mut().min_by_key(|it| (it.share, it.since))?;
        let served = next.waiters.remove(0);
        self.reached = self.reached.max(next.share);
        next.share += cost_of_turn(next.tenant);
        self.turns += 1;
        next.since = self.turns;
        self.shares.insert(next.tenant, next.share);
        self.line.retain(|it| !it.waiters.is_empty());
        Some(served)
    }

    fn leave(&mut self, waiter: u32) {
        self.line.iter_mut().for_each(|it| it.waiters.retain(|it| *it != waiter));
        for it in self.line.iter().filter(|it| it.waiters.is_empty()) {
            self.shares.insert(it.tenant, it.share);
        }
        self.line.retain(|it| !it.waiters.is_empty());
    }

    fn end_rollout(&mut self) {
        if self.outdated.is_empty() && self.rollout == Some(true) {
            self.rollout = None;
        }
    }

    /// What must become of a VM that came in, and notes it.
    fn settle(&mut self, known: Known, waited_before: bool) -> Settled<u32> {
        if known.is_lost {
            return Settled::Surplus(known.vm);
        }
        if let Some(waiter) = self.serve() {
            self.has_served |= !known.is_outdated;
            self.reserved.push(known.clone());
            return Settled::Serves(waiter, known.vm);
        }
        let beside = if known.is_outdated { self.outdated.len() } else { 0 };
        if self.warm.len() + beside >= self.bounds.target {
            return Settled::Surplus(known.vm);
        }
        let ready_at = known.vm.ready_at;
        let is_before = |it: &Known| match waited_before {
            true => it.vm.ready_at >= ready_at,
            false => it.vm.ready_at > ready_at,
        };
        let shelf = if known.is_outdated { &mut self.outdated } else { &mut self.warm };
        let place = shelf.iter().position(is_before).unwrap_or(shelf.len());
        shelf.insert(place, known);
        Settled::Warm
    }

    fn take_stale(&mut self) -> Vec<WarmVm> {
        let mut stale = Vec::new();
        for shelf in [&mut self.warm, &mut self.outdated] {
            let is_old = |it: &Known| {
                self.bounds.max_warm_age.is_some_and(|age| it.vm.ready_at + age <= self.now)
            };
            stale.extend(shelf.iter().filter(|it| is_old(it)).map(|it| it.vm.clone()));
            shelf.retain(|it| !is_old(it));
        }
        self.end_rollout();
        stale
    }

    /// What is warm of either generation, the old one first, which goes.
    fn take_all(&mut self) -> Vec<WarmVm> {
        let all = self.outdated.drain(..).chain(self.warm.drain(..));
        all.map(|it| it.vm).collect()
    }

    /// Nobody may have what is reserved `where_` that holds.
    fn lose_reserved(&mut self, where_: impl Fn(&Known) -> bool) {
        self.reserved.iter_mut().filter(|it| where_(it)).for_each(|it| it.is_lost = true);
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
            let of_new = model.warm.len() + model.restoring.len();
            let at_work = of_new + model.outdated.len();
            let surge = if model.outdated.is_empty() { 0 } else { model.bounds.max_surge };
            let permits = ledger.permits(model.now);
            let canaries = model.restoring.iter().filter(|it| !it.is_outdated).count();
            let most = [
                wanted.saturating_sub(of_new),
                (wanted + surge).saturating_sub(at_work),
                model.bounds.most.saturating_sub(at_work),
                model.bounds.max_parallel_restores.saturating_sub(model.restoring.len()),
                if model.rollout == Some(false) { 1_usize.saturating_sub(canaries) } else { 99 },
            ];
            let most = most.into_iter().min().unwrap_or(0);
            match ledger.breaker().failures() {
                0 => prop_assert_eq!(permits, most),
                _ => prop_assert!(permits <= most.min(1)),
            }
            prop_assert_eq!(ledger.begin_restore(known.vm.vm_id.clone(), model.now), permits > 0);
            if permits > 0 {
                prop_assert!(at_work < model.bounds.target + model.waiting() + surge);
                model.restoring.push(known);
            }
        }
        Step::Restored(index) => {
            let Some(mut known) = take(&mut model.restoring, &index) else { return Ok(()) };
            known.vm.ready_at = model.now;
            // As the driver does it: what was made of an old template is not brought in.
            if !known.is_outdated {
                model.rollout = model.rollout.map(|_| true);
                model.end_rollout();
                let settled = ledger.restored(known.vm.clone(), model.now);
                same(settled, model.settle(known, false))?;
            } else {
                ledger.abandon_restore(&known.vm.vm_id);
            }
        }
        Step::Failed(index) => {
            let Some(known) = take(&mut model.restoring, &index) else { return Ok(()) };
            ledger.restore_failed(&known.vm.vm_id, "no".to_owned(), model.now, 0.5);
            prop_assert!(known.is_outdated || ledger.breaker().failures() > 0);
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
            let is_old = !model.outdated.is_empty();
            let shelf = if is_old { &mut model.outdated } else { &mut model.warm };
            let is_free = model.line.is_empty() && !shelf.is_empty();
            let known = is_free.then(|| shelf.remove(0));
            let vm = known.as_ref().map(|known| known.vm.clone());
            let reserved = ledger.reserve(&Tenant::anonymous(), model.now);
            prop_assert_eq!(reserved, Reservation { vm, stale });
            if let Some(known) = known {
                prop_assert!(!model.is_stale(&known.vm), "handed out what is too old");
                prop_assert!(!known.is_outdated || model.rollout.is_some(), "of an old generation");
                model.has_served |= !known.is_outdated;
                model.reserved.push(known);
            }
            model.end_rollout();
        }
        Step::GiveBack(index) => {
            let Some(mut known) = take(&mut model.reserved, &index) else { return Ok(()) };
            known.is_lost |= model.is_stale(&known.vm);
            known.is_lost |= known.is_outdated && (model.rollout.is_none() || model.has_served);
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
            let (warm, outdated) = (model.warm.len(), model.outdated.len());
            let all = warm + outdated + model.restoring.len() + model.reserved.len();
            if all == 0 {
                return Ok(());
            }
            match index.index(all) {
                at if at < warm + outdated => {
                    let is_new = at < warm;
                    let shelf = if is_new { &mut model.warm } else { &mut model.outdated };
                    let vm = shelf.remove(if is_new { at } else { at - warm }).vm;
                    prop_assert_eq!(ledger.died(&vm.vm_id), Some(vm));
                    model.end_rollout();
                }
                at => {
                    let mut others = model.restoring.iter_mut().chain(&mut model.reserved);
                    if let Some(known) = others.nth(at - warm - outdated) {
                        known.is_lost = true;
                        prop_assert_eq!(ledger.died(&known.vm.vm_id), None);
                    }
                }
            }
        }
        Step::Wait { tenant, adds_restore } => {
            model.waiters += 1;
            let waiter = model.waiters;
            let (name, weight) = (Tenant::new(&format!("t{tenant}")), u32::from(tenant) + 1);
            let joined = ledger.wait(&name, weight, adds_restore, waiter);
            prop_assert_eq!(joined.is_ok(), model.waiting() < model.bounds.max_waiting);
            let Ok(ticket) = joined else { return Ok(()) };
            model.tickets.push((ticket, waiter, adds_restore));
            model.join(tenant, waiter);
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
            let most = model.bounds.target.min(model.bounds.most);
            let count = model.warm.len().saturating_sub(most);
            let surplus: Vec<_> = model.warm.drain(..count).map(|it| it.vm).collect();
            prop_assert_eq!(ledger.take_surplus(), surplus);
        }
        Step::TakeReplaced => {
            let most = model.bounds.target.min(model.bounds.most);
            let count = (model.warm.len() + model.outdated.len()).saturating_sub(most);
            let count = count.min(model.outdated.len());
            let replaced: Vec<_> = model.outdated.drain(..count).map(|it| it.vm).collect();
            prop_assert_eq!(ledger.take_replaced(), replaced);
            model.end_rollout();
        }
        Step::CutOver => {
            prop_assert_eq!(ledger.cut_over(), model.take_all());
            model.lose_reserved(|_| true);
            let known = model.restoring.iter_mut().chain(&mut model.reserved);
            known.for_each(|it| it.is_outdated = true);
            (model.rollout, model.has_served) = (Some(false), false);
        }
        Step::BeginRollout => {
            if model.rollout == Some(false) {
                // Another one comes in place of the one that was not proven.
                let unproven: Vec<_> = model.warm.drain(..).map(|it| it.vm).collect();
                prop_assert_eq!(ledger.restart_rollout(), unproven);
            } else {
                let older: Vec<_> = model.outdated.drain(..).map(|it| it.vm).collect();
                prop_assert_eq!(ledger.begin_rollout(), older);
                model.lose_reserved(|it| it.is_outdated);
                model.outdated = std::mem::take(&mut model.warm);
                model.outdated.iter_mut().for_each(|it| it.is_outdated = true);
            }
            let known = model.restoring.iter_mut().chain(&mut model.reserved);
            known.for_each(|it| it.is_outdated = true);
            (model.rollout, model.has_served) = (Some(false), false);
        }
        Step::UndoRollout => {
            if model.rollout.is_none() {
                return Ok(());
            }
            let withdrawn: Vec<_> = model.warm.drain(..).map(|it| it.vm).collect();
            prop_assert_eq!(ledger.undo_rollout(), withdrawn);
            model.lose_reserved(|it| !it.is_outdated);
            model.warm = std::mem::take(&mut model.outdated);
            let known = model.restoring.iter_mut().chain(&mut model.reserved);
            known.chain(&mut model.warm).for_each(|it| it.is_outdated = !it.is_outdated);
            model.rollout = None;
        }
        Step::TakeAll => {
            prop_assert_eq!(ledger.take_all(), model.take_all());
            model.lose_reserved(|_| true);
            model.rollout = None;
        }
        Step::Pass { millis } => model.now += Duration::from_millis(millis),
    }
    Ok(())
}

fn compare(ledger: &mut Ledger<u32>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(ledger.warm(), model.warm.len() + model.outdated.len());
    prop_assert_eq!(ledger.outdated(), model.outdated.len());
    prop_assert_eq!(ledger.is_rolling(), model.rollout.is_some());
    prop_assert_eq!(ledger.is_unproven(), model.rollout == Some(false));
    prop_assert_eq!(ledger.restoring(), model.restoring.len());
    prop_assert_eq!(ledger.waiting(), model.waiting());
    prop_assert_eq!(ledger.line.adding_restores(), model.adding_restores());
    let oldest = [model.warm.first(), model.outdated.first()].into_iter().flatten();
    prop_assert_eq!(ledger.oldest_ready_at(), oldest.map(|it| it.vm.ready_at).min());
    // Everything that is known is somewhere, and nothing is in the books beside it.
    let known = [&model.warm, &model.outdated, &model.restoring, &model.reserved].map(Vec::len);
    prop_assert_eq!(ledger.vms.len(), known.iter().sum::<usize>());
    for shelf in [&ledger.current, &ledger.outdated] {
        prop_assert!(shelf.oldest_first.len() <= 2 * shelf.warm + MIN_SWEPT + 1);
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_books_say_what_plain_lists_say(
        bounds in bounds(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut ledger = Ledger::<u32>::new(bounds, Floors::default(), Duration::ZERO);
        let mut model = Model::new(bounds);
        for step in steps {
            apply(&mut ledger, &mut model, step)?;
            compare(&mut ledger, &model)?;
        }
    }
}
