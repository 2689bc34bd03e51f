//! The command line as its users have it: real processes, a real server on the memory provider.

mod apply;
mod hearth;
mod leases;
mod outputs;
mod resources;
