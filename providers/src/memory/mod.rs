//! VMs that are only remembered: the smallest adapter, for tests, load tests and first runs.
//!
//! It keeps the whole contract, and its guests behave as those of real providers do: they print
//! READY on their console when they boot, answer the agent's protocol, count on after a restore
//! from where the snapshot stood, and keep files on a disk of their own. Nothing of it outlives
//! the process, unless it is made durable: then every guest is a file in its instance's directory,
//! and goes on as it stood when another process opens it.

mod guest;
mod kept;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::capabilities::Capabilities;
use crate::engine::Engine;
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::{Failure, SnapshotView, VmSpec, VmStatus};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream, Probe};
use guest::Guest;
pub use guest::Machine;
use kept::Kept;

/// The memory provider.
pub type MemoryProvider = Engine<MemoryBackend>;

/// What the memory provider can and cannot do: everything, but for living on without hearth.
pub const CAPABILITIES: Capabilities =
    Capabilities { outlives_hearth: false, ..Capabilities::full() };

/// What it can and cannot do when it is durable: everything.
pub const DURABLE_CAPABILITIES: Capabilities = Capabilities::full();

/// What a snapshot is made with that its host has to agree with, as real ones have more: no guest of
/// theirs goes on on another architecture.
const ARCHITECTURE: &str = "architecture";

/// Drives guests that are only remembered.
pub struct MemoryBackend {
    env: Arc<dyn Env>,
    is_durable: bool,
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// A backend whose guests take their ids and times from `env`.
    pub fn new(env: Arc<dyn Env>) -> Self {
        Self { env, is_durable: false }
    }

    /// The same, with guests that are kept in their directories: for an engine that has some.
    pub fn durable(env: Arc<dyn Env>) -> Self {
        Self { env, is_durable: true }
    }

    /// A memory provider called `name`.
    pub fn provider(name: &str, env: Arc<dyn Env>) -> MemoryProvider {
        Engine::in_memory(name, Self::new(Arc::clone(&env)), env)
    }

    fn machine(&self, place: &Place, kept: Kept) -> Arc<Machine> {
        let file = self.is_durable.then(|| kept::file_in(&place.dir));
        Arc::new(Machine::new(kept, file, Arc::clone(&self.env), Arc::clone(&place.ended)))
    }

    /// A machine that is made now.
    fn make(&self, place: &Place, guest: Guest, status: VmStatus) -> Result<Arc<Machine>> {
        let kept = Kept { guest, status, failure: None, console: String::new() };
        let machine = self.machine(place, kept);
        machine.save()?;
        Ok(machine)
    }
}

impl Backend for MemoryBackend {
    type Machine = Arc<Machine>;
    type Image = Mutex<Guest>;

    fn capabilities(&self) -> Capabilities {
        if self.is_durable { DURABLE_CAPABILITIES } else { CAPABILITIES }
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        let guest = Guest::switched_off(spec.network_interfaces.clone());
        self.make(place, guest, VmStatus::Created)
    }

    fn restore(
        &self,
        place: &Place,
        _spec: &VmSpec,
        source: &Source<'_, Mutex<Guest>>,
    ) -> Result<Arc<Machine>> {
        self.fits(source)?;
        let mut guest = source.image.lock().at_rest();
        guest.replace_interfaces(&source.how.network_overrides)?;
        let machine = self.make(place, guest, VmStatus::Stopped)?;
        if source.how.resume_immediately {
            machine.run(&self.env.uid().to_string())?;
        }
        Ok(machine)
    }

    fn fits(&self, source: &Source<'_, Mutex<Guest>>) -> Result<()> {
        let missing = |file: &PathBuf| !file.is_file();
        let file = self.is_durable.then(|| kept::file_in(&source.dir));
        if file.as_ref().is_some_and(missing) {
            return Err(source.not_found("its file is gone".to_owned()));
        }
        // What an older version made does not say.
        match source.view.made_with.get(ARCHITECTURE).filter(|it| *it != ARCH) {
            None => Ok(()),
            Some(there) => Err(VmRuntimeError::SnapshotIncompatible {
                snapshot_id: source.view.snapshot_id.clone(),
                reason: format!("it was made with {ARCHITECTURE} {there}, and here is {ARCH}"),
            }),
        }
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
        status: VmStatus,
        into: &Path,
    ) -> Result<Captured<Mutex<Guest>>> {
        let guest = machine.capture()?;
        if self.is_durable {
            let (guest, console) = (guest.clone(), String::new());
            Kept { guest, status, failure: None, console }.write(&kept::file_in(into))?;
        }
        let size_bytes = guest.size_bytes();
        let made_with = BTreeMap::from([
            ("hearth".into(), env!("CARGO_PKG_VERSION").into()),
            (ARCHITECTURE.into(), ARCH.into()),
        ]);
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
        if self.is_durable {
            let kept = Kept::read(&place.dir)?;
            let (status, failure) = (kept.status, kept.failure.clone());
            return Ok(Adopted { machine: self.machine(place, kept), status, failure });
        }
        let machine = self.make(place, Guest::switched_off(Vec::new()), VmStatus::Created)?;
        machine.fail("hearth ended, and VMs of the memory provider end with it");
        let failure = machine.failure();
        Ok(Adopted { machine, status: VmStatus::Failed, failure })
    }

    fn reap(&self, _: &Path) -> Reaped {
        Reaped::default()
    }

    fn load_image(&self, dir: &Path, view: &SnapshotView) -> Result<Mutex<Guest>> {
        match self.is_durable {
            true => Ok(Mutex::new(Kept::read(dir)?.guest)),
            false => Err(VmRuntimeError::SnapshotNotFound {
                vm: view.vm_id.to_string(),
                snapshot_id: view.snapshot_id.clone(),
                reason: "it was kept in the memory of a process that has ended".to_owned(),
            }),
        }
    }

    fn export(
        &self,
        source: &Source<'_, Mutex<Guest>>,
        files: &[String],
        into: &mut dyn Write,
    ) -> Result<()> {
        match self.is_durable {
            true => files::export(source, files, into),
            false => kept::write_tar(&source.image.lock(), into),
        }
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

    fn connect(&self, machine: &Arc<Machine>, port: Option<u32>) -> Result<GuestStream> {
        match port {
            None => guest::connect(machine),
            Some(_) => Err(VmRuntimeError::Unsupported { what: "ports of a vsock".to_owned() }),
        }
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        Ok(machine.console(offset, max))
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("accel", "none".to_owned())]
    }
}
