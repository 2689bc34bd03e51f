//! The command line as its users have it: real processes, a real server on the memory provider.

#![allow(clippy::unwrap_used, reason = "what these helpers unwrap fails the test, and says where")]

mod apply;
mod debug;
mod guests;
mod hearth;
mod leases;
mod outputs;
mod resources;
mod scheduler;
mod screen;
mod screens;
mod security;
mod settings;
#[path = "../tools/terminal.rs"]
mod terminal;

/// What `terminal` has from whoever it runs commands for.
mod site {
    pub(crate) use crate::hearth::Ended;

    /// How long anything may take to come about.
    pub(crate) const LONG: std::time::Duration = std::time::Duration::from_secs(60);
}
