//! The table of the contract: which verb leads from which status where.
//!
//! ```text
//!            start          stop
//!  Created ────────► Running ────► Stopped
//!     │                 │  ◄────      │        any of these ── the VM dies ──► Failed
//!     │                 │     start   │
//!     └───────┬─────────┴─────────────┘        every one of them, Failed too:
//!          destroy ──► Destroyed               snapshot and rename change no status
//! ```
//!
//! There is no `_` arm: a new status does not compile until every pair is decided.

use std::fmt;

use crate::capabilities::{Capabilities, RunningSnapshot};
use crate::model::VmStatus;

/// What can be asked of a VM that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Boot it, or let it go on.
    Start,
    /// Pause it or power it off, as the provider has it.
    Stop,
    /// Capture its state under a name.
    Snapshot,
    /// End it.
    Destroy,
    /// Give it another name.
    Rename,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] =
        [Self::Start, Self::Stop, Self::Snapshot, Self::Destroy, Self::Rename];
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Snapshot => "snapshot",
            Self::Destroy => "destroy",
            Self::Rename => "rename",
        })
    }
}

/// What the table says about a verb on a VM that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed, and this is the status afterwards.
    Becomes(VmStatus),
    /// Refused as [`crate::VmRuntimeError::InvalidTransition`].
    Invalid,
    /// Refused as [`crate::VmRuntimeError::StopRequired`].
    StopRequired,
}

/// What `verb` does to a VM of `status` on a provider of `capabilities`.
pub const fn outcome(status: VmStatus, verb: Verb, capabilities: &Capabilities) -> Outcome {
    use Outcome::{Becomes, Invalid, StopRequired};
    use {Verb as V, VmStatus as S};
    match (status, verb) {
        (S::Created | S::Stopped, V::Start) => Becomes(S::Running),
        (S::Running | S::Failed | S::Destroyed, V::Start) => Invalid,

        (S::Running, V::Stop) => Becomes(S::Stopped),
        (S::Created | S::Stopped | S::Failed | S::Destroyed, V::Stop) => Invalid,

        (S::Created, V::Snapshot) if capabilities.snapshot_created => Becomes(S::Created),
        (S::Running, V::Snapshot) => match capabilities.snapshot_running {
            RunningSnapshot::Pauses => Becomes(S::Running),
            RunningSnapshot::StopRequired => StopRequired,
        },
        (S::Stopped, V::Snapshot) => Becomes(S::Stopped),
        (S::Created | S::Failed | S::Destroyed, V::Snapshot) => Invalid,

        (S::Created | S::Running | S::Stopped | S::Failed, V::Destroy) => Becomes(S::Destroyed),
        (S::Destroyed, V::Destroy) => Invalid,

        (S::Created, V::Rename) => Becomes(S::Created),
        (S::Running, V::Rename) => Becomes(S::Running),
        (S::Stopped, V::Rename) => Becomes(S::Stopped),
        (S::Failed, V::Rename) => Becomes(S::Failed),
        (S::Destroyed, V::Rename) => Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_destroyed() {
        for verb in Verb::ALL {
            let outcome = outcome(VmStatus::Destroyed, verb, &Capabilities::minimal());
            assert_eq!(outcome, Outcome::Invalid, "{verb}");
        }
    }

    #[test]
    fn only_start_stop_and_destroy_change_the_status() {
        for status in VmStatus::ALL {
            for verb in [Verb::Snapshot, Verb::Rename] {
                if let Outcome::Becomes(after) = outcome(status, verb, &Capabilities::full()) {
                    assert_eq!(after, status, "{verb}");
                }
            }
        }
    }
}
