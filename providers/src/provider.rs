//! The contract that every backend keeps.
//!
//! Blocking and object-safe: every state change runs as a job of the pool's runner, so adapters
//! may block, and a caller that hangs up never leaves a call half done. Each call is made of a
//! VM's *name*; the *uid* in [`VmView`] tells whether the name still means the same VM.
//!
//! | call | absent | Created | Running | Stopped | Failed | Destroyed |
//! |---|---|---|---|---|---|---|
//! | create | ok | `AlreadyExists` | `AlreadyExists` | `AlreadyExists` | `AlreadyExists` | ok |
//! | start | `NotFound` | Running | `InvalidTransition` | Running | `InvalidTransition` | `InvalidTransition` |
//! | stop | `NotFound` | `InvalidTransition` | Stopped | `InvalidTransition` | `InvalidTransition` | `InvalidTransition` |
//! | snapshot | `NotFound` | by capability | ok, or `StopRequired` by capability | ok | `InvalidTransition` | `InvalidTransition` |
//! | destroy | `NotFound` | Destroyed | Destroyed | Destroyed | Destroyed | `InvalidTransition` |
//! | rename | `NotFound` | ok | ok | ok | ok | `InvalidTransition` |
//!
//! The rows for VMs that exist are [`crate::transition::outcome`]; [`crate::conformance`] has
//! every cell as a case. Beyond the table:
//!
//! - N concurrent creates of one name: one succeeds. Two renames onto one name: one succeeds.
//! - Verbs on one VM take turns; destroy interrupts what waits. A rename waits for nothing.
//! - No call on one VM waits for another VM's I/O.
//! - A create that fails leaves nothing behind, and nothing of it is ever visible.
//! - A destroyed VM is remembered, by name until the name is used again and by uid, for a
//!   bounded time and number; it never blocks its name.
//! - A snapshot holds a point-in-time copy of every writable disk, and every restore gets its
//!   own; memory that clones map is never written again.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::capabilities::{Capabilities, StopKeeps};
use crate::error::{Result, VmRuntimeError};
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{EndpointKind, SnapshotRef, SnapshotView, VmSpec, VmStatus, VmView};

/// The verbs.
pub trait VmProvider: Send + Sync + 'static {
    /// Makes a VM of the provider's default spec; it ends Created.
    ///
    /// # Errors
    /// `AlreadyExists` when a live VM has the name.
    fn create_vm(&self, vm_id: &VmId) -> Result<()>;

    /// Makes a VM of `spec`: Created, or with `restore_from` Running or Stopped as
    /// `resume_immediately` says. The default ignores the spec.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidSpec`, `SnapshotNotFound`, `SnapshotIncompatible`, `Exhausted`;
    /// in each case nothing is left behind.
    fn create_vm_with_spec(&self, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
        let _ = spec;
        self.create_vm(vm_id)
    }

    /// Boots a VM, or lets a stopped one go on; returns when it runs, not when it is ready.
    ///
    /// # Errors
    /// As the table says; `Timeout` or `Backend` when it does not come up.
    fn start_vm(&self, vm_id: &VmId) -> Result<()>;

    /// Pauses a VM or powers it off, as [`Capabilities::stop_keeps`] says.
    ///
    /// # Errors
    /// As the table says.
    fn stop_vm(&self, vm_id: &VmId) -> Result<()>;

    /// Captures a VM under `snapshot_id`; a running one goes on afterwards, whatever happens.
    ///
    /// # Errors
    /// As the table says; `SnapshotAlreadyExists`; `Exhausted` when the disk is full.
    fn snapshot_vm(&self, vm_id: &VmId, snapshot_id: &SnapshotId) -> Result<()>;

    /// Ends a VM and removes everything of it but pinned snapshots.
    ///
    /// # Errors
    /// As the table says.
    fn destroy_vm(&self, vm_id: &VmId) -> Result<()>;

    /// Gives a VM another name: whoever looks sees the old or the new one, never both or none.
    /// Local and inline, so that it may be called from async code. To its own name: a no-op.
    ///
    /// # Errors
    /// As the table says; `AlreadyExists`; `Unsupported` by default.
    fn rename_vm(&self, old: &VmId, new: &VmId) -> Result<()> {
        let _ = (old, new);
        Err(unsupported("rename"))
    }

    /// What this provider can do. Constant for its life; does not block.
    fn capabilities(&self) -> Capabilities {
        Capabilities::minimal()
    }

    /// Stops the vCPUs and keeps memory: Running to Stopped.
    ///
    /// # Errors
    /// As `stop`; `Unsupported` where stop does not keep memory and there is no pause.
    fn pause_vm(&self, vm_id: &VmId) -> Result<()> {
        match self.capabilities().stop_keeps {
            StopKeeps::Memory => self.stop_vm(vm_id),
            StopKeeps::Disk => Err(unsupported("pause")),
        }
    }

    /// Lets a paused VM go on: Stopped to Running.
    ///
    /// # Errors
    /// As `start`; `Unsupported` where there is no pause.
    fn resume_vm(&self, vm_id: &VmId) -> Result<()> {
        match self.capabilities().stop_keeps {
            StopKeeps::Memory => self.start_vm(vm_id),
            StopKeeps::Disk => Err(unsupported("resume")),
        }
    }

    /// Keeps a snapshot for `holder` (a short name such as `template:default@3`) beyond the
    /// life of its VM, also across a restart. Pinning twice is once.
    ///
    /// # Errors
    /// `SnapshotNotFound`; `Unsupported` by default.
    fn pin_snapshot(&self, snapshot: &SnapshotRef, holder: &str) -> Result<SnapshotView> {
        let _ = (snapshot, holder);
        Err(unsupported("pinned snapshots"))
    }

    /// Ends a pin; a snapshot whose VM is gone goes with its last pin. Unpinning what is not
    /// pinned is a no-op.
    ///
    /// # Errors
    /// `Unsupported` by default.
    fn unpin_snapshot(&self, snapshot_uid: Uid, holder: &str) -> Result<()> {
        let _ = (snapshot_uid, holder);
        Err(unsupported("pinned snapshots"))
    }

    /// Deletes a snapshot that nothing pins.
    ///
    /// # Errors
    /// `SnapshotNotFound`; `SnapshotInUse`; `Unsupported` by default.
    fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<()> {
        let _ = snapshot;
        Err(unsupported("deleting snapshots"))
    }

    /// Writes the data of a snapshot to `into` as one tar stream, in the backend's own format:
    /// whenever it is asked for, the same bytes. The snapshot is not deleted meanwhile. Blocks for
    /// as long as `into` does.
    ///
    /// # Errors
    /// `SnapshotNotFound`, also when its files are gone; `Backend` when `into` fails; `Unsupported`
    /// by default.
    fn export_snapshot(&self, snapshot: &SnapshotRef, into: &mut dyn Write) -> Result<()> {
        let _ = (snapshot, into);
        Err(unsupported("exporting snapshots"))
    }

    /// Notes, durably, that the VM `uid` was frozen into `artifact`: destroying the VM then keeps
    /// its state directory until [`Self::unpreserve_vm`]. A no-op by default, and for a provider
    /// without state directories.
    ///
    /// # Errors
    /// `Backend` or `Exhausted` when it cannot be written.
    fn preserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        let _ = (uid, artifact);
        Ok(())
    }

    /// Ends what [`Self::preserve_vm`] noted; the state directory of a VM that is gone goes with
    /// the last of its artifacts. What was never noted is no error.
    ///
    /// # Errors
    /// `Backend` or `Exhausted` when it cannot be written.
    fn unpreserve_vm(&self, uid: Uid, artifact: &str) -> Result<()> {
        let _ = (uid, artifact);
        Ok(())
    }

    /// Reads in the memory of a restored VM that is Running or paused, so that its guest does not wait
    /// for the disk, nor for a page to be found, when it first touches one. Answers how many bytes were
    /// read in: 0, as by default, says that its memory is there already. Changes nothing that the
    /// guest or a snapshot could see; takes no turn, and ends early when the VM is destroyed. Blocks
    /// for as long as it takes to read that much.
    ///
    /// # Errors
    /// `NotFound`; `InvalidTransition` in another status; `Unavailable` when the VM ended meanwhile;
    /// `Backend` when its memory is not to be read from here, which does it no harm.
    fn prefault_vm(&self, vm_id: &VmId) -> Result<u64> {
        let _ = vm_id;
        Ok(0)
    }

    /// Opens the byte channel to the guest's agent; one at a time for each VM.
    ///
    /// # Errors
    /// `NotFound`; `InvalidTransition` when it does not run; `Exhausted` while another has it;
    /// `Unsupported` by default.
    fn guest_channel(&self, vm_id: &VmId) -> Result<Box<dyn GuestChannel>> {
        let _ = vm_id;
        Err(unsupported("guest channels"))
    }

    /// Connects to the guest for whoever has the VM: to this port of its vsock, or without one to its
    /// channel, or its program's input and output, one at a time for each VM. Returns when the
    /// connection stands; it ends with the VM.
    ///
    /// # Errors
    /// As [`Self::guest_channel`]; `Unavailable` when nobody listens on the port; `Unsupported` by
    /// default, and for a port where there is no vsock.
    fn connect_vm(&self, vm_id: &VmId, port: Option<u32>) -> Result<GuestStream> {
        let _ = (vm_id, port);
        Err(unsupported("connections to guests"))
    }
}

/// The questions. None of them does I/O beyond what its doc says.
pub trait VmQuery: Send + Sync + 'static {
    /// Every live VM, sorted by id. Reads memory, never the disk.
    fn list_vms(&self) -> Vec<VmView>;

    /// The VM of this name; one that was destroyed and is still remembered, as Destroyed.
    fn get_vm(&self, vm_id: &VmId) -> Option<VmView>;

    /// Names of a VM's snapshots in the order they were taken; `None` when there is no such VM.
    fn list_snapshots(&self, vm_id: &VmId) -> Option<Vec<String>>;

    /// The VM's status now: the cheap part of [`Self::get_vm`], called on the warm path.
    fn status(&self, vm_id: &VmId) -> Option<VmStatus> {
        self.get_vm(vm_id).map(|vm| vm.status)
    }

    /// The VM of this uid, whatever it is called; a destroyed one while it is remembered.
    fn get_vm_by_uid(&self, uid: Uid) -> Option<VmView> {
        self.list_vms().into_iter().find(|vm| vm.uid == uid)
    }

    /// What the VM of this uid is called now; `None` when it is not there, or is destroyed already: the cheap part
    /// of [`Self::get_vm_by_uid`], called twice for each destroy.
    fn name_of(&self, uid: Uid) -> Option<VmId> {
        let living = |vm: &VmView| vm.status != VmStatus::Destroyed;
        self.get_vm_by_uid(uid).filter(living).map(|vm| vm.vm_id)
    }

    /// Finds out whether a running VM is usable: that it runs, or that its agent answers.
    ///
    /// # Errors
    /// `NotFound`; `InvalidTransition` when it does not run; `Timeout` without an answer;
    /// `Unsupported` for an agent's answer where there is no channel.
    fn probe(&self, vm_id: &VmId, probe: Probe, timeout: Duration) -> Result<()> {
        let _ = timeout;
        match (self.status(vm_id), probe) {
            (None, _) => Err(VmRuntimeError::NotFound { vm_id: vm_id.clone() }),
            (Some(VmStatus::Running), Probe::Alive) => Ok(()),
            (Some(VmStatus::Running), Probe::AgentAnswers) => Err(unsupported("guest channels")),
            (Some(status), _) => Err(VmRuntimeError::InvalidTransition {
                vm_id: vm_id.clone(),
                status,
                verb: crate::transition::Verb::Start,
            }),
        }
    }

    /// Reads the console: at most `max_bytes` from `offset`, counted from the VM's start.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` by default.
    fn console(&self, vm_id: &VmId, offset: u64, max_bytes: usize) -> Result<ConsoleChunk> {
        let _ = (vm_id, offset, max_bytes);
        Err(unsupported("the console"))
    }

    /// One snapshot.
    ///
    /// # Errors
    /// `SnapshotNotFound`; `Unsupported` by default.
    fn snapshot(&self, snapshot: &SnapshotRef) -> Result<SnapshotView> {
        let _ = snapshot;
        Err(unsupported("describing snapshots"))
    }

    /// Finds out whether a snapshot can be restored here and now: whether all of it is there, and what
    /// it was made with (versions of the backend, the processor, the kernel) agrees with what is here.
    /// Makes nothing. Asked at a start, as a host changes between two: by the check that a restore
    /// begins with. Reads the disk, or asks the backend; blocks. By default every snapshot fits.
    ///
    /// # Errors
    /// `SnapshotIncompatible`, naming both sides; `SnapshotNotFound` when it, or something of it, is
    /// gone; those of the backend, which then does not know.
    fn snapshot_fits(&self, snapshot_uid: Uid) -> Result<()> {
        let _ = snapshot_uid;
        Ok(())
    }

    /// Bytes on disk that the live VM `uid` has for itself, beside its snapshots; 0 by default, and
    /// for one that is not there. Reads the disk, or asks the backend; blocks.
    ///
    /// # Errors
    /// Those of the backend.
    fn instance_bytes(&self, uid: Uid) -> Result<u64> {
        let _ = uid;
        Ok(0)
    }

    /// Every snapshot kept, of live VMs and of gone ones.
    fn all_snapshots(&self) -> Vec<SnapshotView> {
        Vec::new()
    }

    /// Calls `observer` with the uid of each VM that ends by itself from now on, from a thread
    /// of the provider's: it must return at once. A later observer replaces the one before it. By
    /// default nobody calls.
    fn observe_exits(&self, observer: ExitObserver) {
        let _ = observer;
    }

    /// What the provider is and runs on, for people: `accel`, `version`, `binary` ...
    fn describe(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Verbs and questions together: what the pool holds, as `Arc<dyn VmRuntime>`.
pub trait VmRuntime: VmProvider + VmQuery {}

impl<T: VmProvider + VmQuery + ?Sized> VmRuntime for T {}

/// Is called with the uid of a VM that ended by itself.
pub type ExitObserver = Arc<dyn Fn(Uid) + Send + Sync>;

/// What a probe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The VM runs.
    Alive,
    /// An agent in the guest answers on its channel.
    AgentAnswers,
}

/// A piece of a console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleChunk {
    /// Where `bytes` begin; later than asked for when the start has been cut off.
    pub offset: u64,
    /// What the guest wrote.
    pub bytes: Vec<u8>,
    /// Where to go on reading.
    pub next_offset: u64,
}

/// A byte channel to an agent in the guest.
pub trait GuestChannel: Read + Write + Send {
    /// Bounds each following read and write. A read past it fails with `WouldBlock` or
    /// `TimedOut`.
    ///
    /// # Errors
    /// Those of the channel underneath.
    fn set_timeout(&mut self, timeout: Duration) -> std::io::Result<()>;
}

/// A connection to a guest: bytes both ways.
pub struct GuestStream {
    /// What it leads to.
    pub kind: EndpointKind,
    /// Whether the guest is told when no more is sent, and can go on to answer. Elsewhere the end of
    /// one half would be the end of both: it is not to be shut down.
    pub half_closes: bool,
    // Dropped in this order: whoever connects next finds this one closed.
    socket: UnixStream,
    held: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for GuestStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestStream").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl GuestStream {
    /// A connection over `socket`; `held` is what is given back at its end.
    pub fn new(
        kind: EndpointKind,
        half_closes: bool,
        socket: UnixStream,
        held: impl Send + Sync + 'static,
    ) -> Self {
        Self { kind, half_closes, socket, held: Box::new(held) }
    }

    /// The socket, and what is to be dropped after it.
    pub fn into_parts(self) -> (UnixStream, Box<dyn Send + Sync>) {
        (self.socket, self.held)
    }
}

fn unsupported(what: &str) -> VmRuntimeError {
    VmRuntimeError::Unsupported { what: what.to_owned() }
}
