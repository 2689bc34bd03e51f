//! What all pools together may use of the node, and how much of it each gets when it binds.
//!
//! What tenants have comes first and is never taken back; what is left is shared: first for whoever
//! waits, then what each pool keeps in any case (its floor), then by priority, and within one priority in proportion to
//! what each still wants. A pool that gets less than it wants says so (`BOUND_BUDGET`), and is
//! woken when that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::ids::PoolId;

/// An amount of what VMs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// VMs, warm ones included; unset: no limit.
    pub max_vms: Option<u64>,
    /// Their memory, in MiB; unset: no limit.
    pub max_mem_size_mib: Option<u64>,
    /// Their virtual CPUs; unset: no limit.
    pub max_vcpus: Option<u64>,
}

impl Budget {
    const fn is_unbounded(&self) -> bool {
        self.max_vms.is_none() && self.max_mem_size_mib.is_none() && self.max_vcpus.is_none()
    }

    fn amounts(&self) -> [f64; 3] {
        [self.max_vms, self.max_mem_size_mib, self.max_vcpus]
            .map(|most| most.map_or(f64::INFINITY, |most| most as f64))
    }
}

/// What one VM uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Its memory in MiB; 0 where it is not known.
    pub mem_size_mib: u64,
    /// Its virtual CPUs; 0 where they are not known.
    pub vcpus: u64,
}

impl Cost {
    const fn amounts(self) -> [f64; 3] {
        [1.0, self.mem_size_mib as f64, self.vcpus as f64]
    }
}

/// What one pool wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// VMs that should be warm or are waited for.
    pub wanted: usize,
    /// How many of them somebody waits for.
    pub waiting: usize,
    /// How many of them it keeps beside these in any case, if there is room at all.
    pub floor: usize,
    /// Who gets more first: the higher.
    pub priority: u32,
    /// What each uses.
    pub cost: Cost,
    /// VMs of it that tenants have.
    pub leased: usize,
}

/// The budget and what is asked of it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shares {
    budget: Budget,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    pools: BTreeMap<PoolId, Account>,
    /// What VMs use that no pool counts.
    apart: [f64; 3],
    /// What everything would use if every pool had what it wants.
    wanted: [f64; 3],
}

#[derive(Debug)]
struct Account {
    need: Need,
    /// The shares are not those of this need yet.
    is_new: bool,
    share: usize,
    bell: Arc<Notify>,
}

impl Account {
    fn used(&self) -> [f64; 3] {
        let count = (self.need.wanted + self.need.leased) as f64;
        self.need.cost.amounts().map(|each| each * count)
    }
}

/// Room that a VM has which no pool counts; dropped, it is given back.
#[derive(Debug, Default)]
pub struct Room(Option<(Shares, Cost)>);

impl Shares {
    /// Of `budget`.
    pub fn new(budget: Budget) -> Self {
        Self { budget, books: Arc::default() }
    }

    /// There is no budget: every pool may have what it wants.
    pub const fn is_unbounded(&self) -> bool {
        self.budget.is_unbounded()
    }

    /// Notes what `pool` needs; answers how many VMs it may have beside those of tenants. `bell` is
    /// rung when that changes by what others need.
    pub fn settle(&self, pool: &PoolId, need: Need, bell: &Arc<Notify>) -> usize {
        if self.budget.is_unbounded() {
            return usize::MAX;
        }
        let mut books = self.books.lock();
        let books = &mut *books;
        let account = books.pools.entry(pool.clone());
        let account = account.or_insert_with(|| Account {
            need: Need::default(),
            is_new: true,
            share: usize::MAX,
            bell: Arc::clone(bell),
        });
        if std::mem::take(&mut account.is_new) || account.need != need {
            add(&mut books.wanted, account.used(), -1.0);
            account.need = need;
            add(&mut books.wanted, account.used(), 1.0);
            books.share(&self.budget, Some(pool));
        }
        books.pools.get(pool).map_or(usize::MAX, |account| account.share)
    }

    /// Notes at once how many VMs of `pool` tenants have, so that no more is given than there is; what pools may
    /// keep warm follows when it settles.
    pub fn has_leased(&self, pool: &PoolId, leased: usize) {
        if self.budget.is_unbounded() {
            return;
        }
        let Books { pools, wanted, .. } = &mut *self.books.lock();
        if let Some(account) = pools.get_mut(pool) {
            add(wanted, account.used(), -1.0);
            account.need.leased = leased;
            account.is_new = true;
            add(wanted, account.used(), 1.0);
        }
    }

    /// Forgets `pool`; what tenants still have of it is counted apart from now on.
    pub fn forget(&self, pool: &PoolId) {
        let mut books = self.books.lock();
        if let Some(account) = books.pools.remove(pool) {
            add(&mut books.wanted, account.used(), -1.0);
            books.share(&self.budget, None);
        }
    }

    /// Room for one VM that no pool counts: warm ones make room for it. `None` where tenants have
    /// everything.
    pub fn take_room(&self, cost: Cost) -> Option<Room> {
        if self.budget.is_unbounded() {
            return Some(Room(None));
        }
        let mut books = self.books.lock();
        let left = books.left(&self.budget);
        if left.iter().zip(cost.amounts()).any(|(left, more)| *left < more) {
            return None;
        }
        books.keep_apart(&self.budget, cost);
        Some(Room(Some((self.clone(), cost))))
    }

    /// The room of a VM that there is already, whatever the budget is now.
    pub fn keep_room(&self, cost: Cost) -> Room {
        if self.budget.is_unbounded() {
            return Room(None);
        }
        self.books.lock().keep_apart(&self.budget, cost);
        Room(Some((self.clone(), cost)))
    }

    /// Would there be room for `count` VMs of `cost`, if pools had nothing else?
    pub fn could_hold(&self, cost: Cost, count: usize) -> bool {
        let left = self.books.lock().left(&self.budget);
        fitting(&left, cost, count) == count
    }

    /// Is there room for one more VM of `cost` that a tenant is to have?
    pub fn has_room(&self, cost: Cost) -> bool {
        if self.budget.is_unbounded() {
            return true;
        }
        let left = self.books.lock().left(&self.budget);
        left.iter().zip(cost.amounts()).all(|(left, more)| *left >= more)
    }
}

impl Books {
    fn keep_apart(&mut self, budget: &Budget, cost: Cost) {
        add(&mut self.apart, cost.amounts(), 1.0);
        self.share(budget, None);
    }

    /// What tenants do not have.
    fn left(&self, budget: &Budget) -> [f64; 3] {
        let mut left = budget.amounts();
        add(&mut left, self.apart, -1.0);
        for account in self.pools.values() {
            add(&mut left, account.need.cost.amounts(), -(account.need.leased as f64));
        }
        left
    }

    /// Shares anew, and tells everybody whose share has changed but `asker`.
    fn share(&mut self, budget: &Budget, asker: Option<&PoolId>) {
        let most = budget.amounts();
        let fits = (0..3).all(|at| self.wanted[at] + self.apart[at] <= most[at]);
        let shares: Vec<usize> = match fits {
            true => vec![usize::MAX; self.pools.len()],
            false => {
                let needs: Vec<_> = self.pools.values().map(|account| account.need).collect();
                share(self.left(budget), &needs)
            }
        };
        for ((pool, account), share) in self.pools.iter_mut().zip(shares) {
            if account.share != share && asker != Some(pool) {
                account.bell.notify_one();
            }
            account.share = share;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some((shares, cost)) = self.0.take() else { return };
        let mut books = shares.books.lock();
        add(&mut books.apart, cost.amounts(), -1.0);
        books.share(&shares.budget, None);
    }
}

/// How many VMs each of `needs` may have of what is `left`.
fn share(mut left: [f64; 3], needs: &[Need]) -> Vec<usize> {
    let mut shares = vec![0; needs.len()];
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(needs[*at].priority));
    let waiting = |need: &Need| need.waiting;
    let floor = |need: &Need| need.floor;
    for first in [&waiting as &dyn Fn(&Need) -> usize, &floor] {
        for at in &order {
            let lacks = needs[*at].wanted - shares[*at];
            let more = fitting(&left, needs[*at].cost, first(&needs[*at]).min(lacks));
            shares[*at] += more;
            add(&mut left, needs[*at].cost.amounts(), -(more as f64));
        }
    }
    for tier in order.chunk_by(|a, b| needs[*a].priority == needs[*b].priority) {
        let lacks = |shares: &[usize], at: usize| needs[at].wanted - shares[at];
        let mut need = [0.0; 3];
        for at in tier {
            add(&mut need, needs[*at].cost.amounts(), lacks(&shares, *at) as f64);
        }
        let part = left.iter().zip(need).map(|(left, need)| left / need.max(f64::MIN_POSITIVE));
        let part = part.fold(1.0_f64, f64::min).max(0.0);
        for at in tier {
            let more = (lacks(&shares, *at) as f64 * part) as usize;
            shares[*at] += more;
            add(&mut left, needs[*at].cost.amounts(), -(more as f64));
        }
        // What was rounded away: one each, in order, while there is any.
        for at in tier {
            let more = fitting(&left, needs[*at].cost, lacks(&shares, *at).min(1));
            shares[*at] += more;
            add(&mut left, needs[*at].cost.amounts(), -(more as f64));
        }
    }
    shares
}

/// How many of `wanted` fit into what is `left`.
fn fitting(left: &[f64; 3], cost: Cost, wanted: usize) -> usize {
    let each = cost.amounts().into_iter().zip(left).filter(|(cost, _)| *cost > 0.0);
    let most = each.map(|(cost, left)| (left.max(0.0) / cost) as usize).min();
    most.unwrap_or(wanted).min(wanted)
}

fn add(sum: &mut [f64; 3], amounts: [f64; 3], times: f64) {
    for (sum, amount) in sum.iter_mut().zip(amounts) {
        // Infinity less anything stays what it is; nothing infinite is ever added.
        *sum = amount.mul_add(times, *sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> PoolId {
        PoolId::parse(&format!("p{number}")).unwrap()
    }

    fn need(wanted: usize) -> Need {
        Need { wanted, ..Need::default() }
    }

    fn vms(max_vms: u64) -> Shares {
        Shares::new(Budget { max_vms: Some(max_vms), ..Budget::default() })
    }

    #[test]
    fn what_fits_is_not_shared() {
        let (shares, bell) = (vms(10), Arc::default());
        assert_eq!(shares.settle(&id(1), need(4), &bell), usize::MAX);
        assert_eq!(shares.settle(&id(2), need(6), &bell), usize::MAX);
    }

    #[test]
    fn one_priority_shares_by_need() {
        let (shares, bell) = (vms(10), Arc::default());
        shares.settle(&id(1), need(30), &bell);
        assert_eq!(shares.settle(&id(2), need(10), &bell), 2);
        assert_eq!(shares.settle(&id(1), need(30), &bell), 8, "the rest, rounded up");
    }

    #[test]
    fn floors_come_first_and_then_priority() {
        let (shares, bell) = (vms(10), Arc::default());
        shares.settle(&id(1), Need { floor: 3, ..need(20) }, &bell);
        let urgent = Need { priority: 1, ..need(6) };
        assert_eq!(shares.settle(&id(2), urgent, &bell), 6);
        assert_eq!(shares.settle(&id(1), Need { floor: 3, ..need(20) }, &bell), 4);
    }

    #[test]
    fn who_waits_comes_before_what_only_waits_to_be_wanted() {
        let (shares, bell) = (vms(4), Arc::default());
        shares.settle(&id(1), Need { priority: 9, floor: 2, ..need(6) }, &bell);
        let waited_for = Need { waiting: 2, ..need(3) };
        assert_eq!(shares.settle(&id(2), waited_for, &bell), 2);
    }

    #[test]
    fn what_tenants_have_counts_at_once() {
        let (shares, bell) = (vms(2), Arc::default());
        assert_eq!(shares.settle(&id(1), need(2), &bell), usize::MAX);
        shares.has_leased(&id(1), 1);
        assert!(shares.has_room(Cost::default()));
        shares.has_leased(&id(1), 2);
        assert!(!shares.has_room(Cost::default()) && shares.take_room(Cost::default()).is_none());
        // It settles with what is known already: shared is it nonetheless.
        assert_eq!(shares.settle(&id(1), Need { leased: 2, ..need(2) }, &bell), 0);
    }

    #[tokio::test]
    async fn what_tenants_have_is_never_shared_and_others_are_told() {
        let (shares, bell, other) = (vms(10), Arc::default(), Arc::<Notify>::default());
        assert_eq!(shares.settle(&id(1), need(8), &other), usize::MAX);
        let has = Need { leased: 6, ..need(0) };
        shares.settle(&id(2), has, &bell);
        other.notified().await;
        assert_eq!(shares.settle(&id(1), need(8), &other), 4);
        let room = shares.take_room(Cost::default()).unwrap();
        assert_eq!(shares.settle(&id(1), need(8), &other), 3);
        drop(room);
        assert_eq!(shares.settle(&id(1), need(8), &other), 4);
        shares.settle(&id(2), Need { leased: 10, ..need(1) }, &bell);
        assert!(shares.take_room(Cost::default()).is_none() && !shares.has_room(Cost::default()));
        shares.forget(&id(2));
        assert!(shares.has_room(Cost::default()));
    }

    #[test]
    fn memory_binds_where_it_is_scarce() {
        let budget = Budget { max_mem_size_mib: Some(1000), ..Budget::default() };
        let (shares, bell) = (Shares::new(budget), Arc::default());
        let big = Need { cost: Cost { mem_size_mib: 300, vcpus: 1 }, ..need(9) };
        assert_eq!(shares.settle(&id(1), big, &bell), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_there_is_and_nothing_left_over(
            most in 0..50_u64,
            pools in prop::collection::vec((0..20_usize, 0..8_usize, 0..3_u32, 0..6_usize), 1..8),
        ) {
            let (shares, bell) = (vms(most), Arc::default());
            let needs: Vec<_> = pools
                .iter()
                .map(|&(wanted, floor, priority, leased)| {
                    let waiting = wanted / 3;
                    Need { wanted, waiting, floor, priority, leased, cost: Cost::default() }
                })
                .collect();
            for (at, need) in needs.iter().enumerate() {
                shares.settle(&id(at), *need, &bell);
            }
            let leased: usize = needs.iter().map(|need| need.leased).sum();
            let wanted: usize = needs.iter().map(|need| need.wanted).sum();
            let got: Vec<_> = needs
                .iter()
                .enumerate()
                .map(|(at, need)| shares.settle(&id(at), *need, &bell).min(need.wanted))
                .collect();
            let room = usize::try_from(most).unwrap().saturating_sub(leased);
            prop_assert_eq!(got.iter().sum::<usize>(), wanted.min(room));
        }
    }
}
