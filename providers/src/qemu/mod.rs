//! Real virtual machines, by QEMU.
//!
//! A VM is one QEMU process that outlives hearth, driven over its monitor's socket. A machine
//! that boots shares its memory with a file in its directory; a snapshot is the state of its
//! devices, a copy of that file and of its disks; a clone maps the copy privately, so that a
//! restore takes the time of starting QEMU (tens of milliseconds) whatever the memory's size.
//!
//! | verb | how |
//! |---|---|
//! | create | files only |
//! | start | spawn; or `cont` |
//! | stop | `stop` |
//! | snapshot | `stop`, `migrate` to a file, copies, `cont` |
//! | restore | spawn with `-incoming defer`, `migrate-incoming`, `cont` |
//! | destroy | `SIGKILL` |
//!
//! Needs Linux and QEMU 9.0 or newer. An instance's directory holds `machine.json` (see
//! `blueprint`), `vmm.json` (see [`crate::supervise`]), `ram`, `disk-<n>.qcow2`, `console`,
//! `qemu.log`, `qmp.sock` and `agent.sock`.

mod adopt;
mod arguments;
mod blueprint;
mod capture;
mod channel;
mod config;
mod disk;
pub(crate) mod fuzz;
mod host;
mod image;
mod machine;
mod qcow2;
mod qmp;
mod restore;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::beneath;
use crate::capabilities::Capabilities;
use crate::engine::Engine;
use crate::env::{Deadline, Env};
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::{Endpoint, EndpointKind, Failure, SnapshotView, VmSpec, VmStatus, VmmProcess};
use crate::prefault::{self, MemoryFile};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream, Probe};
use crate::supervise::{Launch, Supervisor};
use arguments::{AGENT, Beginning, RAM};
use blueprint::{Blueprint, Memory};
pub use config::{Accel, QemuConfig, User};
use host::Host;
pub use image::Image;
pub use machine::Machine;

/// The QEMU provider.
pub type QemuProvider = Engine<QemuBackend>;

/// What QEMU can and cannot do here.
pub const CAPABILITIES: Capabilities =
    Capabilities { snapshot_created: false, network_overrides: false, ..Capabilities::full() };

/// Drives QEMU processes.
pub struct QemuBackend {
    config: QemuConfig,
    host: Host,
    supervisor: Supervisor,
    env: Arc<dyn Env>,
}

impl std::fmt::Debug for QemuBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QemuBackend").field("host", &self.host).finish_non_exhaustive()
    }
}

impl QemuBackend {
    /// A backend for this host's QEMU, about which it finds out what it can do. Blocks for a
    /// tenth of a second or so.
    ///
    /// # Errors
    /// `Backend` when there is no QEMU, it is too old (saying what to install), or the configured
    /// acceleration does not work; `Timeout` when it hangs.
    pub fn new(config: QemuConfig, env: Arc<dyn Env>) -> Result<Self> {
        let host = Host::probe(&config)?;
        Ok(Self { config, host, supervisor: Supervisor::new()?, env })
    }

    /// Starts the machine's process and waits until it takes commands. What fails is undone.
    fn launch(&self, place: &Place, machine: &Machine, beginning: Beginning) -> Result<()> {
        let name = place.uid.to_string();
        let arguments = arguments::arguments(&name, &machine.blueprint, &self.host, beginning);
        machine
            .vmm
            .console
            .open_to_append()
            .map_err(|error| files::io_error("make the console's file".into(), error))?;
        if machine.blueprint.memory == Memory::OwnFile {
            make_ram(&place.dir.join(RAM), machine.blueprint.mem_size_bytes())
                .map_err(|error| files::io_error("make the memory's file".into(), error))?;
        }
        let launch =
            Launch::new(&self.host.binary, &arguments, &place.dir, &name, &machine.vmm.log);
        let spawn = || self.supervisor.spawn(launch, machine.vmm.bounded());
        machine.vmm.set_process(tracing::debug_span!("spawn").in_scope(spawn)?);
        tracing::debug_span!("connect")
            .in_scope(|| machine.wait_for_monitor(self.config.start_timeout))
            .inspect_err(|_| self.undo_launch(machine))
    }

    /// Ends a process that never became a running machine, without a word to anybody.
    fn undo_launch(&self, machine: &Machine) {
        if self.supervisor.undo_launch(&machine.vmm, self.config.kill_timeout) {
            machine.hang_up();
        }
    }

    /// From now on the machine's end is reported.
    fn watch(&self, place: &Place, machine: &Arc<Machine>) {
        let Some(process) = machine.vmm.process() else { return };
        let (weak, env) = (Arc::downgrade(machine), Arc::clone(&self.env));
        let ended = Arc::clone(&place.ended);
        process.on_exit(move |exit| {
            let failure = weak.upgrade().and_then(|machine| machine.vmm.note_end(exit, &*env));
            failure.into_iter().for_each(|failure| ended(failure));
        });
    }
}

fn make_ram(path: &Path, size_bytes: u64) -> std::io::Result<()> {
    beneath::create(path)?.set_len(size_bytes)
}

impl Backend for QemuBackend {
    type Machine = Arc<Machine>;
    type Image = Image;

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        let blueprint = Blueprint::from_spec(place.uid, spec)?;
        for (index, disk) in blueprint.disks.iter().enumerate() {
            disk.make_own_layer(index, &place.dir)?;
        }
        blueprint.write(&place.dir)?;
        Ok(Arc::new(Machine::new(place.dir.clone(), blueprint, &self.config)))
    }

    fn restore(
        &self,
        place: &Place,
        _spec: &VmSpec,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        self.make_clone(place, source)
    }

    fn fits(&self, source: &Source<'_, Image>) -> Result<()> {
        source.image.check(&source.dir, source.view, &self.host.made_with())
    }

    fn start(&self, place: &Place, machine: &Arc<Machine>, status: VmStatus) -> Result<()> {
        if status != VmStatus::Created {
            return machine.resume();
        }
        self.launch(place, machine, Beginning::Boot)?;
        machine.hang_up();
        self.watch(place, machine);
        Ok(())
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
    ) -> Result<Captured<Image>> {
        self.capture(machine, status == VmStatus::Running, into)
    }

    fn kill(&self, machine: &Arc<Machine>) {
        machine.vmm.kill();
    }

    fn dispose(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        let disposed = self.supervisor.dispose(&machine.vmm, self.config.kill_timeout);
        machine.hang_up();
        disposed
    }

    fn ended(&self, machine: &Arc<Machine>) -> Option<Failure> {
        machine.vmm.failure()
    }

    fn adopt(&self, place: &Place, _spec: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        self.take_up(place)
    }

    fn reap(&self, dir: &Path) -> Reaped {
        self.supervisor.reap(dir, self.config.kill_timeout)
    }

    fn load_image(&self, dir: &Path, _view: &SnapshotView) -> Result<Image> {
        Image::read(dir)
    }

    /// A machine whose memory is its own has read all of it with its state.
    fn prefault(&self, machine: &Arc<Machine>, _: &Path) -> Result<u64> {
        match &machine.blueprint.memory {
            Memory::OwnFile | Memory::Private => Ok(0),
            Memory::CloneOf(path) => prefault::read_in(&machine.vmm, &MemoryFile::at(path)),
        }
    }

    fn probe(&self, machine: &Arc<Machine>, probe: Probe, timeout: Duration) -> Result<()> {
        let alive = machine.vmm.is_alive();
        match probe {
            Probe::Alive if alive => machine.check_health(timeout),
            Probe::AgentAnswers if alive => {
                let deadline = Deadline::after(timeout);
                let channel = channel::open(machine, timeout)?;
                let mut agent = Agent::greet(channel, self.env.uid(), timeout)?;
                let left = deadline.left().unwrap_or(Duration::from_millis(1));
                agent.ping(left).map(drop)
            }
            Probe::Alive | Probe::AgentAnswers => Err(VmRuntimeError::Unavailable {
                what: "the VM's process has ended".to_owned(),
                source: None,
            }),
        }
    }

    fn guest_channel(&self, machine: &Arc<Machine>) -> Result<Box<dyn GuestChannel>> {
        channel::open(machine, self.config.command_timeout)
    }

    fn connect(&self, machine: &Arc<Machine>, port: Option<u32>) -> Result<GuestStream> {
        match port {
            None => channel::connect(machine, self.config.command_timeout),
            Some(_) => Err(VmRuntimeError::Unsupported { what: "ports of a vsock".to_owned() }),
        }
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        machine
            .vmm
            .console
            .read(offset, max)
            .map_err(|error| files::io_error("read the console".into(), error))
    }

    fn endpoints(&self, machine: &Arc<Machine>) -> Vec<Endpoint> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            Endpoint { kind: EndpointKind::Serial, address: path(machine.vmm.console.path()) },
            Endpoint { kind: EndpointKind::Unix, address: path(&machine.dir().join(AGENT)) },
        ]
    }

    fn process(&self, machine: &Arc<Machine>) -> Option<VmmProcess> {
        let process = machine.vmm.process().filter(|process| process.exit().is_none());
        process.map(|process| process.view())
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let host = &self.host;
        vec![
            ("version", host.version.clone()),
            ("binary", host.binary.display().to_string()),
            ("accel", host.accel.to_owned()),
            ("accel_reason", host.accel_reason.clone()),
            ("machine", host.machine.clone()),
            ("sandbox", if host.sandboxed { "on" } else { "not in this QEMU" }.to_owned()),
            ("user", host.user.map_or_else(|| "hearth's own".to_owned(), |user| user.to_string())),
            ("cgroups", self.supervisor.cgroups().to_string()),
        ]
    }
}
