//! A manager in this process with one pool on one provider, as a server has it, without the gRPC.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::acquire::AcquireRequest;
use hearth_pool::config::Limits;
use hearth_pool::env::{Env, SystemEnv};
use hearth_pool::ids::{PoolId, TemplateId, Tenant};
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::pool::{Overflow, Pool, PoolConfig, Provider, Sizing};
use hearth_pool::tasks::TaskGroup;
use hearth_pool::templates::Template;
use hearth_providers::directory::Paths;
use hearth_providers::engine::Engine;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::readiness::Readiness;
use hearth_providers::{VmId, VmRuntime, VmSpec};
use tokio::time::Instant;

use crate::rig::Home;

/// How long a pool may take to be as it should.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(1);

/// The manager and its pool, which is empty at first.
pub(crate) struct Inside {
    /// The manager.
    pub(crate) manager: Arc<Manager>,
    /// Its pool.
    pub(crate) pool: Arc<Pool>,
    provider: Arc<dyn VmRuntime>,
}

/// What a manager is started with.
pub(crate) struct Setting {
    /// The provider, which nobody else uses.
    pub(crate) provider: Arc<dyn VmRuntime>,
    /// What its VMs boot.
    pub(crate) spec: VmSpec,
    /// When one is ready.
    pub(crate) readiness: Readiness,
    /// How many restores the node and the pool may run at once.
    pub(crate) restores: (usize, usize),
}

impl Inside {
    /// Starts one with its journal in `dir`, and builds its template. Needs a runtime.
    ///
    /// # Errors
    /// When the journal, the template or the pool cannot be made.
    pub(crate) async fn start(dir: &Path, setting: Setting) -> Result<Self, Box<dyn Error>> {
        let Setting { provider, spec, readiness, restores } = setting;
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let named = "it";
        let configured =
            Provider { name: named.into(), kind: named.to_owned(), runtime: Arc::clone(&provider) };
        let limits = Limits { max_parallel_restores: restores.0, ..Limits::default() };
        let tasks = TaskGroup::new();
        let jobs = Jobs::on_threads(tasks.clone(), limits.places());
        let journal = Journal::open(&dir.join("journal"), env.as_ref())?;
        let manager = Manager::new(env, limits, journal, jobs, tasks, vec![Arc::new(configured)]);
        manager.start(false).await?;
        let (id, template) = (PoolId::parse("default")?, TemplateId::parse("default")?);
        let recipe = Template { readiness, ..Template::new(template.clone(), "it", spec) };
        let operation = manager.create_template(recipe, false).await?;
        manager.operations().wait(&operation, PATIENCE).await?;
        let config =
            PoolConfig { max_parallel_restores: restores.1, ..PoolConfig::new(id, template) };
        let pool = manager.create_pool(config, false).await?.ok_or("no pool was made")?;
        Ok(Self { manager, pool, provider })
    }

    /// Asks for `depth` warm VMs and waits until there are so many; answers how long that took from the
    /// moment at which the pool knew. What comes before, the pool's change written to the disk, takes
    /// as long as the disk does and is no part of a refill.
    ///
    /// # Errors
    /// When there are not within some minutes.
    pub(crate) async fn fill(&self, depth: usize) -> Result<Duration, Box<dyn Error>> {
        self.set_depth(depth).await?;
        let begun = Instant::now();
        self.until(begun, || self.pool.status().warm >= depth).await?;
        Ok(begun.elapsed())
    }

    /// Asks for none and waits until none is left, nor any that is being destroyed.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(crate) async fn empty(&self) -> Result<(), Box<dyn Error>> {
        self.set_depth(0).await?;
        self.until(Instant::now(), || self.provider.list_vms().is_empty()).await
    }

    async fn set_depth(&self, depth: usize) -> Result<(), Box<dyn Error>> {
        let change = |config: &mut PoolConfig| {
            config.sizing = Sizing::Fixed { depth };
            Ok(())
        };
        self.manager.update_pool(&self.pool.id, "", false, change).await?;
        Ok(())
    }

    async fn until(&self, begun: Instant, done: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
        while !done() {
            if begun.elapsed() > PATIENCE {
                let status = self.pool.status();
                return Err(format!("the pool is not as it should be: {status:?}").into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// A claim of a warm VM under `name`.
    ///
    /// # Errors
    /// When that cannot be a name.
    pub(crate) fn request(&self, name: &str) -> Result<AcquireRequest, Box<dyn Error>> {
        Ok(AcquireRequest {
            tenant: Tenant::anonymous(),
            pool: self.pool.id.clone(),
            vm_id: Some(VmId::parse(name)?),
            request_id: Some(SystemEnv.uid().to_string().into()),
            expiration: None,
            overflow: Some(Overflow::WarmOnly),
            labels: BTreeMap::new(),
            network_overrides: Vec::new(),
            deadline: None,
            validate_only: false,
        })
    }

    /// Ends it and its VMs.
    pub(crate) async fn end(self) {
        self.manager.shut_down(true).await;
    }
}

/// A memory provider with its instances and names on `home`.
///
/// # Errors
/// When its directories cannot be made.
pub(crate) fn memory(home: &Home) -> Result<Arc<dyn VmRuntime>, Box<dyn Error>> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let backend = MemoryBackend::new(Arc::clone(&env));
    let paths = Paths { state: home.state(), runtime: home.runtime() };
    Ok(Arc::new(Engine::open("it", backend, env, paths)?.0))
}
