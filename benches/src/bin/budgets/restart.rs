//! How long a start takes that finds much: QEMUs, and processes that stand in for QEMUs.
//!
//! A hearth that has them all leased, but for four that are warm, is killed and started again, several
//! times. The time runs from the start of the process until `/readyz` says yes, so it has everything:
//! the program's start, the journal, each VM's process taken up (which asks its monitor), leases rolled
//! forward, and the probes of the warm ones, which the budget would allow beside it. The port is open
//! once all processes are taken up; what comes after that is shown apart.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use hearth_benches::budget::{Bound, Measured, Row};
use hearth_benches::{Ratio, median};
use hearth_proto::v1::AcquireVmRequest;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_providers::env::{Env as _, SystemEnv};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::operator::{PATIENCE, client, metric, until, until_ready};
use crate::restore::qemu_here;
use crate::rig::{Home, Served};
use crate::stand_in::plant;
use crate::{Extent, Shown};

const BUDGET: (&str, Bound) =
    ("restart with 1,000 stand-ins and 50 QEMUs, until SERVING", Bound::AtMost(1.0));
/// What a restart may take.
const ALLOWED: Duration = Duration::from_secs(1);
/// Processes that stand in for QEMUs.
const STAND_INS: usize = 1_000;
/// Real ones.
const QEMUS: usize = 50;
/// Those of them that are warm, and so probed.
const WARM: usize = 4;
/// Restarts.
const TIMES: usize = 9;
const HALF_A_DAY_S: i64 = 12 * 3600;

/// Measures the budget of a restart, when there is time for all of it.
///
/// # Errors
/// When a hearth does not start, or does not find again what it left.
pub(crate) fn measure(extent: Extent) -> Result<Shown, Box<dyn Error>> {
    let (what, bound) = BUDGET;
    let row = match (extent.is_full, qemu_here()) {
        (false, _) => Row::not_measured(what, bound, "only with --full"),
        (true, Err(why)) => Row::not_measured(what, bound, why),
        (true, Ok(spec)) => {
            let kernel = spec.kernel.ok_or("no kernel")?;
            let guest = kernel.parent().ok_or("a kernel without a directory")?;
            Row::measured(what, bound, judged(&restarts(guest)?))
        }
    };
    Ok(Shown { rows: vec![row], figures: Vec::new() })
}

fn judged(restarts: &[Restart]) -> Measured {
    let of = |part: fn(&Restart) -> Duration| median(restarts.iter().map(part).collect());
    let (serving, reachable) = (of(|it| it.serving), of(|it| it.reachable));
    let said = format!(
        "{serving:.2?}, of which {:.0?} after the port was open, with the probes of {WARM} warm VMs",
        serving.saturating_sub(reachable)
    );
    let share = |it: &Restart| it.serving.as_secs_f64() / ALLOWED.as_secs_f64();
    let mut shares: Vec<_> = restarts.iter().map(share).collect();
    shares.sort_by(f64::total_cmp);
    // So few: the median is between the second and the last but one with 96 %.
    let (low, high) = (shares[1], shares[TIMES - 2]);
    let ratio = Ratio { median: shares[TIMES / 2], low, high };
    Measured::new(said, format!("{ALLOWED:?}"), ratio)
}

/// One start, from that of the process.
struct Restart {
    /// Until it could be reached.
    reachable: Duration,
    /// Until it took calls.
    serving: Duration,
}

fn restarts(guest: &Path) -> Result<Vec<Restart>, Box<dyn Error>> {
    let home = Home::new()?;
    let _ended = Leftovers(&home);
    let configuration = format!(
        "guest = {guest:?}\n[providers.qemu]\nkind = \"qemu\"\n[default_pool]\ndepth = {WARM}\n"
    );
    let mut hearth = home.serve(&configuration)?;
    let model = Runtime::new()?.block_on(claim(&hearth, QEMUS - WARM))?;
    let leased = "hearth_leased_vms{pool=\"default\"}";
    until("the pool is full again", || is_full(&hearth))?;
    hearth.kill()?;
    let _planted = plant(&home.state(), &home.runtime(), &model, STAND_INS)?;
    let mut restarts = Vec::with_capacity(TIMES);
    // The first one finds the stand-ins' directories cold, and is not counted.
    for number in 0..=TIMES {
        let begun = Instant::now();
        hearth = home.serve(&configuration)?;
        let reachable = begun.elapsed();
        until_ready(&hearth)?;
        let serving = begun.elapsed();
        restarts.extend((number > 0).then_some(Restart { reachable, serving }));
        let (found, expected) = (metric(&hearth, leased)?, STAND_INS + QEMUS - WARM);
        if found != expected as f64 {
            return Err(format!("{found} VMs are leased, not {expected}").into());
        }
        until("the pool is full again", || is_full(&hearth))?;
        eprint!(".");
        if number < TIMES {
            hearth.kill()?;
        }
    }
    eprintln!();
    // Before those that stand in: it would wonder who has ended them.
    drop(hearth);
    Ok(restarts)
}

fn is_full(hearth: &Served) -> Result<bool, Box<dyn Error>> {
    // There is no such series before there is a pool.
    Ok(metric(hearth, "hearth_warm_vms{pool=\"default\"}").is_ok_and(|it| it as usize == WARM))
}

/// Takes so many VMs for long; answers the uid of one.
async fn claim(hearth: &Served, count: usize) -> Result<String, Box<dyn Error>> {
    until("the pool is full", || is_full(hearth))?;
    let client = client(hearth).await?;
    let mut model = None;
    for number in 0..count {
        let ttl = prost_types::Duration { seconds: HALF_A_DAY_S, nanos: 0 };
        let request = AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id: format!("vm-{number}"),
            request_id: SystemEnv.uid().to_string(),
            expiration: Some(Expiration::Ttl(ttl)),
            ..AcquireVmRequest::default()
        };
        model = client.acquire(request, PATIENCE).await?.vm;
    }
    Ok(model.ok_or("no VM was acquired")?.uid)
}

/// Processes of instances on a home; dropped, none is left, whatever happened.
struct Leftovers<'a>(&'a Home);

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        let Ok(instances) = self.0.state().join("instances").canonicalize() else { return };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in processes {
            let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
            let works_there = std::fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|dir| dir.starts_with(&instances));
            if let Some(pid) = pid.and_then(Pid::from_raw).filter(|_| works_there) {
                // One that has ended already is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
