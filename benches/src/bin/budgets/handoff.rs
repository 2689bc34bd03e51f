//! In process: a warm acquire against its bare parts, a journal append and a `renameat2`.
//!
//! Both write the same journal record and rename links in the same directory; the acquire adds
//! everything else that a handoff is: request id, name, books, lease, metrics.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_benches::budget::{Bound, Measured, Row};
use hearth_benches::{Ratio, median};
use hearth_pool::acquire::AcquireRequest;
use hearth_pool::config::Limits;
use hearth_pool::env::{Env, SystemEnv};
use hearth_pool::ids::{PoolId, TemplateId, Tenant};
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::{Journal, LeaseRecord};
use hearth_pool::manager::Manager;
use hearth_pool::pool::{Overflow, PoolConfig, Provider, Sizing};
use hearth_pool::tasks::TaskGroup;
use hearth_pool::templates::Template;
use hearth_providers::directory::Paths;
use hearth_providers::engine::Engine;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::{VmId, VmSpec};
use tokio::time::Instant;

use crate::Shown;
use crate::rig::Home;

const BLOCKS: usize = 40;
const PER_BLOCK: usize = 200;

const BUDGET: (&str, Bound) = ("in process: warm acquire", Bound::AtMost(1.5));

/// Measures the budget of the handoff.
///
/// # Errors
/// When a directory or the pool cannot be made, or an acquire fails.
pub(crate) fn measure() -> Result<Shown, Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(blocks())
}

async fn blocks() -> Result<Shown, Box<dyn Error>> {
    let home = Home::new()?;
    let node = start(&home.state(), &home.runtime()).await?;
    let bare = Bare::new(&home.beside("bare"), &home.runtime().with_file_name("bare"))?;
    let (mut pairs, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // The first block of each warms the caches and is not counted.
    for block in 0..=BLOCKS {
        let acquires = acquire_block(&node, block).await?;
        let appends = bare.block(&acquires.records)?;
        if block > 0 {
            pairs.push((acquires.time, appends));
            ours.push(acquires.time);
            theirs.push(appends);
        }
    }
    node.shut_down(true).await;
    let say = |times| format!("{:.1?}", median(times));
    let measured = Measured::new(say(ours), say(theirs), Ratio::of(&pairs));
    let (what, bound) = BUDGET;
    Ok(Shown { rows: vec![Row::measured(what, bound, measured)], figures: Vec::new() })
}

struct Block {
    time: Duration,
    records: Vec<LeaseRecord>,
}

/// Acquires a block of warm VMs one after another, then gives them back, unmeasured. Nothing of
/// the refill runs meanwhile: a warm acquire never yields to the only thread.
async fn acquire_block(node: &Arc<Manager>, block: usize) -> Result<Block, Box<dyn Error>> {
    settle(node).await;
    let mut times = Vec::with_capacity(PER_BLOCK);
    let mut leases = Vec::with_capacity(PER_BLOCK);
    for number in 0..PER_BLOCK {
        let request = request(&format!("bench-{block}-{number}"))?;
        let begun = Instant::now();
        let acquired = node.acquire(request).await?;
        times.push(begun.elapsed());
        leases.extend(acquired.map(|it| it.lease));
    }
    let boot_id = SystemEnv.boot_id().into();
    let state = hearth_pool::journal::RecordState::Leased;
    let records = leases.iter().map(|lease| lease.record(state, &boot_id)).collect();
    for lease in leases {
        node.release(&lease.held().vm_id, None, None).await?;
    }
    Ok(Block { time: median(times), records })
}

/// A journal and a directory of links, and nothing around them.
struct Bare {
    journal: Journal,
    names: std::path::PathBuf,
}

impl Bare {
    fn new(dir: &Path, names: &Path) -> Result<Self, Box<dyn Error>> {
        let names = names.to_owned();
        std::fs::create_dir_all(&names)?;
        std::fs::create_dir_all(dir)?;
        let journal = Journal::open(&dir.join("journal"), &SystemEnv)?;
        Ok(Self { journal, names })
    }

    fn block(&self, records: &[LeaseRecord]) -> Result<Duration, Box<dyn Error>> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let mut times = Vec::with_capacity(records.len());
        for record in records {
            let (from, to) =
                (self.names.join(record.uid.to_string()), self.names.join(record.vm_id.as_str()));
            std::os::unix::fs::symlink("/", &from)?;
            let begun = Instant::now();
            self.journal.write_lease(record)?;
            renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)?;
            times.push(begun.elapsed());
            std::fs::remove_file(&to)?;
        }
        Ok(median(times))
    }
}

async fn start(dir: &Path, runtime: &Path) -> Result<Arc<Manager>, Box<dyn Error>> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let paths = Paths { state: dir.join("state"), runtime: runtime.to_owned() };
    let backend = MemoryBackend::new(Arc::clone(&env));
    let (engine, _) = Engine::open("memory", backend, Arc::clone(&env), paths)?;
    let (name, kind) = ("memory".into(), "memory".to_owned());
    let provider = Arc::new(Provider { name, kind, runtime: Arc::new(engine) });
    let (tasks, limits) = (TaskGroup::new(), Limits::default());
    let jobs = Jobs::on_threads(tasks.clone(), limits.places());
    let journal = Journal::open(&dir.join("journal"), env.as_ref())?;
    let node = Manager::new(env, limits, journal, jobs, tasks, vec![provider]);
    node.start(false).await?;
    let operation = node.create_template(template()?, false).await?;
    node.operations().wait(&operation, Duration::from_secs(60)).await?;
    node.create_pool(pool()?, false).await?;
    Ok(node)
}

/// Waits until the pool is full: set-up, not measurement.
async fn settle(node: &Arc<Manager>) {
    loop {
        let status = node.pools().first().map(|pool| pool.status());
        if status.is_some_and(|it| it.warm == it.target && it.leased == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn request(name: &str) -> Result<AcquireRequest, Box<dyn Error>> {
    Ok(AcquireRequest {
        tenant: Tenant::anonymous(),
        pool: PoolId::parse("default")?,
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

fn template() -> Result<Template, Box<dyn Error>> {
    Ok(Template::new(TemplateId::parse("default")?, "memory", VmSpec::default()))
}

fn pool() -> Result<PoolConfig, Box<dyn Error>> {
    let (id, template) = (PoolId::parse("default")?, TemplateId::parse("default")?);
    Ok(PoolConfig { sizing: Sizing::Fixed { depth: PER_BLOCK }, ..PoolConfig::new(id, template) })
}
