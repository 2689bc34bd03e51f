//! Beside the nearest peer in Rust, `microvm-warm-pool`: a claim in process, and how many claims find
//! something warm under load. Figures without a budget: the two do not do the same.
//!
//! Theirs is a claim as its README has it: `acquire`, then a VM of the tenant's own is made from the
//! handle's snapshot, on its in-memory provider, which keeps a map. It writes no journal, renames
//! nothing, and has no lease, no request id and no limit on tenants: what was claimed is the caller's to
//! keep, to find again and to end. Ours does all of these, with instances and names in a file system.
//! So the first figure says what they cost, and not who is quicker at the same.
//!
//! The second gives both the same restores of [`RESTORE`] and the same evenly spaced claims on a pool of
//! [`DEPTH`], and counts those that found nothing warm. Theirs refills on a timer, one VM after another,
//! and is measured with the period of its README and with the shortest that is of use.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hearth_benches::budget::{Figure, Measured};
use hearth_providers::env::SystemEnv;
use hearth_providers::faulty::{Call, Fault, Faulty, When};
use hearth_providers::readiness::Readiness;
use microvm_runtime::error::VmRuntimeResult;
use microvm_runtime::model::{SnapshotRef, VmSpec, VmView};
use microvm_runtime::{InMemoryVmProvider, VmProvider, VmQuery};
use microvm_warm_pool::{EntryValidator, StackKey, ValidationResult, WarmPool, WarmPoolConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::Shown;
use crate::inside::{Inside, Setting, memory};
use crate::operator::until;
use crate::rig::Home;
use crate::turns::compare;

const BLOCKS: usize = 40;
const PER_BLOCK: usize = 100;
/// Warm VMs of the pools under load.
const DEPTH: usize = 4;
/// What a restore takes there.
const RESTORE: Duration = Duration::from_millis(5);
/// From one claim to the next: 100 in a second.
const BETWEEN: Duration = Duration::from_millis(10);
const CLAIMS: usize = 1_000;
/// How often theirs looks what is missing: as in its README, and the shortest that is of use.
const PERIODS: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(1)];

/// Takes the figures.
///
/// # Errors
/// When a pool does not work.
pub(crate) fn measure() -> Result<Shown, Box<dyn Error>> {
    let Measured { ours, theirs, ratio, low, high } = claims()?;
    let value = format!("{ours} against {theirs}: {ratio:.1} [{low:.1}, {high:.1}]");
    let mut figures = vec![Figure::new(
        "claim in process, against microvm-warm-pool's acquire and create",
        value,
    )];
    let load =
        format!("{CLAIMS} claims, one every {BETWEEN:?}, on {DEPTH} warm, restore {RESTORE:?}");
    figures.push(Figure::new(format!("{load}: hearth"), our_hits()?));
    for period in PERIODS {
        let what = format!("{load}: microvm-warm-pool, refill every {period:?}");
        figures.push(Figure::new(what, their_hits(period)?));
    }
    Ok(Shown { rows: Vec::new(), figures })
}

/// The time of a claim; those of ours on the only thread, so that no refill runs meanwhile.
fn claims() -> Result<Measured, Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let home = Home::new()?;
    let setting = Setting {
        provider: memory(&home)?,
        spec: hearth_providers::VmSpec::default(),
        readiness: Readiness::Running,
        restores: (16, 16),
    };
    let inside = runtime.block_on(Inside::start(&home.beside("manager"), setting))?;
    let peer = Peer::start(Duration::ZERO, PER_BLOCK, Duration::from_millis(20));
    let measured = compare(
        BLOCKS,
        |block| runtime.block_on(our_block(&inside, block)),
        |block| {
            until("theirs is full", || Ok(peer.is_full(PER_BLOCK)))?;
            let mut times = Vec::with_capacity(PER_BLOCK);
            for number in 0..PER_BLOCK {
                let tenant = format!("tenant-{block}-{number}");
                let begun = Instant::now();
                let source = peer.claim(&tenant)?.ok_or("theirs was empty")?;
                times.push((begun.elapsed(), source, tenant));
            }
            for (_, source, tenant) in &times {
                peer.end(source, tenant)?;
            }
            Ok(hearth_benches::median(times.into_iter().map(|(took, ..)| took).collect()))
        },
    )?;
    runtime.block_on(inside.end());
    Ok(measured)
}

async fn our_block(inside: &Inside, block: usize) -> Result<Duration, Box<dyn Error>> {
    inside.fill(PER_BLOCK).await?;
    let mut times = Vec::with_capacity(PER_BLOCK);
    let mut claimed = Vec::with_capacity(PER_BLOCK);
    for number in 0..PER_BLOCK {
        let request = inside.request(&format!("tenant-{block}-{number}"))?;
        let begun = Instant::now();
        claimed.extend(inside.manager.acquire(request).await?);
        times.push(begun.elapsed());
    }
    for acquired in claimed {
        inside.manager.release(&acquired.lease.held().vm_id, None, None).await?;
    }
    Ok(hearth_benches::median(times))
}

fn our_hits() -> Result<String, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let home = Home::new()?;
    let (provider, script) = Faulty::new(memory(&home)?, Arc::new(SystemEnv));
    let setting = Setting {
        provider: Arc::new(provider),
        spec: hearth_providers::VmSpec::default(),
        readiness: Readiness::Running,
        restores: (16, 16),
    };
    let inside = runtime.block_on(Inside::start(&home.beside("manager"), setting))?;
    script.add(Call::Restore, When::Always, Fault::Delay(RESTORE));
    runtime.block_on(inside.fill(DEPTH))?;
    let hits = evenly(|number| {
        runtime.block_on(async {
            let Ok(acquired) =
                inside.manager.acquire(inside.request(&format!("claim-{number}"))?).await
            else {
                return Ok(false);
            };
            let vm_id = acquired.ok_or("nothing was claimed")?.lease.held().vm_id;
            inside.manager.release(&vm_id, None, None).await?;
            Ok(true)
        })
    })?;
    script.clear();
    runtime.block_on(inside.end());
    Ok(hits)
}

fn their_hits(period: Duration) -> Result<String, Box<dyn Error>> {
    let peer = Peer::start(RESTORE, DEPTH, period);
    until("theirs is full", || Ok(peer.is_full(DEPTH)))?;
    evenly(|number| {
        let tenant = format!("claim-{number}");
        let Some(source) = peer.claim(&tenant)? else { return Ok(false) };
        peer.end(&source, &tenant)?;
        Ok(true)
    })
}

/// Makes the claims when they are due; says how many were hits.
fn evenly(
    mut claim: impl FnMut(usize) -> Result<bool, Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let begun = Instant::now();
    let mut hits = 0;
    for number in 0..CLAIMS {
        let due = begun + BETWEEN * u32::try_from(number)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        hits += usize::from(claim(number)?);
    }
    Ok(format!("{hits} hits, {} misses", CLAIMS - hits))
}

/// Their pool, on their provider.
struct Peer {
    pool: WarmPool<Slow>,
    provider: Slow,
    stack: StackKey,
}

impl Peer {
    fn start(restore: Duration, depth: usize, period: Duration) -> Self {
        let provider = Slow { inner: InMemoryVmProvider::default(), restore };
        let config = WarmPoolConfig {
            min_depth: depth,
            max_depth: depth,
            refill_interval: period,
            entry_max_age: Duration::from_secs(3600),
        };
        let pool = WarmPool::start(provider.clone(), config, Arc::new(AllWell));
        let stack = StackKey {
            stack_name: "default".to_owned(),
            version: "1".to_owned(),
            vcpu_count: 1,
            mem_size_mib: 128,
        };
        let snapshot = SnapshotRef {
            vm_id: "template".to_owned(),
            snapshot_id: "ready".to_owned(),
            resume_immediately: true,
            network_overrides: Vec::new(),
        };
        pool.register(stack.clone(), snapshot);
        Self { pool, provider, stack }
    }

    fn is_full(&self, depth: usize) -> bool {
        let metrics = self.pool.metrics();
        let gone = metrics.acquired_total + metrics.evicted_total;
        metrics.created_total.saturating_sub(gone) >= depth as u64
    }

    /// Claims as the README has it; answers the name of what was warm, if anything was.
    fn claim(&self, tenant: &str) -> Result<Option<String>, Box<dyn Error>> {
        let Some(handle) = self.pool.acquire(&self.stack) else { return Ok(None) };
        let restore_from = Some(handle.source_snapshot);
        let spec = VmSpec { restore_from, ..VmSpec::default() };
        self.provider.create_vm_with_spec(tenant, &spec)?;
        Ok(Some(handle.source_vm_id))
    }

    /// Ends the tenant's VM, and the one that was warm.
    fn end(&self, source: &str, tenant: &str) -> Result<(), Box<dyn Error>> {
        self.provider.destroy_vm(tenant)?;
        Ok(self.provider.destroy_vm(source)?)
    }
}

struct AllWell;

impl EntryValidator for AllWell {
    fn validate(&self, _: &str) -> ValidationResult {
        ValidationResult::Healthy
    }
}

/// Their in-memory provider, whose restores take a while.
#[derive(Clone)]
struct Slow {
    inner: InMemoryVmProvider,
    restore: Duration,
}

impl VmProvider for Slow {
    fn create_vm(&self, vm_id: &str) -> VmRuntimeResult<()> {
        self.inner.create_vm(vm_id)
    }

    fn create_vm_with_spec(&self, vm_id: &str, spec: &VmSpec) -> VmRuntimeResult<()> {
        if !self.restore.is_zero() {
            std::thread::sleep(self.restore);
        }
        self.inner.create_vm_with_spec(vm_id, spec)
    }

    fn start_vm(&self, vm_id: &str) -> VmRuntimeResult<()> {
        self.inner.start_vm(vm_id)
    }

    fn stop_vm(&self, vm_id: &str) -> VmRuntimeResult<()> {
        self.inner.stop_vm(vm_id)
    }

    fn snapshot_vm(&self, vm_id: &str, snapshot_id: &str) -> VmRuntimeResult<()> {
        self.inner.snapshot_vm(vm_id, snapshot_id)
    }

    fn destroy_vm(&self, vm_id: &str) -> VmRuntimeResult<()> {
        self.inner.destroy_vm(vm_id)
    }
}

impl VmQuery for Slow {
    fn list_vms(&self) -> VmRuntimeResult<Vec<VmView>> {
        self.inner.list_vms()
    }

    fn get_vm(&self, vm_id: &str) -> VmRuntimeResult<Option<VmView>> {
        self.inner.get_vm(vm_id)
    }

    fn list_snapshots(&self, vm_id: &str) -> VmRuntimeResult<Option<Vec<String>>> {
        self.inner.list_snapshots(vm_id)
    }
}
