//! How many connections there may be: in all, and from one peer.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::peer::Address;

/// The seats of one server.
#[derive(Debug)]
pub(crate) struct Seats {
    total: usize,
    per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<Address, usize>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The whole server's are taken.
    Total,
    /// The peer's are.
    Peer,
}

impl Seats {
    /// So many, and so many of them for one peer.
    pub(crate) fn new(total: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { total, per_peer, taken: Mutex::default() })
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
        let of_peer = taken.by_peer.entry(address).or_default();
        if *of_peer >= self.per_peer {
            return Err(Full::Peer);
        }
        *of_peer += 1;
        taken.total += 1;
        Ok(Seat { seats: Arc::clone(self), address })
    }
}

/// The seat of one connection; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    address: Address,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.total -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.address) {
            *of_peer -= 1;
            if *of_peer == 0 {
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
        let seats = Seats::new(3, 2);
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
}
