//! How many connections there may be: in all, from one peer, and from one that misbehaved.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_pool::bucket::Rate;
use parking_lot::Mutex;

use super::conduct::Conduct;
use super::peer::Address;
use super::turn::Pace;

/// Peers without a connection that are remembered, before those that need not be are forgotten.
const SWEEP_AT: usize = 1024;

/// The seats of one server.
#[derive(Debug)]
pub(crate) struct Seats {
    total: usize,
    per_peer: usize,
    wasted_rate: Rate,
    pace: Pace,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<Address, OfPeer>,
}

#[derive(Debug)]
struct OfPeer {
    count: usize,
    conduct: Arc<Conduct>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The whole server's are taken.
    Total,
    /// The peer's are.
    Peer,
    /// The peer has made too many calls that were worth nothing.
    Conduct,
}

impl Seats {
    /// So many, and so many of them for one peer, which may waste calls at this rate.
    pub(crate) fn new(total: usize, per_peer: usize, wasted_rate: Rate) -> Arc<Self> {
        let (pace, taken) = Default::default();
        Arc::new(Self { total, per_peer, wasted_rate, pace, taken })
    }

    /// A seat for a connection from `address`.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn take(self: &Arc<Self>, address: Address) -> Result<Seat, Full> {
        let mut taken = self.taken.lock();
        if taken.total >= self.total {
            return Err(Full::Total);
        }
        if taken.by_peer.len() >= self.total + SWEEP_AT {
            taken.by_peer.retain(|_, it| it.count > 0 || !it.conduct.is_forgotten());
        }
        let fresh = || OfPeer { count: 0, conduct: Arc::new(Conduct::new(self.wasted_rate)) };
        let of_peer = taken.by_peer.entry(address).or_insert_with(fresh);
        match () {
            () if of_peer.count >= self.per_peer => return Err(Full::Peer),
            () if !of_peer.conduct.is_fine() => return Err(Full::Conduct),
            () => of_peer.count += 1,
        }
        let conduct = Arc::clone(&of_peer.conduct);
        taken.total += 1;
        Ok(Seat { seats: Arc::clone(self), address, conduct })
    }
}

/// The seat of one connection; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    address: Address,
    /// That of everybody at its address.
    pub(crate) conduct: Arc<Conduct>,
}

impl Seat {
    /// When those are read who waste calls.
    pub(super) fn pace(&self) -> &Pace {
        &self.seats.pace
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.total -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.address) {
            of_peer.count -= 1;
            if of_peer.count == 0 && of_peer.conduct.is_forgotten() {
                taken.by_peer.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_by_peer_and_in_all_and_come_back() {
        let seats = Seats::new(3, 2, Rate { per_second: 1.0, burst: 3 });
        let (a, b) = (Address::User(1), Address::User(2));
        let first = seats.take(a).unwrap();
        let _second = seats.take(a).unwrap();
        assert_eq!(seats.take(a).unwrap_err(), Full::Peer);
        let third = seats.take(b).unwrap();
        assert_eq!(seats.take(b).unwrap_err(), Full::Total);
        drop(first);
        assert!(seats.take(a).is_ok());
        drop(third);
        let taken = seats.taken.lock();
        assert_eq!((taken.total, taken.by_peer.len()), (1, 1), "who has none is forgotten");
    }

    #[test]
    fn who_misbehaved_is_known_again_and_others_are_not_taken_for_it() {
        let seats = Seats::new(9, 9, Rate { per_second: 0.001, burst: 3 });
        let (bad, good) = (Address::User(1), Address::User(2));
        let seat = seats.take(bad).unwrap();
        assert!((0..3).all(|_| !seat.conduct.wasted()) && seat.conduct.wasted());
        drop(seat);
        assert_eq!(seats.take(bad).unwrap_err(), Full::Conduct);
        assert!(seats.take(good).is_ok());
    }
}
