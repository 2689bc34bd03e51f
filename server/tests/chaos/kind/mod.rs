//! What differs between kinds of VMs: their processes, and how one talks to their guests.

pub(crate) mod docker;
pub(crate) mod qemu;

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_proto::v1::Vm;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::hearth::{Answer, Host};

/// A host, and what there is on it of a kind.
pub(crate) struct Made {
    pub(crate) host: Host,
    pub(crate) kind: Arc<dyn Kind>,
}

/// VMs of a kind, seen from beside hearth. Every call blocks.
pub(crate) trait Kind: Send + Sync {
    /// The VMs that have a process now, by their uids.
    fn processes(&self, host: &Host) -> Answer<BTreeMap<String, u32>>;

    /// Ends the VM by `kill -9` of its process, or as rudely in a way that only this kind has. False
    /// when there was nothing to end.
    fn kill(&self, host: &Host, uid: &str, pid: u32, is_odd: bool) -> Answer<bool>;

    /// What the guest says of itself.
    fn traces(&self, vm: &Vm) -> Answer<Traces>;

    /// Leaves `token` in the guest.
    fn leave(&self, vm: &Vm, token: &str) -> Answer<()>;

    /// What is left of VMs and of snapshots that only this kind has; `uids` are all VMs there were.
    fn left(&self, uids: &[String]) -> Answer<Vec<String>>;

    /// Is told which state directory it is about, once.
    fn begin(&self, state_uuid: &str) {
        let _ = state_uuid;
    }
}

/// What a guest says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    /// What somebody left: every place that can keep something, in the order of their names.
    pub(crate) tokens: Vec<Option<String>>,
    /// Names the boot, or the process.
    pub(crate) boot: String,
    /// Grows while the guest runs, and never shrinks.
    pub(crate) age: u64,
}

/// `kill -9` of `pid` while `is_it` holds of it; false when it does not.
fn kill_if(pid: u32, is_it: impl FnOnce() -> bool) -> Answer<bool> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    // What is asked after this is asked about the process that the descriptor is of.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    Ok(is_it() && pidfd_send_signal(&process, Signal::KILL).is_ok())
}
