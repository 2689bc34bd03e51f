//! What is known of the other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::conduct::Conduct;

/// Calls of one connection that nobody could be found for; then it is closed.
const MAX_FAILURES: u64 = 100;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// From this address.
    Ip(IpAddr),
    /// By the Unix socket, from a program that runs as this user.
    User(u32),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::User(uid) => write!(f, "uid:{uid}"),
        }
    }
}

/// Of calls that end with their connection, one in so many counts as worth nothing.
const LEFT_FOR_ONE: usize = 16;

/// The other end of a connection, and what goes on there.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// The names in its certificate, which was checked: URIs and domain names.
    pub(crate) names: Vec<String>,
    /// Which authorities its certificate was checked with.
    pub(crate) authorities: u64,
    calls: AtomicUsize,
    made: AtomicU64,
    begun: AtomicU64,
    wasted: AtomicU64,
    failures: AtomicU64,
    conduct: Arc<Conduct>,
    is_expelled: AtomicBool,
    is_gone: AtomicBool,
}

impl Peer {
    /// One that has not called yet.
    pub(crate) fn new(
        address: Address,
        names: Vec<String>,
        authorities: u64,
        conduct: Arc<Conduct>,
    ) -> Arc<Self> {
        let (made, calls, begun, wasted, failures) = Default::default();
        let (is_expelled, is_gone) = Default::default();
        let peer = Self {
            address,
            names,
            authorities,
            made,
            calls,
            begun,
            wasted,
            failures,
            conduct,
            is_expelled,
            is_gone,
        };
        Arc::new(peer)
    }

    /// It makes a call, of which it is not known yet whether it may.
    pub(crate) fn has_called(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has begun.
    pub(crate) fn has_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended.
    pub(crate) fn has_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// It was not known who made a call.
    pub(crate) fn has_failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) >= MAX_FAILURES {
            self.is_expelled.store(true, Ordering::Relaxed);
        }
        self.has_wasted();
    }

    /// It has closed the connection.
    pub(crate) fn has_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// It has dropped a call. Who went away with many of them may just have crashed: few of those count.
    pub(crate) fn has_left(&self) {
        if !self.is_gone.load(Ordering::Relaxed) || self.calls().is_multiple_of(LEFT_FOR_ONE) {
            self.has_wasted();
        }
    }

    /// A call was worth nothing to anybody.
    pub(crate) fn has_wasted(&self) {
        self.wasted.fetch_add(1, Ordering::Relaxed);
        if self.conduct.wasted() {
            self.is_expelled.store(true, Ordering::Relaxed);
        }
    }

    /// Calls under way.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls that it ever made, be they begun or not.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Of these, those that were worth nothing.
    pub(super) fn wasted(&self) -> u64 {
        self.wasted.load(Ordering::Relaxed)
    }

    /// Calls that were ever begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// It guesses, or wastes calls: nothing more is heard from it.
    pub(crate) fn is_expelled(&self) -> bool {
        self.is_expelled.load(Ordering::Relaxed)
    }
}
