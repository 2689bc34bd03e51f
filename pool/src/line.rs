//! Who waits for a VM, and whose turn it is: fair by tenant and weight, first come first served
//! within one.
//!
//! Tenants are served by stride scheduling (Waldspurger and Weihl 1995): each has a *pass*, the
//! lowest is next, and being served raises it by a stride that is the shorter the heavier the
//! tenant. So a thousand callers of one tenant cost another's single caller one turn, and tenants
//! that always wait get VMs in the ratio of their weights. Who comes new, or after a pause, begins
//! at the pass of whoever was served last: nobody saves turns up. Pure: no clock, no wake-ups;
//! bounded by whoever fills it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::Tenant;

/// The stride of weight 1.
const STRIDE: u64 = 1 << 20;
/// The heaviest tenant.
pub const MAX_WEIGHT: u32 = 1000;
/// How many tenants that do not wait now keep the pass that their last turn brought them to.
const MAX_REMEMBERED: usize = 1024;

/// A place in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    tenant: Tenant,
    number: u64,
}

#[derive(Debug)]
struct Place<W> {
    waiter: W,
    adds_restore: bool,
}

/// Where a tenant stands among the others: the lowest pass first, then who came first.
type Turn = (u64, u64, Tenant);

#[derive(Debug)]
struct Queue<W> {
    pass: u64,
    /// The number of the place that began its turn, to tell equal passes apart.
    since: u64,
    stride: u64,
    places: BTreeMap<u64, Place<W>>,
}

/// Everybody who waits for a VM of one pool.
#[derive(Debug)]
pub struct Line<W> {
    tenants: HashMap<Tenant, Queue<W>>,
    turns: BTreeSet<Turn>,
    /// Passes of tenants that have left the line and are ahead of it.
    remembered: HashMap<Tenant, u64>,
    /// The pass of whoever was served last.
    pass: u64,
    next_number: u64,
    len: usize,
    adding_restores: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            turns: BTreeSet::new(),
            remembered: HashMap::new(),
            pass: 0,
            next_number: 0,
            len: 0,
            adding_restores: 0,
        }
    }
}

impl<W> Line<W> {
    /// How many wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nobody waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them justify a restore of their own.
    pub const fn adding_restores(&self) -> usize {
        self.adding_restores
    }

    /// Somebody of a tenant that `may` have a VM waits.
    pub fn has_any(&self, may: impl Fn(&Tenant) -> bool) -> bool {
        self.tenants.keys().any(may)
    }

    /// Which VM from now on, counted from 1, would be that of a newcomer of `tenant` who weighs
    /// `weight`, if nobody came or left: an estimate, exact when all weigh the same.
    pub fn position(&self, tenant: &Tenant, weight: u32) -> usize {
        let own = self.tenants.get(tenant).map_or(0, |queue| queue.places.len()) + 1;
        let stride = stride_of(weight);
        let others = self.tenants.iter().filter(|(other, _)| *other != tenant);
        let ahead = others.map(|(_, queue)| {
            let turns = own as u64 * stride / queue.stride.max(1);
            queue.places.len().min(usize::try_from(turns).unwrap_or(usize::MAX))
        });
        own + ahead.sum::<usize>()
    }

    /// Takes the last place among those of `tenant`, who weighs `weight` (1 to [`MAX_WEIGHT`];
    /// what is outside counts as the nearest).
    pub fn join(&mut self, tenant: &Tenant, weight: u32, adds_restore: bool, waiter: W) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let stride = stride_of(weight);
        let pass = self.remembered.remove(tenant).unwrap_or_default().max(self.pass);
        let queue = self.tenants.entry(tenant.clone()).or_insert_with(|| {
            self.turns.insert((pass, number, tenant.clone()));
            Queue { pass, since: number, stride, places: BTreeMap::new() }
        });
        queue.stride = stride;
        queue.places.insert(number, Place { waiter, adds_restore });
        self.len += 1;
        self.adding_restores += usize::from(adds_restore);
        Ticket { tenant: tenant.clone(), number }
    }

    /// Gives a place up; `None` when its turn has come already.
    pub fn leave(&mut self, ticket: &Ticket) -> Option<W> {
        let queue = self.tenants.get_mut(&ticket.tenant)?;
        let place = queue.places.remove(&ticket.number)?;
        if queue.places.is_empty() {
            let (pass, since) = (queue.pass, queue.since);
            self.tenants.remove(&ticket.tenant);
            self.turns.remove(&(pass, since, ticket.tenant.clone()));
            self.remember(ticket.tenant.clone(), pass);
        }
        Some(self.left(place))
    }

    /// The next to be served.
    pub fn serve_next(&mut self) -> Option<W> {
        self.serve(|_| true)
    }

    /// The next to be served of those tenants that `may` have a VM.
    pub fn serve(&mut self, may: impl Fn(&Tenant) -> bool) -> Option<W> {
        let turn = self.turns.iter().find(|(_, _, tenant)| may(tenant))?.clone();
        self.turns.remove(&turn);
        let (pass, _, tenant) = turn;
        let queue = self.tenants.get_mut(&tenant)?;
        let (_, place) = queue.places.pop_first()?;
        // One that had to be passed over does not hold the others back.
        self.pass = self.pass.max(pass);
        queue.pass = pass + queue.stride;
        queue.since = self.next_number;
        self.next_number += 1;
        if queue.places.is_empty() {
            let pass = queue.pass;
            self.tenants.remove(&tenant);
            self.remember(tenant, pass);
        } else {
            self.turns.insert((queue.pass, queue.since, tenant));
        }
        Some(self.left(place))
    }

    /// Notes that `tenant` has had its turns up to `pass`, as long as that matters.
    fn remember(&mut self, tenant: Tenant, pass: u64) {
        if self.remembered.len() >= MAX_REMEMBERED {
            let reached = self.pass;
            self.remembered.retain(|_, pass| *pass > reached);
        }
        if pass > self.pass && self.remembered.len() < MAX_REMEMBERED {
            self.remembered.insert(tenant, pass);
        }
    }

    fn left(&mut self, place: Place<W>) -> W {
        self.len -= 1;
        self.adding_restores -= usize::from(place.adds_restore);
        place.waiter
    }
}

fn stride_of(weight: u32) -> u64 {
    STRIDE / u64::from(weight.clamp(1, MAX_WEIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_crowd_costs_another_one_turn() {
        let (crowd, single) = (Tenant::new("crowd"), Tenant::new("single"));
        let mut line = Line::default();
        for number in 0..100 {
            line.join(&crowd, 1, true, number);
        }
        assert_eq!((line.position(&single, 1), line.position(&crowd, 1)), (2, 101));
        line.join(&single, 1, true, 1000);
        assert_eq!(
            [line.serve_next(), line.serve_next(), line.serve_next()],
            [Some(0), Some(1000), Some(1)]
        );
    }

    #[test]
    fn leaving_is_forgotten_and_idempotent() {
        let tenant = Tenant::anonymous();
        let mut line = Line::default();
        let first = line.join(&tenant, 1, true, 1);
        line.join(&tenant, 1, false, 2);
        assert_eq!(line.adding_restores(), 1);
        assert_eq!((line.leave(&first), line.leave(&first)), (Some(1), None));
        assert_eq!((line.len(), line.adding_restores()), (1, 0));
        assert_eq!((line.serve_next(), line.serve_next()), (Some(2), None));
    }

    /// Serves 1,000 VMs to tenants of these weights of whom each has `callers` in line, who stand
    /// at its end again when they are served.
    fn share(weights: &[u32], callers: usize) -> Vec<usize> {
        let tenants: Vec<_> = weights.iter().map(|it| Tenant::new(&format!("t{it}"))).collect();
        let mut line = Line::default();
        let join = |line: &mut Line<usize>, who: usize| {
            line.join(&tenants[who], weights[who], true, who);
        };
        for who in 0..weights.len() {
            (0..callers).for_each(|_| join(&mut line, who));
        }
        let mut served = vec![0; weights.len()];
        for _ in 0..1000 {
            let who = line.serve_next().unwrap();
            served[who] += 1;
            join(&mut line, who);
        }
        served
    }

    #[test]
    fn those_who_always_wait_share_by_weight() {
        for (got, due) in share(&[1, 2, 7], 30).into_iter().zip([100, 200, 700]) {
            assert!(got.abs_diff(due) <= due / 50, "{got} of {due}");
        }
        // Also when each tenant has one caller, who leaves the line with every VM.
        for (got, due) in share(&[1, 2, 7], 1).into_iter().zip([100, 200, 700]) {
            assert!(got.abs_diff(due) <= due / 50, "{got} of {due}");
        }
    }

    #[test]
    fn nobody_saves_turns_up() {
        let (busy, idle) = (Tenant::new("busy"), Tenant::new("idle"));
        let mut line = Line::default();
        (0..50).for_each(|number| drop(line.join(&busy, 1, true, number)));
        assert!((0..40).all(|_| line.serve_next().is_some()));
        (100..150).for_each(|number| drop(line.join(&idle, 1, true, number)));
        let of_busy = (0..10).filter_map(|_| line.serve_next()).filter(|it| *it < 100).count();
        assert!((4..=6).contains(&of_busy), "{of_busy} of the next ten");
    }

    #[test]
    fn what_is_remembered_of_those_who_left_is_bounded() {
        let mut line = Line::default();
        for number in 0..10 * MAX_REMEMBERED {
            line.join(&Tenant::new(&format!("t{number}")), 1, true, number);
            line.serve_next();
        }
        assert!(line.remembered.len() <= MAX_REMEMBERED);
        assert!(line.tenants.is_empty() && line.turns.is_empty());
    }
}
