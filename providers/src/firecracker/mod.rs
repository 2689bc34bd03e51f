//! Real virtual machines, by Firecracker.
//!
//! A VM is one Firecracker process that outlives hearth, driven over its API socket. A snapshot is
//! its state file, its memory file and a copy of each writable drive; a clone maps the memory
//! file privately, so that a restore takes some ten milliseconds whatever the memory's size.
//!
//! | verb | how |
//! |---|---|
//! | create | files only |
//! | start | spawn, configure, `InstanceStart`; or `PATCH /vm` Resumed |
//! | stop | `PATCH /vm` Paused |
//! | snapshot | Paused, `PUT /snapshot/create`, copies of the drives, Resumed |
//! | restore | spawn, `PUT /snapshot/load` |
//! | destroy | `SIGKILL` |
//!
//! Needs Linux, `/dev/kvm` and Firecracker 1.10 or newer; tested with 1.16.1. An instance's
//! directory holds `machine.json` (see `blueprint`), `vmm.json` (see [`crate::supervise`]),
//! `drive-<id>`, `console`, `firecracker.log`, `api.sock` and `vsock.sock`; in jailer mode the
//! last three are in the jail, which is `jail/` of the same directory (see `home`). A clone whose
//! page faults a handler answers has `uffd.json`, `uffd.log` and `uffd-<id>.sock`, too (see `handler`).

mod adopt;
mod api;
mod blueprint;
mod boot;
mod capture;
mod config;
mod drive;
mod exchange;
pub(crate) mod fuzz;
mod handler;
mod home;
mod host;
mod image;
mod jail;
mod launch;
mod machine;
mod restore;
mod vsock;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::capabilities::Capabilities;
use crate::engine::Engine;
use crate::env::{Deadline, Env};
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::{Endpoint, EndpointKind, Failure, SnapshotView, VmSpec, VmStatus, VmmProcess};
use crate::prefault::{self, MemoryFile};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream, Probe};
use crate::supervise::Supervisor;
use api::VmState;
use blueprint::Blueprint;
pub use config::{CgroupVersion, FirecrackerConfig, JailerConfig, MemoryBackend, Mmds};
use home::VSOCK;
use host::Host;
pub use host::kvm;
pub use image::Image;
use jail::Jails;
pub use machine::Machine;

/// The Firecracker provider.
pub type FirecrackerProvider = Engine<FirecrackerBackend>;

/// What the newest Firecracker that we know can do, with an agent to talk to.
/// [`Backend::capabilities`] has what this host's one can.
pub const CAPABILITIES: Capabilities =
    Capabilities { snapshot_created: false, ..Capabilities::full() };

/// Drives Firecracker processes.
pub struct FirecrackerBackend {
    config: FirecrackerConfig,
    host: Host,
    jails: Option<Jails>,
    supervisor: Supervisor,
    env: Arc<dyn Env>,
}

impl std::fmt::Debug for FirecrackerBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirecrackerBackend").field("host", &self.host).finish_non_exhaustive()
    }
}

impl FirecrackerBackend {
    /// A backend for this host's Firecracker, about which it finds out what it can do. Blocks for
    /// some milliseconds. Without a jailer it warns of what isolation is missing.
    ///
    /// # Errors
    /// `Backend` when there is no Firecracker or jailer, one is too old, or this host cannot make
    /// jails as configured; `Timeout` when one hangs.
    pub fn new(config: FirecrackerConfig, env: Arc<dyn Env>) -> Result<Self> {
        let host = Host::probe(&config)?;
        let jails = config.jailer.clone().zip(host.jailer.clone());
        let jails = jails.map(|(jailer, (program, _))| Jails::new(program, jailer, &host.binary));
        let jails = jails.transpose()?;
        if jails.is_none() {
            tracing::warn!(
                "Firecracker runs without its jailer: VMs share hearth's user, root directory, \
                 network and limits; configure one where guests are not trusted"
            );
        }
        if let Err(error) = kvm() {
            tracing::warn!(%error, "no VM will start");
        }
        Ok(Self { config, host, jails, supervisor: Supervisor::new()?, env })
    }

    /// A pause that nothing is done in would hang a vsock for good.
    fn check_pause(&self, machine: &Machine) -> Result<()> {
        if machine.blueprint.vsock_cid.is_none() || !self.host.pause_hangs_vsock() {
            return Ok(());
        }
        let version = &self.host.version;
        let what =
            format!("stopping a VM with a vsock: Firecracker {version} would hang the vsock");
        Err(VmRuntimeError::Unsupported { what })
    }
}

impl Backend for FirecrackerBackend {
    type Machine = Arc<Machine>;
    type Image = Image;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pause_keeps_channels: !self.host.pause_hangs_vsock(),
            network_overrides: self.host.has_network_overrides(),
            prefault: self.config.memory == MemoryBackend::File,
            guest_channel: self.config.agent_port.is_some(),
            // To ports of a vsock without an agent's, too.
            connect: true,
            ..CAPABILITIES
        }
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        let blueprint = Blueprint::from_spec(place.uid, spec, &self.config)?;
        blueprint.drives.iter().try_for_each(|drive| drive.make_own(&place.dir))?;
        self.make_machine(place, blueprint).map(Arc::new)
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
        self.boot(place, machine)?;
        self.watch(place, machine);
        Ok(())
    }

    fn stop(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        self.check_pause(machine)?;
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
        machine.kill();
    }

    fn dispose(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        let disposed = self.supervisor.dispose(&machine.vmm, self.config.kill_timeout);
        self.end_handler(machine);
        self.clear_jail(machine);
        disposed
    }

    fn ended(&self, machine: &Arc<Machine>) -> Option<Failure> {
        machine.vmm.failure()
    }

    fn adopt(&self, place: &Place, _spec: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        self.take_up(place)
    }

    fn reap(&self, dir: &Path) -> Reaped {
        launch::reap(self, dir)
    }

    fn load_image(&self, dir: &Path, _view: &SnapshotView) -> Result<Image> {
        Image::read(dir)
    }

    /// What a page fault handler fills is the handler's to fill early: nothing is read in.
    fn prefault(&self, machine: &Arc<Machine>, snapshot_dir: &Path) -> Result<u64> {
        if self.config.memory != MemoryBackend::File {
            return Ok(0);
        }
        let path = snapshot_dir.join(image::MEMORY);
        prefault::read_in(&machine.vmm, &MemoryFile { path: &path, lent_as: restore::OLD_MEMORY })
    }

    fn probe(&self, machine: &Arc<Machine>, probe: Probe, timeout: Duration) -> Result<()> {
        let unavailable =
            |what: &str| VmRuntimeError::Unavailable { what: what.to_owned(), source: None };
        if !machine.vmm.is_alive() {
            return Err(unavailable("the VM's process has ended"));
        }
        match probe {
            Probe::Alive => match machine.state(timeout)? {
                VmState::Running => Ok(()),
                state => Err(unavailable(&format!("Firecracker says that its VM is {state:?}"))),
            },
            Probe::AgentAnswers => {
                let deadline = Deadline::after(timeout);
                let channel = self.open_channel(machine, timeout)?;
                let mut agent = Agent::greet(channel, self.env.uid(), timeout)?;
                let left = deadline.left().unwrap_or(Duration::from_millis(1));
                agent.ping(left).map(drop)
            }
        }
    }

    fn guest_channel(&self, machine: &Arc<Machine>) -> Result<Box<dyn GuestChannel>> {
        self.open_channel(machine, self.config.command_timeout)
    }

    fn connect(&self, machine: &Arc<Machine>, port: Option<u32>) -> Result<GuestStream> {
        let timeout = self.config.command_timeout;
        match port.filter(|port| self.config.agent_port != Some(*port)) {
            None => vsock::attach(machine, self.agent_port(machine)?, true, timeout),
            Some(_) if machine.blueprint.vsock_cid.is_none() => Err(VmRuntimeError::Unsupported {
                what: "ports of a vsock that is not there".into(),
            }),
            Some(port) => vsock::attach(machine, port, false, timeout),
        }
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        let read = machine.vmm.console.read(offset, max);
        read.map_err(|error| files::io_error("read the console".into(), error))
    }

    fn endpoints(&self, machine: &Arc<Machine>) -> Vec<Endpoint> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let console =
            Endpoint { kind: EndpointKind::Serial, address: path(machine.vmm.console.path()) };
        let vsock = machine.blueprint.vsock_cid.map(|_| Endpoint {
            kind: EndpointKind::Vsock,
            address: path(&machine.vmm.dir.join(VSOCK)),
        });
        [console].into_iter().chain(vsock).collect()
    }

    fn process(&self, machine: &Arc<Machine>) -> Option<VmmProcess> {
        let process = machine.vmm.process().filter(|process| process.exit().is_none());
        process.map(|process| process.view())
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let host = &self.host;
        let jailer = host.jailer.as_ref();
        let isolation = match &self.jails {
            Some(jails) => {
                let (first, count) = (jails.config.first_uid, jails.config.uid_count);
                format!("jailer, users {first} to {}", first + (count - 1))
            }
            None => "none: VMs have hearth's own rights".to_owned(),
        };
        vec![
            ("version", host.version.clone()),
            ("binary", host.binary.display().to_string()),
            ("snapshot_format", host.snapshot_format.clone()),
            ("jailer", jailer.map_or_else(String::new, |(path, _)| path.display().to_string())),
            ("isolation", isolation),
            ("kvm", kvm().unwrap_or_else(|why| format!("none: {why}"))),
            ("cgroups", self.supervisor.cgroups().to_string()),
        ]
    }
}

impl FirecrackerBackend {
    fn open_channel(&self, machine: &Machine, timeout: Duration) -> Result<Box<dyn GuestChannel>> {
        vsock::open(machine, self.agent_port(machine)?, timeout)
    }

    fn agent_port(&self, machine: &Machine) -> Result<u32> {
        let port = self.config.agent_port.filter(|_| machine.blueprint.vsock_cid.is_some());
        port.ok_or_else(|| VmRuntimeError::Unsupported {
            what: "a guest channel, for the VM has no vsock or no agent_port is configured".into(),
        })
    }
}
