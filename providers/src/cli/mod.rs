//! Backends that are driven by a command line tool: what they have in common.
//!
//! A [`Tool`] knows the tool's command lines; [`CliBackend`] makes a provider's backend of it. The
//! tool calls a machine `hearth-<uid>` for life: names are ours, so a rename never reaches it.
//! Machines live in the tool's own service and outlive hearth.
//!
//! Invariants:
//! - An exit code is not taken for the deed: after a start, a stop and a removal the tool is asked
//!   how the machine stands. Some tools take a closed input for a "no" and end well.
//! - What hearth last led a machine to is written down before a stop and after a start, so that
//!   after a restart a machine that was stopped is told from one that died.
//! - Deaths are not reported as they happen: a thread asks the tool for all its machines now and
//!   then, and what should run and does not is Failed from then on.
//! - A stopped machine that was never started since its restore is as its snapshot was; a
//!   snapshot of it is that snapshot's files again. Files of a snapshot are never written.

mod adopt;
mod backend;
mod blueprint;
mod config;
mod machine;
pub mod runner;
mod verbs;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::id::Uid;
pub use backend::{CliBackend, open};
pub use blueprint::Blueprint;
pub use config::CliConfig;
pub use machine::{Image, Machine};

/// The label that names the state directory.
pub const STATE_LABEL: &str = "dev.hearth.state";

/// How a machine stands, as its tool says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It was never started.
    Created,
    /// It runs, or is about to.
    Running,
    /// It does not run.
    Stopped,
    /// It is between two of these, or the tool cannot tell.
    Unclear,
    /// The tool says that it failed.
    Failed,
}

/// A machine as its tool lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The tool's name of it.
    pub name: String,
    /// How it stands.
    pub stand: Stand,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A machine that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// What it is to be called.
    pub name: &'a str,
    /// What it is made from.
    pub blueprint: &'a Blueprint,
    /// [`STATE_LABEL`]'s value.
    pub state: &'a str,
}

/// One tool's command lines. Each blocks, within the bounds of the [`CliConfig`]; a `cut` that
/// becomes true ends it early.
pub trait Tool: Send + Sync + 'static {
    /// The files that a capture leaves.
    const FILES: &'static [&'static str];
    /// Root disks can be read-only.
    const CAN_BE_READ_ONLY: bool;

    /// What it can and cannot do, in this version.
    fn capabilities(&self) -> Capabilities;

    /// The tool's version, for people and for what is made with it.
    fn version(&self) -> &str;

    /// The program that is run.
    fn program(&self) -> &Path;

    /// Makes a machine of an image.
    ///
    /// # Errors
    /// `InvalidSpec` for what the tool refuses of it; any.
    fn create(&self, making: Making<'_>) -> Result<()>;

    /// Makes a machine of what [`Self::capture`] left in `files`.
    ///
    /// # Errors
    /// Any.
    fn create_from(&self, making: Making<'_>, files: &Path) -> Result<()>;

    /// Starts a machine.
    ///
    /// # Errors
    /// Any.
    fn start(&self, name: &str, cut: &AtomicBool) -> Result<()>;

    /// Stops a machine.
    ///
    /// # Errors
    /// Any.
    fn stop(&self, name: &str, cut: &AtomicBool) -> Result<()>;

    /// Asks once for a machine's removal, with whatever the tool keeps for it beside.
    ///
    /// # Errors
    /// Any; whether it is gone is looked at.
    fn delete(&self, name: &str) -> Result<()>;

    /// Every machine that the tool knows, within `timeout`.
    ///
    /// # Errors
    /// Any; `Backend` when the answer makes no sense.
    fn list(&self, timeout: Duration) -> Result<Vec<Seen>>;

    /// Writes [`Self::FILES`] into the empty directory `into`.
    ///
    /// # Errors
    /// Any; the directory is then removed.
    fn capture(
        &self,
        name: &str,
        blueprint: &Blueprint,
        into: &Path,
        cut: &AtomicBool,
    ) -> Result<()>;

    /// The first `enough_bytes` of what the machine's command wrote.
    ///
    /// # Errors
    /// Any.
    fn console(&self, name: &str, enough_bytes: u64) -> Result<Vec<u8>>;

    /// The last lines of that.
    ///
    /// # Errors
    /// Any.
    fn last_words(&self, name: &str) -> Result<Vec<u8>>;
}

/// What the tool calls the machine of `uid`.
pub fn name_of(uid: Uid) -> String {
    format!("hearth-{uid}")
}

/// Whose machine is called `name`.
fn uid_of(name: &str) -> Option<Uid> {
    name.strip_prefix("hearth-")?.parse().ok()
}

/// What is written down of a machine and an image.
pub(crate) fn fuzz(text: &[u8]) {
    drop(crate::files::fuzz::<machine::Record>(text));
    drop(crate::files::fuzz::<machine::Image>(text));
}
