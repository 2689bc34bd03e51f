//! A pool manager on a provider behind a script of faults, one life after another.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::config::Limits;
use hearth_pool::ids::{PoolId, TemplateId};
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::operations::Outcome;
use hearth_pool::pool::{Pool, PoolConfig, Provider, Sizing};
use hearth_pool::tasks::TaskGroup;
use hearth_pool::templates::Template;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::faulty::{Faulty, FaultyControl};
use hearth_providers::{VmRuntime, VmStatus, VmView};

use crate::Answer;
use crate::kinds::Site;

/// How many VMs the pool keeps warm.
pub(crate) const DEPTH: usize = 2;
/// How long anything may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const POLL: Duration = Duration::from_millis(10);
const NAME: &str = "default";

/// What outlives a life.
pub(crate) struct Host {
    pub(crate) site: Site,
    pub(crate) faults: FaultyControl,
    provider: Arc<Provider>,
}

/// One life.
pub(crate) struct Node {
    pub(crate) manager: Arc<Manager>,
    tasks: TaskGroup,
}

impl Host {
    pub(crate) fn new(site: Site) -> Self {
        let (faulty, faults) = Faulty::new(Arc::clone(&site.runtime), Arc::new(SystemEnv));
        let runtime: Arc<dyn VmRuntime> = Arc::new(faulty);
        let (name, kind) = ("hostile".into(), "hostile".to_owned());
        Self { site, faults, provider: Arc::new(Provider { name, kind, runtime }) }
    }

    /// A life that serves.
    pub(crate) async fn start(&self) -> Answer<Node> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let tasks = TaskGroup::new();
        let limit = self.site.limit;
        let limits = Limits {
            restore_timeout: limit,
            probe_timeout: limit / 2,
            verb_timeout: limit,
            freeze_timeout: limit,
            max_wait: limit,
            ..Limits::default()
        };
        let jobs = Jobs::on_threads(tasks.clone(), limits.places());
        let journal = Journal::open(&self.site.dir.path().join("journal"), env.as_ref())?;
        let providers = vec![Arc::clone(&self.provider)];
        let manager = Manager::new(env, limits, journal, jobs, tasks.clone(), providers);
        manager.start(false).await?;
        Ok(Node { manager, tasks })
    }

    /// The VMs that there really are.
    pub(crate) fn live(&self) -> Vec<VmView> {
        let mut all = self.site.runtime.list_vms();
        all.retain(|vm| vm.status != VmStatus::Destroyed);
        all
    }
}

impl Node {
    /// Builds a template and makes a pool of it.
    pub(crate) async fn furnish(&self, site: &Site) -> Answer<()> {
        let id = TemplateId::parse(NAME)?;
        let new = Template::new(id.clone(), "hostile", site.spec.clone());
        let template = Template { readiness: site.readiness.clone(), ..new };
        let operation = self.manager.create_template(template, false).await?;
        let built = self.manager.operations().wait(&operation, PATIENCE).await?;
        if !matches!(built.outcome, Some(Outcome::Done)) {
            return Err(format!("no template: {built:?}").into());
        }
        let config = PoolConfig::new(pool_id(), id);
        let config = PoolConfig { sizing: Sizing::Fixed { depth: DEPTH }, ..config };
        self.manager.create_pool(config, false).await?;
        Ok(())
    }

    pub(crate) fn pool(&self) -> Answer<Arc<Pool>> {
        Ok(self.manager.pool(&pool_id())?)
    }

    /// Takes the pool and the template away.
    pub(crate) async fn unfurnish(&self) -> Answer<()> {
        self.manager.delete_pool(&pool_id(), "", false).await?;
        self.manager.delete_template(&TemplateId::parse(NAME)?, "").await?;
        Ok(())
    }

    /// Ends it as `kill -9` would, but for the lock on the journal.
    pub(crate) async fn crash(self) -> Answer<()> {
        self.tasks.stop();
        let gone = Arc::downgrade(&self.manager);
        drop(self);
        until("nothing holds the manager", || gone.strong_count() == 0).await
    }
}

pub(crate) fn pool_id() -> PoolId {
    PoolId::parse(NAME).expect("it is an id")
}

/// Waits, bounded, until `done`.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) -> Answer<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("never: {what}").into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
