//! Who waits for a VM, and whose turn it is: fair by tenant, first come first served within one.
//!
//! Tenants are served in rotation, so that a thousand callers of one cost another tenant's
//! single caller one turn. Pure: no clock, no wake-ups; bounded by whoever fills it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::ids::Tenant;

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

/// Everybody who waits for a VM of one pool.
#[derive(Debug)]
pub struct Line<W> {
    tenants: HashMap<Tenant, BTreeMap<u64, Place<W>>>,
    /// Tenants with somebody in line, the next one to be served in front.
    rotation: VecDeque<Tenant>,
    next_number: u64,
    len: usize,
    adding_restores: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            rotation: VecDeque::new(),
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

    /// Takes the last place among those of `tenant`.
    pub fn join(&mut self, tenant: &Tenant, adds_restore: bool, waiter: W) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let places = self.tenants.entry(tenant.clone()).or_default();
        if places.is_empty() {
            self.rotation.push_back(tenant.clone());
        }
        places.insert(number, Place { waiter, adds_restore });
        self.len += 1;
        self.adding_restores += usize::from(adds_restore);
        Ticket { tenant: tenant.clone(), number }
    }

    /// Gives a place up; `None` when its turn has come already.
    pub fn leave(&mut self, ticket: &Ticket) -> Option<W> {
        let places = self.tenants.get_mut(&ticket.tenant)?;
        let place = places.remove(&ticket.number)?;
        if places.is_empty() {
            self.tenants.remove(&ticket.tenant);
            self.rotation.retain(|tenant| *tenant != ticket.tenant);
        }
        Some(self.left(place))
    }

    /// The next to be served.
    pub fn serve_next(&mut self) -> Option<W> {
        let tenant = self.rotation.pop_front()?;
        let places = self.tenants.get_mut(&tenant)?;
        let (_, place) = places.pop_first()?;
        if places.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.rotation.push_back(tenant);
        }
        Some(self.left(place))
    }

    fn left(&mut self, place: Place<W>) -> W {
        self.len -= 1;
        self.adding_restores -= usize::from(place.adds_restore);
        place.waiter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_crowd_costs_another_one_turn() {
        let (crowd, single) = (Tenant::new("crowd"), Tenant::new("single"));
        let mut line = Line::default();
        for number in 0..100 {
            line.join(&crowd, true, number);
        }
        line.join(&single, true, 1000);
        assert_eq!(
            [line.serve_next(), line.serve_next(), line.serve_next()],
            [Some(0), Some(1000), Some(1)]
        );
    }

    #[test]
    fn leaving_is_forgotten_and_idempotent() {
        let tenant = Tenant::anonymous();
        let mut line = Line::default();
        let first = line.join(&tenant, true, 1);
        line.join(&tenant, false, 2);
        assert_eq!(line.adding_restores(), 1);
        assert_eq!((line.leave(&first), line.leave(&first)), (Some(1), None));
        assert_eq!((line.len(), line.adding_restores()), (1, 0));
        assert_eq!((line.serve_next(), line.serve_next()), (Some(2), None));
    }
}
