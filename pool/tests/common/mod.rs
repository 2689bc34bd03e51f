//! A node of its own for each test: memory provider behind a script of faults, virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part of it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::acquire::{AcquireRequest, Acquired};
use hearth_pool::config::Limits;
use hearth_pool::env::{Env, VirtualEnv};
use hearth_pool::error::{Error, Result};
use hearth_pool::ids::{PoolId, RequestId, TemplateId, Tenant};
use hearth_pool::jobs::{Class, Jobs, Latency, Places};
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::operations::Outcome;
use hearth_pool::pool::{PoolConfig, Provider, Sizing};
use hearth_pool::tasks::TaskGroup;
use hearth_pool::templates::Template;
use hearth_providers::faulty::{Faulty, FaultyControl};
use hearth_providers::memory::MemoryBackend;
use hearth_providers::{VmId, VmRuntime, VmSpec};

/// How long the simulated provider takes for anything.
pub const LATENCY: Duration = Duration::from_millis(30);

/// What outlives a restart of hearth: the state directory, and the VMs.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub env: Arc<VirtualEnv>,
    pub provider: Arc<Provider>,
    pub faults: FaultyControl,
}

/// One life of hearth on a host.
pub struct Node {
    pub manager: Arc<Manager>,
    pub tasks: TaskGroup,
}

impl std::ops::Deref for Node {
    type Target = Arc<Manager>;
    fn deref(&self) -> &Arc<Manager> {
        &self.manager
    }
}

impl Host {
    pub fn new(seed: u64) -> Self {
        let env = Arc::new(VirtualEnv::new(seed));
        let memory = Arc::new(MemoryBackend::provider("memory", Arc::clone(&env) as Arc<dyn Env>));
        let (faulty, faults) = Faulty::new(memory, Arc::clone(&env) as Arc<dyn Env>);
        let runtime: Arc<dyn VmRuntime> = Arc::new(faulty);
        let (name, kind) = ("memory".into(), "memory".to_owned());
        let provider = Arc::new(Provider { name, kind, runtime });
        Self { dir: tempfile::tempdir().unwrap(), env, provider, faults }
    }

    /// A life of hearth that has not begun to serve.
    pub fn open(&self) -> Node {
        self.open_in(Arc::clone(&self.env) as Arc<dyn Env>)
    }

    /// The same, in another world than the one before it.
    pub fn open_in(&self, env: Arc<dyn Env>) -> Node {
        self.make(env, Limits::default(), Arc::new(|_| LATENCY))
    }

    /// The same, with other limits, and jobs that take as long as `latency` says.
    pub fn open_with(
        &self,
        limits: Limits,
        latency: impl Fn(Class) -> Duration + Send + Sync + 'static,
    ) -> Node {
        self.make(Arc::clone(&self.env) as Arc<dyn Env>, limits, Arc::new(latency))
    }

    /// A life whose jobs run on threads, in real time.
    #[allow(dead_code, reason = "not every test has threads")]
    pub fn open_on_threads(&self, limits: Limits) -> Node {
        let tasks = TaskGroup::new();
        let jobs = Jobs::on_threads(tasks.clone(), limits.places());
        self.make_with(Arc::clone(&self.env) as Arc<dyn Env>, limits, tasks, jobs)
    }

    fn make(&self, env: Arc<dyn Env>, limits: Limits, latency: Latency) -> Node {
        let tasks = TaskGroup::new();
        let places = Places { restore: 64, ..limits.places() };
        let jobs = Jobs::simulated(tasks.clone(), places, latency);
        self.make_with(env, limits, tasks, jobs)
    }

    fn make_with(&self, env: Arc<dyn Env>, limits: Limits, tasks: TaskGroup, jobs: Jobs) -> Node {
        let journal = Journal::open(&self.dir.path().join("journal"), &*env).unwrap();
        let providers = vec![Arc::clone(&self.provider)];
        let manager = Manager::new(env, limits, journal, jobs, tasks.clone(), providers);
        Node { manager, tasks }
    }

    /// A life of hearth that serves what the one before it had.
    pub async fn start(&self) -> Node {
        let node = self.open();
        node.start(false).await.unwrap();
        node
    }

    /// A serving life with the template and the pool `default` of this depth, filled.
    pub async fn with_pool(&self, depth: usize) -> Node {
        let node = self.start().await;
        node.build_template("default").await;
        node.create_pool(pool("default", depth), false).await.unwrap();
        node.settle("default").await;
        node
    }

    /// VMs that the provider has.
    pub fn live(&self) -> usize {
        self.provider.runtime.list_vms().len()
    }
}

impl Node {
    pub async fn build_template(&self, id: &str) {
        let operation = self.create_template(template(id), false).await.unwrap();
        let ended = self.operations().wait(&operation, Duration::from_secs(60)).await.unwrap();
        assert!(matches!(ended.outcome, Some(Outcome::Done)), "{ended:?}");
    }

    /// Builds the next generation.
    pub async fn rebuild(&self, id: &str) {
        let operation = self.create_template(template(id), true).await.unwrap();
        let ended = self.operations().wait(&operation, Duration::from_secs(60)).await.unwrap();
        assert!(matches!(ended.outcome, Some(Outcome::Done)), "{ended:?}");
    }

    pub fn pool_of(&self, id: &str) -> Arc<hearth_pool::pool::Pool> {
        self.pool(&PoolId::parse(id).unwrap()).unwrap()
    }

    /// Waits until nothing is under way and the pool is as deep as it should be.
    pub async fn settle(&self, id: &str) {
        let pool = self.pool_of(id);
        self.until("the pool is full", || {
            let status = pool.status();
            status.warm == status.target && status.restoring == 0
        })
        .await;
    }

    /// Waits, in bounded virtual time, until `done`.
    pub async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..60_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never: {what}");
    }

    pub async fn take(&self, request: AcquireRequest) -> Result<Acquired> {
        self.manager.acquire(request).await.map(|acquired| acquired.expect("not only validated"))
    }

    pub async fn release_named(&self, vm_id: &VmId) -> Result<()> {
        self.manager.release(vm_id, None, None).await
    }

    /// Ends this life as `kill -9` would: nothing is told, nothing is waited for but the lock
    /// on the journal.
    pub async fn crash(self) {
        let Self { manager, tasks } = self;
        tasks.stop();
        let gone = Arc::downgrade(&manager);
        drop(manager);
        for _ in 0..10_000 {
            if gone.strong_count() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("something still holds the manager");
    }
}

pub fn id(text: &str) -> VmId {
    VmId::parse(text).unwrap()
}

pub fn request() -> AcquireRequest {
    AcquireRequest {
        tenant: Tenant::anonymous(),
        pool: PoolId::parse("default").unwrap(),
        vm_id: None,
        request_id: None,
        expiration: None,
        overflow: None,
        labels: BTreeMap::new(),
        network_overrides: Vec::new(),
        deadline: None,
        validate_only: false,
    }
}

pub fn named(name: &str) -> AcquireRequest {
    AcquireRequest { vm_id: Some(id(name)), ..request() }
}

pub fn identified(request_id: &str) -> AcquireRequest {
    AcquireRequest { request_id: Some(RequestId::new(request_id)), ..request() }
}

pub fn template(id: &str) -> Template {
    let id = TemplateId::parse(id).unwrap();
    let warm_up = vec!["name template".to_owned()];
    Template { warm_up, ..Template::new(id, "memory", VmSpec::default()) }
}

pub fn pool(id: &str, depth: usize) -> PoolConfig {
    let (id, template) = (PoolId::parse(id).unwrap(), TemplateId::parse("default").unwrap());
    PoolConfig { sizing: Sizing::Fixed { depth }, ..PoolConfig::new(id, template) }
}

/// The reason of an error, for comparing.
pub fn reason<T: std::fmt::Debug>(done: Result<T, Error>) -> &'static str {
    done.unwrap_err().reason()
}
