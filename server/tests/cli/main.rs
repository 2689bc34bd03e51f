//! The command line as its users have it: real processes, a real server on the memory provider.

#![allow(clippy::unwrap_used, reason = "what these helpers unwrap fails the test, and says where")]

mod apply;
mod hearth;
mod leases;
mod outputs;
mod resources;
mod scheduler;
mod security;
