//! The contract, kept once for every adapter.
//!
//! An [`Engine`] owns the names, the turns, the table of transitions, the snapshots and their
//! pins, and what is remembered of the destroyed; its [`Backend`] drives the machines.
//!
//! Invariants:
//! - An instance is in `instances` exactly while it lives; its `name` is the only authority on
//!   what it is called. The directory's index only leads there, and is compared.
//! - Only the holder of an instance's turn changes its status, but for the report of its death.
//! - Locks are per instance or guard pure bookkeeping; none is held over a backend's call.

pub mod evidence;
mod instance;
mod open;
mod parallel;
mod preserved;
mod query;
mod tombstones;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::backend::{Backend, Place};
use crate::directory::Directory;
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::id::{Uid, VmId};
use crate::map::SharedIdMap;
use crate::model::{Failure, VmStatus};
use crate::provider::ExitObserver;
use crate::snapshots::Snapshots;
use crate::transition::{Outcome, Verb, outcome};
use instance::Instance;
use tombstones::Tombstones;

pub use open::OpenReport;

/// A provider: the contract around one backend.
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    /// The configured name of this provider, which its records carry.
    name: String,
    env: Arc<dyn Env>,
    /// This boot of the host.
    boot_id: String,
    directory: Directory,
    instances: SharedIdMap<Uid, Arc<Instance<B::Machine>>>,
    snapshots: Snapshots<B::Image>,
    tombstones: Tombstones,
    deaths: Arc<Deaths<B>>,
}

/// Where machines report their end: outlives no engine, keeps none alive.
struct Deaths<B: Backend> {
    instances: SharedIdMap<Uid, std::sync::Weak<Instance<B::Machine>>>,
    observer: RwLock<Option<ExitObserver>>,
}

impl<B: Backend> Deaths<B> {
    fn report(&self, uid: Uid, failure: Failure) {
        let instance = self.instances.get(&uid).and_then(|weak| weak.upgrade());
        let Some(instance) = instance else { return };
        if instance.fail(failure) {
            let observer = self.observer.read().clone();
            observer.inspect(|observer| observer(uid));
        }
    }
}

impl<B: Backend> std::fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("name", &self.name)
            .field("instances", &self.instances.len())
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Engine<B> {
    /// What is specific to the adapter: for tests and for what the contract does not have.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    fn place(&self, uid: Uid) -> Place {
        let dir = self.directory.paths().map_or_else(PathBuf::new, |paths| paths.instance(uid));
        let deaths = Arc::clone(&self.deaths);
        Place { uid, dir, ended: Arc::new(move |failure| deaths.report(uid, failure)) }
    }

    /// The live instance that is called `vm_id` at this moment.
    fn live(&self, vm_id: &VmId) -> Option<Arc<Instance<B::Machine>>> {
        let uid = self.directory.lookup(vm_id)?;
        let instance = Arc::clone(self.instances.get(&uid)?.value());
        instance.is_called(vm_id).then_some(instance)
    }

    /// As [`Self::live`], or the error that the table has for `verb` on what is not there.
    fn find(&self, vm_id: &VmId, verb: Verb) -> Result<Arc<Instance<B::Machine>>> {
        self.live(vm_id).ok_or_else(|| self.missing(vm_id, verb))
    }

    fn missing(&self, vm_id: &VmId, verb: Verb) -> VmRuntimeError {
        match self.tombstones.by_name(vm_id, self.env.boot_time()) {
            Some(_) => destroyed(vm_id, verb),
            None => VmRuntimeError::NotFound { vm_id: vm_id.clone() },
        }
    }

    /// Runs `act` in the instance's turn, if the table allows `verb`; it gets the status before
    /// and the one that the table has for afterwards.
    fn in_turn<R>(
        &self,
        vm_id: &VmId,
        verb: Verb,
        act: impl FnOnce(&Instance<B::Machine>, VmStatus, VmStatus) -> Result<R>,
    ) -> Result<R> {
        let instance = self.find(vm_id, verb)?;
        let _turn = instance.turns.take().map_err(|_| destroyed(vm_id, verb))?;
        if !instance.is_called(vm_id) {
            return Err(self.missing(vm_id, verb));
        }
        let status = instance.status();
        let done = match outcome(status, verb, &self.backend.capabilities()) {
            Outcome::Becomes(after) => act(&instance, status, after),
            Outcome::Invalid => Err(invalid(vm_id, verb, status)),
            Outcome::StopRequired => Err(VmRuntimeError::StopRequired { vm_id: vm_id.clone() }),
        };
        // A verb cut short by destroy fails in whatever way its backend has; the caller gets
        // the table's answer.
        if done.is_err() && instance.turns.is_doomed() {
            return Err(destroyed(vm_id, verb));
        }
        done
    }
}

fn invalid(vm_id: &VmId, verb: Verb, status: VmStatus) -> VmRuntimeError {
    VmRuntimeError::InvalidTransition { vm_id: vm_id.clone(), status, verb }
}

fn destroyed(vm_id: &VmId, verb: Verb) -> VmRuntimeError {
    invalid(vm_id, verb, VmStatus::Destroyed)
}

/// Ends nothing: VMs outlive hearth where their backend lets them.
impl<B: Backend> Drop for Engine<B> {
    fn drop(&mut self) {
        self.deaths.instances.clear();
    }
}

/// What is written down of an instance, and of one that an artifact keeps.
pub(crate) fn fuzz(text: &[u8]) {
    drop(crate::files::fuzz::<instance::Record>(text));
    preserved::fuzz(text);
}

#[cfg(test)]
mod tests;
