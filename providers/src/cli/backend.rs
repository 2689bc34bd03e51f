//! The backend that a tool's command lines make.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;

use super::blueprint::Blueprint;
use super::config::CliConfig;
use super::machine::{Image, Machine, Record};
use super::runner::MAX_OUTPUT_BYTES;
use super::{Stand, Tool, watch};
use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::capabilities::Capabilities;
use crate::directory::Paths;
use crate::engine::{Engine, OpenReport};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::model::{Failure, SnapshotView, VmSpec, VmStatus};
use crate::provider::{ConsoleChunk, Probe};

/// Drives the machines of one tool.
pub struct CliBackend<T: Tool> {
    pub(super) shared: Arc<Shared<T>>,
    /// Its end is the watching thread's.
    _closes: Sender<()>,
}

/// What the verbs and the watching thread share.
pub(super) struct Shared<T> {
    pub(super) tool: T,
    pub(super) config: CliConfig,
    pub(super) paths: Paths,
    pub(super) env: Arc<dyn Env>,
    pub(super) machines: DashMap<Uid, Weak<Machine>>,
    /// There may be machines that nobody knows.
    pub(super) suspicious: AtomicBool,
}

impl<T: Tool> std::fmt::Debug for CliBackend<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CliBackend").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// Opens the provider `name` on `paths`: adopts what is recorded there, and removes machines that
/// carry the state's uuid and have no directory. Blocks on the disk and on the tool.
///
/// # Errors
/// Those of [`CliBackend::new`] and of [`Engine::open`]; those of the tool's list.
pub fn open<T: Tool>(
    name: &str,
    tool: T,
    config: CliConfig,
    env: Arc<dyn Env>,
    paths: Paths,
) -> Result<(Engine<CliBackend<T>>, OpenReport)> {
    let backend = CliBackend::new(tool, config, &paths, Arc::clone(&env))?;
    let (provider, mut report) = Engine::open(name, backend, env, paths)?;
    let swept = provider.backend().shared.sweep()?;
    report.reaped_instances += swept;
    report.reaped_processes += swept;
    Ok((provider, report))
}

impl<T: Tool> CliBackend<T> {
    /// A backend whose records are in `paths`. Starts the thread that watches.
    ///
    /// # Errors
    /// `InvalidSpec` when the configuration does not name the state; `Backend` when there can be
    /// no thread.
    pub fn new(tool: T, config: CliConfig, paths: &Paths, env: Arc<dyn Env>) -> Result<Self> {
        if config.state.is_empty() {
            let reason = "machines have to carry the state's uuid".to_owned();
            return Err(VmRuntimeError::InvalidSpec { field: "state", reason });
        }
        let period = config.watch_period;
        let (machines, suspicious) = (DashMap::new(), AtomicBool::new(false));
        let paths = paths.clone();
        let shared = Arc::new(Shared { tool, config, paths, env, machines, suspicious });
        let (closes, closed) = std::sync::mpsc::channel();
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("hearth-cli-watch".to_owned())
            .spawn(move || watch::run(&watched, &closed, period))
            .map_err(|error| VmRuntimeError::backend("start a thread", error))?;
        Ok(Self { shared, _closes: closes })
    }
}

impl<T: Tool> Backend for CliBackend<T> {
    type Machine = Arc<Machine>;
    type Image = Image;

    fn capabilities(&self) -> Capabilities {
        self.shared.tool.capabilities()
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Arc<Machine>> {
        let blueprint = Blueprint::from_spec(spec, &self.shared.config, T::CAN_BE_READ_ONLY)?;
        let record = Record { blueprint, led_to: VmStatus::Created, unstarted_from: None };
        self.make(place, record, None)
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
        super::verbs::check_files::<T>(source)
    }

    fn start(&self, _: &Place, machine: &Arc<Machine>, _: VmStatus) -> Result<()> {
        self.boot(machine)
    }

    fn stop(&self, _: &Place, machine: &Arc<Machine>) -> Result<()> {
        self.shut_down(machine)
    }

    fn snapshot(
        &self,
        _: &Place,
        machine: &Arc<Machine>,
        _: VmStatus,
        into: &Path,
    ) -> Result<Captured<Image>> {
        self.capture(machine, into)
    }

    fn kill(&self, machine: &Arc<Machine>) {
        // Whoever waits for the tool stops; the removal that follows ends the machine.
        machine.doomed.store(true, Ordering::Release);
    }

    fn dispose(&self, place: &Place, machine: &Arc<Machine>) -> Result<()> {
        machine.doomed.store(true, Ordering::Release);
        self.shared.machines.remove(&place.uid);
        self.shared.remove(place.uid)
    }

    fn ended(&self, machine: &Arc<Machine>) -> Option<Failure> {
        machine.failure()
    }

    fn adopt(&self, place: &Place, _: &VmSpec) -> Result<Adopted<Arc<Machine>>> {
        self.take_up(place)
    }

    fn reap(&self, dir: &Path) -> Reaped {
        Reaped { processes: self.reap_unfinished(dir), ..Reaped::default() }
    }

    fn load_image(&self, dir: &Path, _: &SnapshotView) -> Result<Image> {
        Image::read(dir)
    }

    fn probe(&self, machine: &Arc<Machine>, probe: Probe, timeout: Duration) -> Result<()> {
        if probe == Probe::AgentAnswers {
            return Err(VmRuntimeError::Unsupported { what: "guest channels".to_owned() });
        }
        let timeout = timeout.min(self.shared.config.command_timeout);
        match self.shared.find_within(&machine.name, timeout)?.map(|seen| seen.stand) {
            Some(Stand::Running) => Ok(()),
            _ => Err(VmRuntimeError::Unavailable {
                what: "the VM's machine does not run".to_owned(),
                source: None,
            }),
        }
    }

    fn console(&self, machine: &Arc<Machine>, offset: u64, max: usize) -> Result<ConsoleChunk> {
        let empty = ConsoleChunk { offset, bytes: Vec::new(), next_offset: offset };
        let enough = offset.saturating_add(max as u64).min(MAX_OUTPUT_BYTES);
        // A machine that was never started has no console yet.
        if enough <= offset || machine.record().led_to == VmStatus::Created {
            return Ok(empty);
        }
        let written = self.shared.tool.console(&machine.name, enough)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(written.len());
        let bytes = written[from..].to_vec();
        Ok(ConsoleChunk { offset, next_offset: offset + bytes.len() as u64, bytes })
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        vec![
            ("version", self.shared.tool.version().to_owned()),
            ("binary", self.shared.tool.program().display().to_string()),
        ]
    }
}
