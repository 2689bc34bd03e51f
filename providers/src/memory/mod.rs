//! VMs that are only remembered: the smallest adapter, for tests, load tests and first runs.
//!
//! It keeps the whole contract, and its guests behave as those of real providers do: they print
//! READY on their console when they boot, answer the agent's protocol, count on after a restore
//! from where the snapshot stood, and keep files on a disk of their own. Nothing of it outlives
//! the process.

mod guest;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::{Adopted, Backend, Captured, Place, Source};
use crate::capabilities::Capabilities;
use crate::engine::Engine;
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::model::{Endpoint, Failure, SnapshotView, VmSpec, VmStatus, VmmProcess};
use crate::provider::{ConsoleChunk, GuestChannel, Probe};
use guest::Guest;
pub use guest::Machine;

/// The memory provider.
pub type MemoryProvider = Engine<MemoryBackend>;

/// What the memory provider can and cannot do: everything, but for living on without hearth.
pub const CAPABILITIES: Capabilities =
    Capabilities { outlives_hearth: false, ..Capabilities::full() };

/// Drives guests that are only remembered.
pub struct MemoryBackend {
    env: Arc<dyn Env>,
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// A backend whose guests take their ids and times from `env`.
    pub fn new(env: Arc<dyn Env>) -> Self {
        Self { env }
    }

    /// A memory provider called `name`.
    pub fn provider(name: &str, env: Arc<dyn Env>) -> MemoryProvider {
        Engine::in_memory(name, Self::new(Arc::clone(&env)), env)
    }

    fn machine(&self, place: &Place, guest: Guest) -> Arc<Machine> {
        Arc::new(Machine::new(guest, Arc::clone(&self.env), Arc::clone(&place.ended)))
    }
}

impl Backend for MemoryBackend {
    type Machine = Arc<Machine>;
    type Image = Mutex<Guest>;

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        Ok(self.machine(place, Guest::switched_off(spec.network_interfaces.clone())))
    }

    fn restore(
        &self,
        place: &Place,
        _spec: &VmSpec,
        source: &Source<'_, Mutex<Guest>>,
    ) -> Result<Arc<Machine>> {
        let mut guest = source.image.lock().at_rest();
        guest.replace_interfaces(&source.how.network_overrides)?;
        let machine = self.machine(place, guest);
        if source.how.resume_immediately {
            machine.run(&self.env.uid().to_string())?;
        }
        Ok(machine)
    }

    fn start(&self, _: &Place, machine: &Arc<Machine>, _: VmStatus) -> Result<()> {
        machine.run(&self.env.uid().to_string())
    }

    fn stop(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        machine.pause()
    }

    fn snapshot(
        &self,
        _: &Place,
        machine: &Arc<Machine>,
        _: VmStatus,
        _: &Path,
    ) -> Result<Captured<Mutex<Guest>>> {
        let guest = machine.capture()?;
        let size_bytes = guest.size_bytes();
        let made_with = BTreeMap::from([("hearth".into(), env!("CARGO_PKG_VERSION").into())]);
        Ok(Captured { image: Mutex::new(guest), has_memory: true, size_bytes, made_with })
    }

    fn kill(&self, machine: &Arc<Machine>) {
        machine.kill();
    }

    fn dispose(&self, _: &Place, _: &Arc<Machine>) -> Result<()> {
        Ok(())
    }

    fn ended(&self, machine: &Arc<Machine>) -> Option<Failure> {
        machine.failure()
    }

    fn adopt(&self, place: &Place, _: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        let machine = self.machine(place, Guest::switched_off(Vec::new()));
        machine.fail("hearth ended, and VMs of the memory provider end with it");
        let failure = machine.failure();
        Ok(Adopted { machine, status: VmStatus::Failed, failure })
    }

    fn reap(&self, _: &Path) -> usize {
        0
    }

    fn load_image(&self, _: &Path, view: &SnapshotView) -> Result<Mutex<Guest>> {
        Err(VmRuntimeError::SnapshotNotFound {
            vm: view.vm_id.to_string(),
            snapshot_id: view.snapshot_id.clone(),
            reason: "it was kept in the memory of a process that has ended".to_owned(),
        })
    }

    fn probe(&self, machine: &Arc<Machine>, _: Probe, timeout: Duration) -> Result<()> {
        // Guests here answer whenever they run; paused between the two looks, they time out.
        machine
            .answers()
            .then_some(())
            .ok_or(VmRuntimeError::Timeout { what: "the guest's agent".to_owned(), after: timeout })
    }

    fn guest_channel(&self, machine: &Arc<Machine>) -> Result<Box<dyn GuestChannel>> {
        guest::Channel::open(machine)
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        Ok(machine.console(offset, max))
    }

    fn endpoints(&self, _: &Arc<Machine>) -> Vec<Endpoint> {
        Vec::new()
    }

    fn process(&self, _: &Arc<Machine>) -> Option<VmmProcess> {
        None
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("accel", "none".to_owned())]
    }
}
