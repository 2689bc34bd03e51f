//! Policies of depth against each other on the same claims, in simulated time.
//!
//! A pool is simulated event by event: a claim takes a warm VM or misses, and a miss is served
//! another way (lost sales); what is missing up to the policy's target is restored, so many at once
//! as the host bears; a target that falls retires what waits. Ours is the product's own
//! [`hearth_pool::sizing::Demand`]. Everything is a function of the seed.

pub mod compare;
pub mod oracle;
pub mod outcome;
pub mod policy;
pub mod random;
pub mod scenario;
pub mod simulate;
pub mod trace;
