//! The whole server in process, on the memory provider, and a real client over loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at what fails")]

mod harness;

mod announced;
mod artifacts;
mod connects;
mod contract;
mod generations;
mod health;
mod leased;
mod leavers;
mod life;
mod lists;
mod names;
mod operators;
mod page;
mod previous_release;
mod quotas;
mod races;
mod refusals;
mod scheduler;
mod security;
mod unbuilt;
mod watches;
