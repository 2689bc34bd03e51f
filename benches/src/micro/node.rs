//! A whole node in this process, and acquires of it: request id, quota, books, journal, rename,
//! lease and metrics.
//!
//! Its acquires are polled once, within its runtime: on a pool that has something warm none of them
//! waits, so nothing else of the node runs meanwhile on the only thread. Provider calls are run inline
//! between them, so that there is no other thread at all. All files are in memory where there is a
//! file system for that.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hearth_pool::acquire::{AcquireRequest, Acquired};
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
use hearth_providers::{VmId, VmRuntime, VmSpec};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::{Fixture, Meter, Result, metrics};

/// How many are acquired before they are given back.
const AT_ONCE: usize = 200;
/// Restores at once: they run inline, and wait for one tick of the clock each.
const RESTORES: usize = 512;
/// How long a node may take to be full.
const FULL_WITHIN: Duration = Duration::from_secs(600);

/// Where names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// In memory.
    InMemory,
    /// Links in a directory.
    OnDisk,
}

/// How large a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many pools.
    pub pools: usize,
    /// How many VMs are warm in each.
    pub depth: usize,
}

/// A node whose pools are full.
pub struct Node {
    runtime: Runtime,
    manager: Arc<Manager>,
    pools: Vec<Arc<Pool>>,
    at_once: usize,
    /// Numbers the names of VMs, and says whose turn it is.
    next: usize,
    _dir: TempDir,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("pools", &self.pools.len()).finish_non_exhaustive()
    }
}

/// A directory that is removed when it is dropped; in memory where there is a file system for that.
///
/// # Errors
/// It cannot be made.
pub fn temporary() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

impl Node {
    /// Starts a node and waits until its pools are full. Blocks, for seconds where there are many VMs.
    ///
    /// # Errors
    /// It cannot be started, or does not become full.
    pub fn start(size: Size, names: Names) -> Result<Self> {
        metrics::install()?;
        let dir = temporary()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let manager = runtime.block_on(start(dir.path(), size, names))?;
        let (pools, at_once) = (manager.pools(), AT_ONCE.min(size.pools * size.depth));
        let mut node = Self { runtime, manager, pools, at_once, next: 0, _dir: dir };
        node.fill()?;
        Ok(node)
    }

    /// How many VMs are acquired at most before all are given back.
    pub const fn at_once(&self) -> usize {
        self.at_once
    }

    /// Waits until every pool is full and nothing is destroyed any more.
    fn fill(&mut self) -> Result<()> {
        let all_are_full = async {
            for pool in &self.pools {
                while !is_full(pool) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let in_time = async { tokio::time::timeout(FULL_WITHIN, all_are_full).await };
        self.runtime.block_on(in_time)?;
        Ok(())
    }

    /// Requests for one VM of each pool in turn.
    fn requests(&mut self, count: usize) -> Result<Vec<AcquireRequest>> {
        let from = self.next;
        self.next += count;
        (from..self.next).map(|it| request(&self.pools[it % self.pools.len()].id, it)).collect()
    }
}

impl Fixture for Node {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let count = most.min(self.at_once);
        let mut requests = self.requests(count)?.into_iter();
        let mut acquired = Vec::with_capacity(count);
        let manager = &self.manager;
        self.runtime.block_on(async {
            meter
                .measure(&mut || acquired.extend(requests.by_ref().map(|it| acquire(manager, it))));
            for done in acquired.drain(..) {
                let lease = done?.lease;
                manager.release(&lease.held().vm_id, None, None).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        self.fill()?;
        Ok(count)
    }
}

fn is_full(pool: &Pool) -> bool {
    let status = pool.status();
    status.warm == status.target && status.leased == 0
}

/// An acquire that does not wait.
fn acquire(manager: &Arc<Manager>, request: AcquireRequest) -> Result<Acquired> {
    let future = pin!(manager.acquire(request));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done?.ok_or_else(|| "it was only checked".into()),
        Poll::Pending => Err("a warm acquire waited".into()),
    }
}

async fn start(dir: &Path, size: Size, names: Names) -> Result<Arc<Manager>> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let backend = MemoryBackend::new(Arc::clone(&env));
    let runtime: Arc<dyn VmRuntime> = match names {
        Names::InMemory => Arc::new(Engine::in_memory("memory", backend, Arc::clone(&env))),
        Names::OnDisk => {
            let paths = Paths { state: dir.join("state"), runtime: dir.join("run") };
            Arc::new(Engine::open("memory", backend, Arc::clone(&env), paths)?.0)
        }
    };
    let (name, kind) = ("memory".to_owned(), "memory".to_owned());
    let provider = Arc::new(Provider { name: name.into(), kind, runtime });
    // VMs that have waited for long are not probed: how long they do is the machine's affair.
    let (max_parallel_restores, probe_interval) = (RESTORES, Duration::ZERO);
    let limits = Limits { max_parallel_restores, probe_interval, ..Limits::default() };
    let tasks = TaskGroup::new();
    let jobs = Jobs::simulated(tasks.clone(), limits.places(), Arc::new(|_| Duration::ZERO));
    let journal = Journal::open(&dir.join("journal"), env.as_ref())?;
    let node = Manager::new(env, limits, journal, jobs, tasks, vec![provider]);
    node.start(false).await?;
    let id = TemplateId::parse("default")?;
    let template = Template::new(id.clone(), "memory", VmSpec::default());
    let operation = node.create_template(template, false).await?;
    node.operations().wait(&operation, Duration::from_secs(60)).await?;
    for number in 0..size.pools {
        let pool = PoolId::parse(&format!("pool-{number}"))?;
        let sizing = Sizing::Fixed { depth: size.depth };
        let pool = PoolConfig::new(pool, id.clone());
        let pool = PoolConfig { sizing, max_parallel_restores: RESTORES, ..pool };
        node.create_pool(pool, false).await?;
    }
    Ok(node)
}

/// Of a caller as most are: with a name and a request id of its own.
fn request(pool: &PoolId, number: usize) -> Result<AcquireRequest> {
    Ok(AcquireRequest {
        tenant: Tenant::anonymous(),
        pool: pool.clone(),
        vm_id: Some(VmId::parse(&format!("bench-{number:09}"))?),
        request_id: Some(SystemEnv.uid().to_string().into()),
        expiration: None,
        overflow: Some(Overflow::WarmOnly),
        labels: BTreeMap::from([("job".to_owned(), "nightly".to_owned())]),
        network_overrides: Vec::new(),
        deadline: None,
        validate_only: false,
    })
}
