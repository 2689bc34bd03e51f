//! From no warm VM to N: a pool that is asked for them, against so many restores by a bare driver.
//!
//! Both run up to [`AT_ONCE`] restores at once, and end when each VM was asked once, over its VMM's
//! socket, whether its guest runs: that is what the pool asks of a VM whose template is ready when it
//! has written a marker, and no VM counts as warm before. The pool's part begins when it knows its new
//! depth: that was written to the disk with an fsync before, which is an operator's change and no part
//! of a refill. Ending the VMs is not measured.
//!
//! Two figures come with it when there is time for them, on the memory provider: a burst of claims on a pool that has as many VMs,
//! and how fast a very deep pool fills when each restore takes a time that a script says.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_benches::budget::{Bound, Figure, Row};
use hearth_providers::env::SystemEnv;
use hearth_providers::faulty::{Call, Fault, Faulty, When};
use hearth_providers::readiness::Readiness;
use hearth_providers::{VmRuntime, VmSpec};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::inside::{Inside, Setting, memory};
use crate::restore::bare::{Driver, Outcome, plain, restore};
use crate::restore::firecracker::Firecracker;
use crate::restore::node::{destroy_all, firecracker, qemu, snapshot_dir};
use crate::restore::qemu::Qemu;
use crate::restore::{firecracker_here, guest, qemu_here};
use crate::rig::Home;
use crate::turns::compare;
use crate::{Extent, Shown};

const BOUND: Bound = Bound::AtMost(1.15);
const BLOCKS: usize = 20;
/// Restores at once, on both sides.
const AT_ONCE: usize = 4;
/// Claims at once, and VMs that wait for them.
const BURST: usize = 1_000;
/// VMs of the very deep pool.
const MANY: usize = 50_000;
/// What a scripted restore takes.
const SCRIPTED: Duration = Duration::from_millis(5);
/// Scripted restores at once; of the node's places one pool alone gets two thirds.
const SCRIPTED_AT_ONCE: usize = 64;

/// Measures the budget of the refill on each kind of VMM that is here, and the figures.
///
/// # Errors
/// When one that is here does not work.
pub(crate) fn measure(extent: Extent) -> Result<Shown, Box<dyn Error>> {
    let depth = if extent.is_full { 16 } else { 8 };
    let what = |kind: &str| format!("0 -> {depth} warm, {kind}");
    let runtime = Runtime::new()?;
    let mut shown = Shown::default();
    let mut add = |kind, made: Result<Side, String>| -> Result<(), Box<dyn Error>> {
        shown.rows.push(match made {
            Ok(side) => row(what(kind), depth, &runtime, side)?,
            Err(why) => Row::not_measured(what(kind), BOUND, why),
        });
        Ok(())
    };
    add("firecracker", firecracker_here().map(Side::Firecracker))?;
    add("qemu", qemu_here().map(|spec| Side::Qemu(Box::new(spec))))?;
    if extent.is_full {
        shown.figures.push(runtime.block_on(burst())?);
        shown.figures.push(runtime.block_on(scripted(MANY))?);
    }
    Ok(shown)
}

/// What is run, with what it needs.
enum Side {
    Firecracker(PathBuf),
    Qemu(Box<VmSpec>),
}

impl Side {
    fn setting(&self, dir: &Path, state: &Path) -> Result<Setting, Box<dyn Error>> {
        let (provider, spec, marker) = match self {
            Self::Firecracker(program) => {
                let kernel = Some(guest::build(dir)?);
                let spec = VmSpec { kernel, ..VmSpec::default() };
                (firecracker(program, state)?, spec, guest::MARKER)
            }
            Self::Qemu(spec) => (qemu(state)?, VmSpec::clone(spec), guest::AGENT_MARKER),
        };
        let readiness = Readiness::ConsoleMarker(marker.to_owned());
        Ok(Setting { provider, spec, readiness, restores: (AT_ONCE, AT_ONCE) })
    }

    fn driver(
        self,
        inside: &Inside,
        provider: &dyn VmRuntime,
        dir: &Path,
        state: &Path,
    ) -> Result<Box<dyn Driver>, Box<dyn Error>> {
        let files = snapshot_dir(provider, state)?;
        match self {
            Self::Firecracker(program) => Ok(Box::new(Firecracker { program, snapshot: files })),
            Self::Qemu(_) => {
                let snapshot = inside.pool.template().snapshot.clone();
                let snapshot = snapshot.ok_or("the template has no snapshot")?.reference(false);
                let (instances, keep) = (state.join("instances"), dir.join("kept"));
                let learned = Qemu::learn(provider, &instances, &snapshot, &files, &keep);
                Ok(Box::new(learned.map_err(plain)?))
            }
        }
    }
}

fn row(what: String, depth: usize, runtime: &Runtime, side: Side) -> Result<Row, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let setting = side.setting(dir.path(), &state)?;
    let provider = Ended(Arc::clone(&setting.provider));
    let inside = runtime.block_on(Inside::start(dir.path(), setting))?;
    let bare = side.driver(&inside, provider.0.as_ref(), dir.path(), &state)?;
    let measured = compare(
        BLOCKS,
        |_| {
            runtime.block_on(async {
                let took = inside.fill(depth).await?;
                inside.empty().await?;
                Ok(took)
            })
        },
        |_| fill(bare.as_ref(), dir.path(), depth).map_err(plain),
    );
    runtime.block_on(inside.end());
    Ok(Row::measured(what, BOUND, measured?))
}

/// A provider whose VMs end with this.
struct Ended(Arc<dyn VmRuntime>);

impl Drop for Ended {
    fn drop(&mut self) {
        destroy_all(self.0.as_ref());
    }
}

/// Restores `count` VMs on so many threads as there may be restores at once, and asks each how it is.
fn fill(driver: &dyn Driver, dir: &Path, count: usize) -> Outcome<Duration> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    let work = || -> Outcome {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let restored = restore(driver, dir.join(format!("bare-{number}")))?;
            driver.ask(restored.dir())?;
            all.lock().push(restored);
        }
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| "a thread has panicked")?)
    })?;
    Ok(begun.elapsed())
}

/// As many claims at once as VMs are warm: how many got one, and how long they took.
async fn burst() -> Result<Figure, Box<dyn Error>> {
    let home = Home::new()?;
    let setting = scriptless(memory(&home)?);
    let inside = Inside::start(&home.beside("manager"), setting).await?;
    inside.fill(BURST).await?;
    let requests: Result<Vec<_>, _> =
        (0..BURST).map(|number| inside.request(&format!("burst-{number}"))).collect();
    let begun = Instant::now();
    let mut claims = JoinSet::new();
    for request in requests? {
        let manager = Arc::clone(&inside.manager);
        claims.spawn(async move { manager.acquire(request).await.map(|_| begun.elapsed()) });
    }
    let answers = claims.join_all().await;
    let mut times: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    let value = format!(
        "{} of {BURST} warm; from the first call to the answer p50 {:.1?}, p99 {:.1?}, last {:.1?}",
        times.len(),
        at(0.5).unwrap_or_default(),
        at(0.99).unwrap_or_default(),
        times.last().copied().unwrap_or_default(),
    );
    inside.end().await;
    Ok(Figure::new(format!("burst of {BURST} claims on a pool of {BURST}, in process"), value))
}

/// A pool of `depth` VMs each of whose restores takes [`SCRIPTED`].
async fn scripted(depth: usize) -> Result<Figure, Box<dyn Error>> {
    let home = Home::new()?;
    let (provider, script) = Faulty::new(memory(&home)?, Arc::new(SystemEnv));
    let setting = Setting {
        restores: (SCRIPTED_AT_ONCE * 3 / 2, SCRIPTED_AT_ONCE),
        ..scriptless(Arc::new(provider))
    };
    let inside = Inside::start(&home.beside("manager"), setting).await?;
    script.add(Call::Restore, When::Always, Fault::Delay(SCRIPTED));
    let took = inside.fill(depth).await?;
    script.clear();
    let least = SCRIPTED * u32::try_from(depth.div_ceil(SCRIPTED_AT_ONCE))?;
    let value = format!(
        "{took:.2?}, {:.0}/s; {least:.2?} is the least, with {SCRIPTED_AT_ONCE} restores at once of {SCRIPTED:?}",
        depth as f64 / took.as_secs_f64()
    );
    inside.end().await;
    Ok(Figure::new(format!("0 -> {depth} warm, memory provider"), value))
}

fn scriptless(provider: Arc<dyn VmRuntime>) -> Setting {
    let (spec, readiness) = (VmSpec::default(), Readiness::Running);
    Setting { provider, spec, readiness, restores: (16, 16) }
}
