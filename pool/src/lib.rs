//! The product: keeps VMs warm and hands them out. No gRPC here, and no hypervisor.
//!
//! A request comes in at [`manager::Manager`], which has one file for each thing it does:
//! [`acquire`] is the handoff path, `release` its end, `refill` what makes "is" become "should
//! be", `recovery` what a start does first. Each [`pool::Pool`] keeps its books in a pure
//! [`ledger::Ledger`]; [`journal`] has what must survive; [`jobs`] runs what blocks.

pub mod acquire;
pub mod admin;
pub mod announce;
pub mod attached;
mod breaker;
pub mod bucket;
pub mod budget;
pub mod build;
pub mod changes;
mod cold;
pub mod concurrency;
pub mod config;
mod dedicated;
pub mod env;
pub mod error;
pub mod follow;
pub mod freeze;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod jobs;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod lifecycle;
pub mod line;
pub mod manager;
pub mod metrics;
#[doc(hidden)]
pub mod mutants;
pub mod operations;
mod phase;
pub mod pool;
mod recovery;
mod refill;
mod release;
pub mod replies;
pub mod requests;
pub mod resolve;
mod restore;
mod retire;
pub mod sizing;
mod sync;
pub mod tasks;
pub mod templates;
pub mod tenants;
pub mod throttle;
mod usage;
pub mod verbs;
