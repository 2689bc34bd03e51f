//! What a hearth keeps in memory for each warm VM, each lease, and each request that it remembers.
//!
//! A hearth with the memory provider is brought to a growing number of one of them, and its resident
//! memory is read from the kernel each time; the figure is the slope of the line through these points,
//! so that what the process has anyway is in none. Each kind is counted in a hearth of its own: memory
//! that was freed need not go back to the system, so that counts can only grow.
//!
//! - A warm VM: a pool of that depth. The memory provider's own books of a VM are part of it, and the
//!   VMM of a real one, which is a process beside, is not.
//! - A lease: a VM acquired from a pool that keeps none warm, so the VM is in it, and its request.
//! - A request: acquired and released again, so that what remains is the memory of the request and of
//!   the lease that has ended. They are kept up to `limits.max_remembered_requests`, a million by
//!   default; a process that is to remember fewer needs that many times less.

use std::error::Error;
use std::time::Duration;

use hearth_benches::budget::Figure;
use hearth_proto::HearthClient;
use hearth_proto::v1::AcquireVmRequest;
use hearth_providers::env::{Env as _, SystemEnv};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Shown;
use crate::operator::{PATIENCE, client, metric, until, until_ready};
use crate::rig::{Home, Served};

/// Points of each line.
const STEPS: usize = 4;
/// How many more each has than the one before.
const STEP: usize = 10_000;
/// Calls under way at once.
const AT_ONCE: usize = 32;
const WARM: &str = "hearth_warm_vms{pool=\"default\"}";
const LEASED: &str = "hearth_leased_vms{pool=\"default\"}";

/// Takes the figures.
///
/// # Errors
/// When a hearth does not start or answer, or the kernel does not say what it uses.
pub(crate) fn measure() -> Result<Shown, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let most = STEP * (STEPS - 1);
    let say = |what: &str, points: &[(usize, u64)]| {
        let value = format!("{:.0} bytes, from 0 to {most}", slope(points));
        Figure::new(format!("resident memory for each {what}"), value)
    };
    let figures = vec![
        say("warm VM (memory provider)", &warm()?),
        say("VM with a lease", &leased(&runtime, false)?),
        say("remembered request, its lease ended", &leased(&runtime, true)?),
    ];
    Ok(Shown { rows: Vec::new(), figures })
}

fn warm() -> Result<Vec<(usize, u64)>, Box<dyn Error>> {
    (0..STEPS)
        .map(|number| {
            let depth = number * STEP;
            let home = Home::new()?;
            let hearth = home.serve(&configuration(depth))?;
            until_ready(&hearth)?;
            until("the pool is full", || Ok(metric(&hearth, WARM).is_ok_and(|it| is(it, depth))))?;
            Ok((depth, resident_bytes(&hearth)?))
        })
        .collect()
}

/// Leases that are kept, or `are_released` as soon as they are there.
fn leased(runtime: &Runtime, are_released: bool) -> Result<Vec<(usize, u64)>, Box<dyn Error>> {
    let home = Home::new()?;
    let hearth = home.serve(&configuration(0))?;
    until_ready(&hearth)?;
    let client = runtime.block_on(client(&hearth))?;
    // Before a restore was measured there is room for one who waits for it.
    runtime.block_on(claim(&client, 1, true))?;
    // What the first calls bring along is not theirs.
    runtime.block_on(claim(&client, AT_ONCE * 4, true))?;
    let mut points = Vec::with_capacity(STEPS);
    for number in 0..STEPS {
        if number > 0 {
            runtime.block_on(claim(&client, STEP, are_released))?;
        }
        let expected = if are_released { 0 } else { number * STEP };
        until("all leases are there", || {
            Ok(metric(&hearth, LEASED).is_ok_and(|it| is(it, expected)))
        })?;
        points.push((number * STEP, resident_bytes(&hearth)?));
    }
    Ok(points)
}

fn is(metric: f64, count: usize) -> bool {
    metric == count as f64
}

/// Acquires so many VMs, some at once, and gives them back where `are_released`.
async fn claim(
    client: &HearthClient,
    count: usize,
    are_released: bool,
) -> Result<(), Box<dyn Error>> {
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let client = client.clone();
        // The first ones take what does not divide evenly.
        let share = count / AT_ONCE + usize::from(worker < count % AT_ONCE);
        workers.spawn(async move {
            for _ in 0..share {
                let request = AcquireVmRequest {
                    pool: "pools/default".to_owned(),
                    request_id: SystemEnv.uid().to_string(),
                    ..AcquireVmRequest::default()
                };
                let vm = client.acquire(request, PATIENCE).await?.vm.unwrap_or_default();
                if are_released {
                    client.release(&vm).await?;
                }
            }
            Ok::<_, tonic::Status>(())
        });
    }
    for done in workers.join_all().await {
        done?;
    }
    Ok(())
}

/// A pool of the memory provider whose leases do not end meanwhile, nor its VMs grow old.
fn configuration(depth: usize) -> String {
    let day = humantime::format_duration(Duration::from_secs(24 * 3600));
    format!(
        "[providers.memory]\nkind = \"memory\"\n[default_pool]\ndepth = {depth}\n\
         default_ttl = \"{day}\"\nmax_ttl = \"{day}\"\n"
    )
}

/// What the kernel has of the process's memory in RAM.
fn resident_bytes(hearth: &Served) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", hearth.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line.ok_or("no resident memory")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Of the line with the least squares through the points.
fn slope(points: &[(usize, u64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| *x as f64).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| *y as f64).sum::<f64>() / count;
    let both = points.iter().map(|(x, y)| (*x as f64 - mean_x) * (*y as f64 - mean_y));
    let square = points.iter().map(|(x, _)| (*x as f64 - mean_x).powi(2));
    both.sum::<f64>() / square.sum::<f64>()
}
