//! What an adapter has to bring: the driving of one kind of virtual machine.
//!
//! [`crate::engine::Engine`] keeps the contract around it: it calls the verbs of one machine one
//! after another and only where the table allows them, keeps names, snapshots and pins, and
//! cleans up after failures. An adapter never sees a name: an instance has one uid and one
//! directory for life.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::capabilities::Capabilities;
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::model::{Endpoint, Failure, SnapshotRef, SnapshotView, VmSpec, VmStatus, VmmProcess};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream, Probe};

/// Where an instance lives, and whom to tell of its end.
#[derive(Clone)]
pub struct Place {
    /// The instance's identity.
    pub uid: Uid,
    /// Everything of it goes here. It exists before the adapter is called, and is removed with
    /// all that is in it after [`Backend::dispose`]. Of a provider without a state directory it
    /// does not exist.
    pub dir: PathBuf,
    /// To be called when the machine ends by itself, from any thread, once or more often.
    pub ended: Arc<dyn Fn(Failure) + Send + Sync>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("uid", &self.uid).field("dir", &self.dir).finish()
    }
}

/// What was captured.
#[derive(Debug)]
pub struct Captured<I> {
    /// What a restore needs, beyond the files.
    pub image: I,
    /// Memory is in it.
    pub has_memory: bool,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Versions that a restore has to match.
    pub made_with: BTreeMap<String, String>,
}

/// A snapshot as an adapter gets it back for a restore.
#[derive(Debug)]
pub struct Source<'a, I> {
    /// What [`Backend::snapshot`] captured or [`Backend::load_image`] loaded.
    pub image: &'a I,
    /// What is known of it.
    pub view: &'a SnapshotView,
    /// Its files: to be read, never written.
    pub dir: PathBuf,
    /// How to restore.
    pub how: &'a SnapshotRef,
}

impl<I> Source<'_, I> {
    /// That something of it is gone.
    pub fn not_found(&self, reason: String) -> VmRuntimeError {
        VmRuntimeError::SnapshotNotFound {
            vm: self.view.vm_id.to_string(),
            snapshot_id: self.view.snapshot_id.clone(),
            reason,
        }
    }
}

/// What was found of an instance after a restart.
#[derive(Debug)]
pub struct Adopted<M> {
    /// The machine, to go on with.
    pub machine: M,
    /// Where it stands.
    pub status: VmStatus,
    /// How it ended, when `status` is Failed.
    pub failure: Option<Failure>,
}

/// What was ended or removed of an instance that was not adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Processes that worked in its directory, or machines of a tool.
    pub processes: usize,
    /// Containers that were called after it.
    pub containers: usize,
    /// Control groups that were called after it.
    pub cgroups: usize,
}

/// An adapter.
pub trait Backend: Send + Sync + 'static {
    /// What is kept of a living machine: its process and its sockets, say.
    type Machine: Send + Sync + 'static;
    /// What is kept of a snapshot beside its files.
    type Image: Send + Sync + 'static;

    /// See [`crate::VmProvider::capabilities`].
    fn capabilities(&self) -> Capabilities;

    /// Makes a machine of `spec` without starting it. The spec has been checked.
    ///
    /// # Errors
    /// Any; the machine must then be gone but for files in its directory.
    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Self::Machine>;

    /// Makes a machine from a snapshot: Running or Stopped, as `source.how` says.
    ///
    /// # Errors
    /// `SnapshotNotFound` when a file is missing, `SnapshotIncompatible`, any; as for create.
    fn restore(
        &self,
        place: &Place,
        spec: &VmSpec,
        source: &Source<'_, Self::Image>,
    ) -> Result<Self::Machine>;

    /// See [`crate::VmQuery::snapshot_fits`]: what [`Self::restore`] checks before it makes anything. By
    /// default nothing.
    ///
    /// # Errors
    /// `SnapshotIncompatible`, `SnapshotNotFound`, any.
    fn fits(&self, source: &Source<'_, Self::Image>) -> Result<()> {
        let _ = source;
        Ok(())
    }

    /// Boots a Created machine or lets a Stopped one go on.
    ///
    /// # Errors
    /// Any; the machine must then stand where it stood, or have reported its end.
    fn start(&self, place: &Place, machine: &Self::Machine, status: VmStatus) -> Result<()>;

    /// Stops a Running machine.
    ///
    /// # Errors
    /// As for start.
    fn stop(&self, place: &Place, machine: &Self::Machine) -> Result<()>;

    /// Captures a machine into the empty directory `into`; afterwards it stands where it stood.
    ///
    /// # Errors
    /// As for start; the engine removes `into`.
    fn snapshot(
        &self,
        place: &Place,
        machine: &Self::Machine,
        status: VmStatus,
        into: &std::path::Path,
    ) -> Result<Captured<Self::Image>>;

    /// Ends a machine at once. May be called while a verb runs, which then must fail soon.
    fn kill(&self, machine: &Self::Machine);

    /// Waits, bounded, for a killed machine to be gone and frees what it had outside of its
    /// directory.
    ///
    /// # Errors
    /// `Timeout` when it does not go; the engine logs it and goes on.
    fn dispose(&self, place: &Place, machine: &Self::Machine) -> Result<()>;

    /// How the machine ended, if it has ended by itself; cheap.
    fn ended(&self, machine: &Self::Machine) -> Option<Failure>;

    /// Takes up an instance after a restart, from its directory and what runs in it.
    ///
    /// # Errors
    /// Any: the instance is then reaped.
    fn adopt(&self, place: &Place, spec: &VmSpec) -> Result<Adopted<Self::Machine>>;

    /// Ends whatever runs in the directory of an instance that is not adopted, after a restart, and
    /// frees what it had outside of it. Answers what there was.
    fn reap(&self, dir: &std::path::Path) -> Reaped;

    /// Loads what [`Self::snapshot`] captured, after a restart.
    ///
    /// # Errors
    /// Any: the snapshot is then shown as not found when it is asked for.
    fn load_image(&self, dir: &std::path::Path, view: &SnapshotView) -> Result<Self::Image>;

    /// See [`crate::VmProvider::export_snapshot`]. By default the snapshot's `files`.
    ///
    /// # Errors
    /// `SnapshotNotFound` when something of it is gone; any.
    fn export(
        &self,
        source: &Source<'_, Self::Image>,
        files: &[String],
        into: &mut dyn std::io::Write,
    ) -> Result<()> {
        crate::files::export(source, files, into)
    }

    /// Bytes that a machine has beside its directory; none by default.
    ///
    /// # Errors
    /// Any.
    fn bytes_elsewhere(&self, machine: &Self::Machine) -> Result<u64> {
        let _ = machine;
        Ok(0)
    }

    /// See [`crate::VmProvider::prefault_vm`]: of a machine, Running or Stopped, that was restored from
    /// the snapshot in `snapshot_dir`. By default its memory is there. Another verb, or
    /// [`Self::kill`], may be called meanwhile.
    ///
    /// # Errors
    /// `Unavailable` when the machine has ended; any.
    fn prefault(&self, machine: &Self::Machine, snapshot_dir: &std::path::Path) -> Result<u64> {
        let _ = (machine, snapshot_dir);
        Ok(0)
    }

    /// See [`crate::VmQuery::probe`]; the machine is Running.
    ///
    /// # Errors
    /// `Timeout`, `Unsupported`, `Unavailable`.
    fn probe(&self, machine: &Self::Machine, probe: Probe, timeout: Duration) -> Result<()>;

    /// See [`crate::VmProvider::guest_channel`]; the machine is Running. By default there is none.
    ///
    /// # Errors
    /// `Exhausted`, `Unsupported`, `Unavailable`.
    fn guest_channel(&self, machine: &Self::Machine) -> Result<Box<dyn GuestChannel>> {
        let _ = machine;
        Err(VmRuntimeError::Unsupported { what: "guest channels".to_owned() })
    }

    /// See [`crate::VmProvider::connect_vm`]; the machine is Running. By default it cannot be done.
    ///
    /// # Errors
    /// `Exhausted`, `Unsupported`, `Unavailable`, `Timeout`.
    fn connect(&self, machine: &Self::Machine, port: Option<u32>) -> Result<GuestStream> {
        let _ = (machine, port);
        Err(VmRuntimeError::Unsupported { what: "connections to guests".to_owned() })
    }

    /// See [`crate::VmQuery::console`].
    ///
    /// # Errors
    /// `Unsupported`, `Backend`.
    fn console(&self, machine: &Self::Machine, offset: u64, max: usize) -> Result<ConsoleChunk>;

    /// How to reach the machine on this host; by default in no way.
    fn endpoints(&self, machine: &Self::Machine) -> Vec<Endpoint> {
        let _ = machine;
        Vec::new()
    }

    /// The process that runs it; by default none of this host's.
    fn process(&self, machine: &Self::Machine) -> Option<VmmProcess> {
        let _ = machine;
        None
    }

    /// See [`crate::VmQuery::describe`].
    fn describe(&self) -> Vec<(&'static str, String)>;
}
