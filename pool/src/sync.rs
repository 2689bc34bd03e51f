//! The atomics of what a model checker runs: there, a module of this name has the checker's own.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
