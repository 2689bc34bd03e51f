//! How many VMs should be warm: the depth that keeps a promised ratio of misses.
//!
//! Each claim orders one restore, and a claim that finds nothing is served another way. That is the
//! lost-sales base-stock model, whose ratio of misses is Erlang's loss formula of the *offered
//! load*: the claims that come, on average, while one restore takes. [`Demand`] measures both
//! factors of one pool, and answers the smallest depth that keeps the promise. Bursts break the
//! formula's assumption (claims come independently), so that what was seen of them is kept for a
//! while as a floor.
//!
//! Everything here is pure: no clock, no lock, no I/O. Time is what the caller says, as the time
//! since boot; one that goes backwards is taken for one that stands still. The memory of a pool is
//! a few hundred bytes whatever its rate, and one call costs a bounded number of steps: see
//! [`Demand::depth`].

mod demand;
mod erlang;
mod peak;
mod rate;
mod restores;
#[cfg(test)]
mod tests;

pub use demand::Demand;
pub use erlang::{depth_for, miss_ratio};

/// What a pool promises, and between which depths it may keep it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// At most this part of the claims finds nothing warm: 0.001 is one in a thousand.
    pub miss_ratio: f64,
    /// Never fewer VMs than this, idle or not.
    pub min: usize,
    /// Never more; where it is below `min`, it wins.
    pub max: usize,
}

/// What decided a depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The pool's depth is a number that somebody gave.
    Fixed,
    /// The promise, by Erlang's formula.
    Promise,
    /// What bursts have taken out in the time of one restore.
    Peak,
    /// The pool's minimum.
    Min,
    /// The pool's maximum: the promise may be missed.
    Max,
    /// What all pools may have together.
    Budget,
    /// What a caller has announced.
    Prewarm,
    /// The pool or the node is being emptied.
    Drain,
}

/// How many VMs should be warm, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth {
    /// How many VMs to have, those that are being restored included.
    pub target: usize,
    /// The same before the pool's maximum.
    pub wanted: usize,
    /// What the promise alone takes.
    pub promise_depth: usize,
    /// What the last bursts alone take.
    pub peak_depth: usize,
    /// What decided.
    pub bound: Bound,
    /// The rate that was planned for.
    pub claims_per_second: f64,
    /// The claims that come while one restore takes.
    pub offered_load: f64,
    /// The part of the claims that finds nothing at `target`, if they come independently.
    pub predicted_miss_ratio: f64,
}
