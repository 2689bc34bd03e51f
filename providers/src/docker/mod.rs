//! Containers, by the Docker Engine or by podman's compatible socket.
//!
//! A VM is one container that the engine calls `hearth-<uid>` for life: names are ours, so a
//! rename never reaches the engine. What is not asked for is not there: no network, no
//! capabilities, no new privileges, a bound on memory, processors and processes.
//!
//! | verb | how |
//! |---|---|
//! | create | create |
//! | start | start; or unpause |
//! | stop | pause |
//! | snapshot | commit, to the image `hearth/snapshot:<uid>` |
//! | restore | create from that image, and start where it is to run |
//! | destroy | remove, by force and with its volumes |
//!
//! Stop is a pause and keeps memory. That is what serves pools best: a paused VM costs no
//! processor time and goes on within milliseconds with everything in memory, where a container
//! that was ended would begin from the start of its command. Memory is *not* in snapshots: what is
//! restored runs its command anew on the committed disk, and one restored Stopped is a container
//! that was never started. An image's volumes are not part of a commit either.
//!
//! What is ours is told by labels and name (see `labels`); strangers are never touched. Deaths
//! are heard of by the engine's events (see `watch`), what nobody asks to remove is swept (see
//! `sweep`). All requests run on a runtime of the backend's own with one thread; the callers'
//! threads wait for them. So a call blocks, and is not to be made from async code; dropping the
//! backend does not block, and leaves the containers as they are.
//!
//! Needs Linux and an engine that speaks version 1.41 of the API or newer. An instance's directory
//! holds `machine.json` and `console`, a snapshot's `image.json`.

mod adopt;
mod attach;
mod blueprint;
mod commit_mark;
mod config;
mod console;
mod fault;
pub(crate) mod fuzz;
mod image;
mod labels;
mod machine;
mod shared;
mod sweep;
mod verbs;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use tokio::runtime::Runtime;

use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::capabilities::Capabilities;
use crate::directory::Paths;
use crate::engine::{Engine, OpenReport};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::{Endpoint, EndpointKind, Failure, SnapshotView, VmSpec, VmStatus, VmmProcess};
use crate::provider::{ConsoleChunk, GuestStream, Probe};
use commit_mark::CommitMark;
pub use config::DockerConfig;
use fault::Fault;
pub use image::Image;
pub use machine::Machine;
use shared::{Answer, Shared, Stand};
use sweep::Sweep;
pub use sweep::Swept;

/// The docker provider.
pub type DockerProvider = Engine<DockerBackend>;

/// What containers can and cannot do here.
pub const CAPABILITIES: Capabilities = Capabilities {
    pause_keeps_channels: false,
    memory_in_snapshots: false,
    memory_in_artifacts: false,
    network_overrides: false,
    prefault: false,
    guest_channel: false,
    ..Capabilities::full()
};

/// The oldest version of the API that we were run on.
const OLDEST_API: (usize, usize) = (1, 41);

/// Drives the containers of one engine.
pub struct DockerBackend {
    shared: Arc<Shared>,
    about: Vec<(&'static str, String)>,
    /// Gone only while it is dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerBackend").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Opens the provider `name` on `paths`: adopts what is recorded there and reaps what carries the
/// state's uuid and is in no record. Blocks on the disk and on the engine.
///
/// # Errors
/// Those of [`DockerBackend::new`] and of [`Engine::open`].
pub fn open(
    name: &str,
    config: DockerConfig,
    env: Arc<dyn Env>,
    paths: Paths,
) -> Result<(DockerProvider, OpenReport)> {
    let backend = DockerBackend::new(config, &paths, Arc::clone(&env))?;
    let (provider, mut report) = Engine::open(name, backend, env, paths)?;
    let swept = provider.backend().sweep()?;
    // The engine may still be busy with what a former life asked for.
    provider.backend().shared.sweep.suspect();
    report.reaped_instances += swept.containers;
    report.reaped_containers += swept.containers;
    report.reaped_snapshots += swept.images;
    Ok((provider, report))
}

/// What the engine at the configured socket says of itself, as a provider's facts. Changes nothing
/// and blocks until the engine has answered.
///
/// # Errors
/// Those of [`DockerBackend::new`].
pub fn ask(config: DockerConfig, env: Arc<dyn Env>) -> Result<Vec<(&'static str, String)>> {
    let nowhere = Paths { state: PathBuf::new(), runtime: PathBuf::new() };
    Ok(DockerBackend::connect(config, &nowhere, env)?.about.clone())
}

impl DockerBackend {
    /// A backend for the engine at the configured socket, whose records are in `paths`. Blocks
    /// until the engine has answered.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the engine is not there; `Backend` when it is too old;
    /// `InvalidSpec` when the configuration does not name the state.
    pub fn new(config: DockerConfig, paths: &Paths, env: Arc<dyn Env>) -> Result<Self> {
        let backend = Self::connect(config, paths, env)?;
        backend.task(watch::run(Arc::clone(&backend.shared)));
        backend.task(sweep::run(Arc::clone(&backend.shared)));
        Ok(backend)
    }

    /// One that has asked the engine what it is, and does no more.
    fn connect(config: DockerConfig, paths: &Paths, env: Arc<dyn Env>) -> Result<Self> {
        if config.state.is_empty() {
            let reason = "containers have to carry the state's uuid".to_owned();
            return Err(VmRuntimeError::InvalidSpec { field: "state", reason });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hearth-docker")
            .enable_all()
            .build()
            .map_err(|error| VmRuntimeError::backend("start a runtime", error))?;
        let timeout = config.command_timeout;
        let socket = config.socket.to_string_lossy().into_owned();
        let client = wait_on(&runtime, async move {
            // Its own time limit is out of the way: each request has one of ours.
            let client = Docker::connect_with_unix(&socket, 3600, bollard::API_DEFAULT_VERSION)?;
            let negotiated = tokio::time::timeout(timeout, client.negotiate_version()).await;
            Ok(negotiated.map_err(|_| Fault::Late(timeout))??)
        });
        let what = || format!("connect to {}", config.socket.display());
        let client = client.map_err(|fault: Fault| fault.into_error(what()))?;
        let shared = Arc::new(Shared {
            client,
            config,
            state: paths.state.clone(),
            env,
            machines: dashmap::DashMap::new(),
            sweep: Arc::new(Sweep::default()),
        });
        let mut backend = Self { shared, about: Vec::new(), runtime: Some(runtime) };
        backend.about = backend.find_out()?;
        Ok(backend)
    }

    /// Removes containers and images that carry our state's uuid and are in no record. Blocks.
    ///
    /// # Errors
    /// Those of the engine; what was not removed is tried again later.
    pub fn sweep(&self) -> Result<Swept> {
        let shared = Arc::clone(&self.shared);
        let swept = self.wait(async move { shared.sweep_all(true).await });
        swept.map_err(|fault| {
            self.shared.sweep.suspect();
            fault.into_error("look for containers of a former life")
        })
    }

    fn find_out(&self) -> Result<Vec<(&'static str, String)>> {
        let shared = Arc::clone(&self.shared);
        let asked = self.wait(async move {
            let timeout = shared.config.command_timeout;
            let version = shared.ask(timeout, shared.client.version()).await?;
            Ok((version, shared.ask(timeout, shared.client.info()).await?))
        });
        let (version, info) = asked.map_err(|fault: Fault| fault.into_error("ask its version"))?;
        let api = self.shared.client.client_version();
        if (api.major_version, api.minor_version) < OLDEST_API {
            let what = format!("the engine speaks version {api} of the API: 1.41 is the oldest");
            return Err(VmRuntimeError::Backend { what, source: None });
        }
        let podman = version.components.iter().flatten().any(|it| it.name.contains("Podman"));
        let runtime = self.shared.config.runtime.clone().or(info.default_runtime);
        let live_restore = match info.live_restore_enabled {
            // Its containers are no children of a service.
            _ if podman => "not needed",
            Some(true) => "on",
            Some(false) => "off",
            None => "unknown",
        };
        Ok(vec![
            ("version", version.version.unwrap_or_default()),
            ("engine", if podman { "podman" } else { "docker" }.to_owned()),
            ("api", api.to_string()),
            ("socket", self.shared.config.socket.display().to_string()),
            ("runtime", runtime.unwrap_or_default()),
            ("storage", info.driver.unwrap_or_default()),
            ("live_restore", live_restore.to_owned()),
            ("accel", "none".to_owned()),
        ])
    }

    /// Lets `work` run for as long as the backend lives.
    fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }

    /// Waits in this thread for what runs on our runtime.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        match &self.runtime {
            Some(runtime) => wait_on(runtime, work),
            None => Err(closed()),
        }
    }
}

fn wait_on<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = answer.send(work.await);
    });
    answered.recv().unwrap_or_else(|_| Err(closed()))
}

fn closed() -> Fault {
    Fault::Unreachable("the provider was closed".to_owned().into())
}

/// Ends our tasks; containers go on.
impl Drop for DockerBackend {
    fn drop(&mut self) {
        // It may be dropped in async code, which must not wait.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Backend for DockerBackend {
    type Machine = Arc<Machine>;
    type Image = Image;

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        let blueprint = blueprint::Blueprint::from_spec(spec, &self.shared.config)?;
        self.make(place, blueprint)
    }

    fn restore(
        &self,
        place: &Place,
        _: &VmSpec,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        self.make_clone(place, source)
    }

    fn fits(&self, source: &Source<'_, Image>) -> Result<()> {
        self.check(source)
    }

    fn start(&self, _: &Place, machine: &Arc<Machine>, _: VmStatus) -> Result<()> {
        match machine.was_started() {
            true => self.unpause(machine),
            false => self.boot(machine),
        }
    }

    fn stop(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        self.pause(machine)
    }

    fn snapshot(
        &self,
        place: &Place,
        machine: &Arc<Machine>,
        status: VmStatus,
        into: &Path,
    ) -> Result<Captured<Image>> {
        let runs = status == VmStatus::Running;
        let _mark = runs.then(|| CommitMark::set(&place.dir)).transpose()?;
        self.capture(machine, runs, into)
    }

    fn kill(&self, machine: &Arc<Machine>) {
        // Whoever waits for an answer about it stops; the removal that follows ends it.
        machine.doom();
    }

    fn dispose(&self, place: &Place, machine: &Arc<Machine>) -> Result<()> {
        machine.doom();
        self.shared.machines.remove(&place.uid);
        self.remove(machine.container())
    }

    fn ended(&self, machine: &Arc<Machine>) -> Option<Failure> {
        machine.failure()
    }

    fn adopt(&self, place: &Place, spec: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        self.take_up(place, spec)
    }

    fn reap(&self, dir: &Path) -> Reaped {
        Reaped { containers: self.reap_unrecorded(dir), ..Reaped::default() }
    }

    fn load_image(&self, dir: &Path, view: &SnapshotView) -> Result<Image> {
        Image::read(view.uid, dir, Arc::clone(&self.shared.sweep))
    }

    fn export(&self, source: &Source<'_, Image>, _: &[String], into: &mut dyn Write) -> Result<()> {
        self.save(source, into)
    }

    fn bytes_elsewhere(&self, machine: &Arc<Machine>) -> Result<u64> {
        let (shared, container) = (Arc::clone(&self.shared), machine.container().to_owned());
        let asked = self.wait(async move { shared.writable_bytes(&container).await });
        asked.map_err(|fault| fault.into_error("ask for a container's size"))
    }

    fn probe(&self, machine: &Arc<Machine>, probe: Probe, timeout: Duration) -> Result<()> {
        if probe == Probe::AgentAnswers {
            return Err(VmRuntimeError::Unsupported { what: "guest channels".to_owned() });
        }
        match self.look(machine, timeout)?.stand {
            Stand::Running => Ok(()),
            Stand::Created | Stand::Paused | Stand::Ended => Err(VmRuntimeError::Unavailable {
                what: "the VM's container does not run".to_owned(),
                source: None,
            }),
        }
    }

    fn connect(&self, machine: &Arc<Machine>, port: Option<u32>) -> Result<GuestStream> {
        match port {
            None => self.attach(machine),
            Some(_) => Err(VmRuntimeError::Unsupported { what: "ports of a vsock".to_owned() }),
        }
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        machine
            .console
            .read(offset, max)
            .map_err(|error| files::io_error("read the console".into(), error))
    }

    fn endpoints(&self, machine: &Arc<Machine>) -> Vec<Endpoint> {
        let address = machine.console.path().to_string_lossy().into_owned();
        vec![Endpoint { kind: EndpointKind::Serial, address }]
    }

    fn process(&self, machine: &Arc<Machine>) -> Option<VmmProcess> {
        machine.process()
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        self.about.clone()
    }
}
