//! When a VM that was booted is ready to be captured, and when one that was restored is usable.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::env::{Deadline, Env as _, SystemEnv};
use crate::error::{Result, VmRuntimeError};
use crate::id::VmId;
use crate::model::VmStatus;
use crate::provider::{Probe, VmRuntime};

/// The longest marker, in bytes.
pub const MAX_MARKER_BYTES: usize = 256;
/// How often a console is looked at for its marker.
const POLL: Duration = Duration::from_millis(20);

/// What shows that a VM is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It runs.
    #[default]
    Running,
    /// It has written this text on its console.
    ConsoleMarker(String),
    /// An agent in the guest answers on its channel.
    AgentAnswers,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("to run"),
            Self::ConsoleMarker(marker) => write!(f, "{marker:?} on its console"),
            Self::AgentAnswers => f.write_str("an answer of its agent"),
        }
    }
}

impl Readiness {
    /// What to ask of a VM that goes on where its snapshot stood, and so does not write its marker
    /// again.
    const fn probe(&self) -> Probe {
        match self {
            Self::Running | Self::ConsoleMarker(_) => Probe::Alive,
            Self::AgentAnswers => Probe::AgentAnswers,
        }
    }
}

/// Waits until a VM that was started is ready. Blocks for up to `timeout`.
///
/// # Errors
/// `Timeout`; `InvalidTransition` when the VM ends meanwhile; those of the console and channel.
pub fn wait_ready(
    provider: &dyn VmRuntime,
    vm_id: &VmId,
    readiness: &Readiness,
    timeout: Duration,
) -> Result<()> {
    let deadline = Deadline::after(timeout);
    loop {
        let ready = match readiness {
            Readiness::Running => provider.probe(vm_id, Probe::Alive, timeout).map(|()| true),
            Readiness::ConsoleMarker(marker) => has_marker(provider, vm_id, marker),
            Readiness::AgentAnswers => agent_answers(provider, vm_id, deadline),
        };
        if ready? {
            return Ok(());
        }
        provider.probe(vm_id, Probe::Alive, timeout)?;
        if deadline.left().is_none() {
            let what = format!("VM {vm_id}, to become ready ({readiness}),");
            return Err(VmRuntimeError::Timeout { what, after: timeout });
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until a VM that was restored is usable: one that goes on where its snapshot stood is asked
/// once, for up to `probe_timeout`; one that boots anew, because there is no memory in its snapshot, has to
/// become ready within `ready_timeout`, like any that boots. Blocks.
///
/// # Errors
/// As for [`wait_ready`].
pub fn wait_restored(
    provider: &dyn VmRuntime,
    vm_id: &VmId,
    readiness: &Readiness,
    probe_timeout: Duration,
    ready_timeout: Duration,
) -> Result<()> {
    match provider.capabilities().memory_in_snapshots {
        true => provider.probe(vm_id, readiness.probe(), probe_timeout),
        false => wait_ready(provider, vm_id, readiness, ready_timeout),
    }
}

/// Sends the warm-up `requests` to a VM's agent, one after another. Blocks.
///
/// # Errors
/// Those of the channel; `Backend` when the agent refuses one; `Timeout` for each past `timeout`.
pub fn warm_up(
    provider: &dyn VmRuntime,
    vm_id: &VmId,
    requests: &[String],
    timeout: Duration,
) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut agent = Agent::greet(provider.guest_channel(vm_id)?, SystemEnv.uid(), timeout)?;
    requests.iter().try_for_each(|request| agent.ask(request, timeout).map(drop))
}

fn has_marker(provider: &dyn VmRuntime, vm_id: &VmId, marker: &str) -> Result<bool> {
    let mut offset = 0;
    let mut seen = Vec::new();
    loop {
        let chunk = provider.console(vm_id, offset, 64 * 1024)?;
        if chunk.bytes.is_empty() {
            return Ok(false);
        }
        // A marker may lie across two pieces: the end of one is looked at with the next.
        seen.extend_from_slice(&chunk.bytes);
        if seen.windows(marker.len().max(1)).any(|window| window == marker.as_bytes()) {
            return Ok(true);
        }
        seen.drain(..seen.len().saturating_sub(marker.len()));
        offset = chunk.next_offset;
    }
}

fn agent_answers(provider: &dyn VmRuntime, vm_id: &VmId, deadline: Deadline) -> Result<bool> {
    // A guest that still boots swallows what is said to it, so it is asked again and again.
    let patience = deadline.left().unwrap_or(POLL).min(Duration::from_millis(500));
    match provider.probe(vm_id, Probe::AgentAnswers, patience) {
        Ok(()) => Ok(true),
        Err(VmRuntimeError::Timeout { .. } | VmRuntimeError::Unavailable { .. })
            if provider.status(vm_id) == Some(VmStatus::Running) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
