//! What makes virtual machines: one contract, and every adapter behind it.
//!
//! Read in this order: [`provider`] is the contract, [`transition`] its table of states,
//! [`error`] its answers, [`model`] its data. [`engine`] keeps the contract once for all
//! adapters (names, turns, snapshots, pins, tombstones) and leaves them only the driving of
//! their backend, which is [`backend::Backend`]. [`memory`] is the smallest adapter.
//!
//! Everything here blocks and nothing here knows about gRPC, pools or async: the pool's job
//! runner gives each call a thread, a bound and a deadline.

pub mod agent;
#[cfg(feature = "apple-container")]
pub mod apple_container;
pub mod backend;
pub mod beneath;
pub mod capabilities;
#[cfg(any(feature = "apple-container", feature = "smolvm"))]
pub mod cli;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod directory;
#[cfg(all(feature = "docker", target_os = "linux"))]
pub mod docker;
pub mod engine;
pub mod env;
pub mod error;
pub mod faulty;
pub(crate) mod files;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
pub mod firecracker;
pub mod freeze;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod limit;
#[cfg(all(any(feature = "firecracker", feature = "qemu"), target_os = "linux"))]
pub(crate) mod local;
pub mod map;
pub mod memory;
pub mod model;
#[cfg(all(any(feature = "firecracker", feature = "qemu"), target_os = "linux"))]
pub(crate) mod prefault;
pub mod provider;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod qemu;
pub mod readiness;
#[cfg(feature = "smolvm")]
pub mod smolvm;
pub mod snapshots;
#[cfg(target_os = "linux")]
pub mod supervise;
pub mod transition;
pub mod turn;
mod turnstile;
pub mod usage;

pub use capabilities::{Capabilities, StopKeeps};
pub use error::VmRuntimeError;
pub use id::{SnapshotId, Uid, VmId};
pub use model::{SnapshotRef, VmSpec, VmStatus, VmView};
pub use provider::{VmProvider, VmQuery, VmRuntime};
