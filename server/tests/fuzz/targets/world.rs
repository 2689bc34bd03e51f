//! A service for one try: in front of a memory provider, on a clock that stands still unless all wait,
//! so that nothing takes any time and a seed repeats it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hearth_pool::env::{Env, VirtualEnv};
use hearth_pool::error::Result;
use hearth_pool::fuzzing::Scratch;
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::pool::Provider;
use hearth_pool::tasks::TaskGroup;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::{VmRuntime, VmStatus};
use hearth_server::config::{Config, DefaultPool};
use hearth_server::front::{Front, Layers};
use hearth_server::fuzzing;

static LAYERS: LazyLock<Layers> = LazyLock::new(|| Layers::new().expect("our own layers"));

/// How long, on its own clock, it may take until nothing is left of what was given back.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) front: Front,
    pub(crate) manager: Arc<Manager>,
    memory: Arc<dyn VmRuntime>,
    config: Config,
    dir: Scratch,
}

/// Runs `live` in a world of its own, to its end.
/// Its uids are those of `seed`: records that another world wrote are of others.
pub(crate) fn run(
    seed: u64,
    journal: impl FnOnce(&std::path::Path, &dyn Env) -> Result<Journal>,
    live: impl AsyncFnOnce(&World),
) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        // A journal that cannot be opened is for the journal's own tests.
        let Ok(world) = World::new(seed, journal) else { return };
        live(&world).await;
    });
}

impl World {
    fn new(
        seed: u64,
        journal: impl FnOnce(&std::path::Path, &dyn Env) -> Result<Journal>,
    ) -> Result<Self> {
        let dir = Scratch::new();
        let env: Arc<dyn Env> = Arc::new(VirtualEnv::new(seed));
        let memory: Arc<dyn VmRuntime> =
            Arc::new(MemoryBackend::provider("memory", Arc::clone(&env)));
        let (name, kind) = ("memory".into(), "memory".to_owned());
        let provider = Provider { name, kind, runtime: Arc::clone(&memory) };
        let journal = journal(&dir.0.join("journal"), &*env)?;
        let config = Config {
            default_pool: DefaultPool { depth: Some(2), ..Config::default().default_pool },
            ..Config::default()
        };
        let (tasks, limits) = (TaskGroup::new(), fuzzing::limits(&config));
        let jobs =
            Jobs::simulated(tasks.clone(), limits.places(), Arc::new(|_| Duration::from_millis(1)));
        let clock = Arc::clone(&env);
        let manager =
            Manager::new(clock, limits, journal, jobs, tasks.clone(), vec![Arc::new(provider)]);
        let front = Front::new(&LAYERS, Arc::clone(&manager), &tasks, env, &config.grpc);
        Ok(Self { front, manager, memory, config, dir })
    }

    /// Takes up what the journal has, and makes the default template and pool.
    ///
    /// # Errors
    /// As of a start.
    pub(crate) async fn begin(&self) -> Result<()> {
        self.manager.start(false).await?;
        fuzzing::furnish(&self.manager, &self.config).await?;
        self.front.open();
        // Until the pool is full, or cannot be.
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(())
    }

    /// Ends everything.
    ///
    /// # Panics
    /// When a VM is then left, or was in nobody's list before.
    pub(crate) async fn end(&self) {
        for vm in self.alive() {
            let known = self.manager.vm_by_uid(vm);
            assert!(known.is_some() || self.is_gone(vm).await, "a VM that nobody knows of: {vm}");
        }
        self.manager.shut_down(true).await;
        for vm in self.alive() {
            assert!(self.is_gone(vm).await, "a VM is left: {vm}");
        }
    }

    /// Where its journal is.
    pub(crate) fn journal(&self) -> std::path::PathBuf {
        self.dir.0.join("journal")
    }

    fn alive(&self) -> Vec<hearth_providers::Uid> {
        let all = self.memory.list_vms().into_iter();
        all.filter(|vm| vm.status != VmStatus::Destroyed).map(|vm| vm.uid).collect()
    }

    /// It is, in time.
    async fn is_gone(&self, vm: hearth_providers::Uid) -> bool {
        let gone = async {
            while self.alive().contains(&vm) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.is_ok()
    }
}
