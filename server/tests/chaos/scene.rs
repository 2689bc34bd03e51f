//! One run: a pool, its clients, and whoever kills; then silence, and a look at what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_proto::v1::{DeletePoolRequest, DeleteTemplateRequest};
use hearth_providers::env::{Env as _, SystemEnv};
use tokio::time::Instant;

use crate::baseline;
use crate::hearth::{Answer, Outcome};
use crate::killer::Killer;
use crate::kind::Made;
use crate::ledger::Ledger;
use crate::node::Node;
use crate::tenant::Tenant;

/// How many VMs the pool keeps warm.
pub(crate) const DEPTH: usize = 3;
const TENANTS: u64 = 3;
/// How long a run kills when nothing else is said, in seconds.
const SECONDS: u64 = 20;
/// How long anything may take before it counts as never. No claim of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait before looking again.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Runs one kind, and prints what came of it.
pub(crate) fn run(name: &str, make: fn() -> Answer<Made>) -> Outcome {
    let seconds = setting("HEARTH_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = setting("HEARTH_CHAOS_SEED").unwrap_or_else(|| SystemEnv.unit().to_bits() >> 32);
    println!("chaos {name}: HEARTH_CHAOS_SEED={seed} for {seconds} s");
    // Both ask something of their own runtimes as they come and go.
    let made = make()?;
    let (host, kind) = (Arc::new(made.host), made.kind);
    let ledger = Arc::new(Ledger::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let killer =
        Killer::new(Arc::clone(&host), Arc::clone(&kind), Arc::clone(&ledger), Node::new(), seed);
    let ran = runtime.block_on(live(killer, seconds, seed));
    if let Err(error) = ran {
        ledger.violation(error.to_string());
    }
    drop(runtime);
    for line in unexpected(&std::fs::read_to_string(host.log()).unwrap_or_default()) {
        ledger.violation(line);
    }
    let (counts, violations) = ledger.outcome();
    let vms = ledger.seen().len();
    println!("chaos {name}: {counts:?}");
    println!(
        "chaos {name}: {vms} VMs, {} VMMs killed, {} hearths killed: {} violations",
        counts.vmms_killed,
        counts.hearths_killed,
        violations.len()
    );
    if violations.is_empty() {
        return Ok(());
    }
    println!("{}", host.log_tail());
    Err(format!("HEARTH_CHAOS_SEED={seed}: {violations:#?}").into())
}

async fn live(mut killer: Killer, seconds: u64, seed: u64) -> Outcome {
    let (host, ledger) = (Arc::clone(&killer.host), Arc::clone(&killer.ledger));
    killer.node.begin(&host, &[]).await?;
    killer.node.ready().await?;
    killer.node.settled(DEPTH).await?;
    killer.kind.begin(&killer.node.state_uuid().await?);
    let stop = AtomicBool::new(false);
    let tenants = (0..TENANTS).map(|number| {
        let (kind, ledger) = (Arc::clone(&killer.kind), Arc::clone(&ledger));
        Tenant::new(number, seed, kind, ledger, killer.node.door()).run(&stop)
    });
    let tenants = futures_util::future::try_join_all(tenants.collect::<Vec<_>>());
    let end = Instant::now() + Duration::from_secs(seconds);
    let killing = async {
        let killed = killer.run(end).await;
        stop.store(true, Ordering::Relaxed);
        killed
    };
    let (killed, served) = tokio::join!(killing, tenants);
    killed?;
    served?;
    killer.known().await?;
    killer.node.settled(DEPTH).await?;
    end_all(&mut killer).await
}

/// Takes everything away, and looks at what is left.
async fn end_all(killer: &mut Killer) -> Outcome {
    let host = Arc::clone(&killer.host);
    // The next life adopts its VMs, and ends them; the one after it begins with none.
    killer.node.terminate()?;
    killer.node.begin(&host, &["--stop-vms"]).await?;
    killer.node.ready().await?;
    killer.node.settled(DEPTH).await?;
    expect_processes(killer, DEPTH).await?;
    killer.node.terminate()?;
    expect_processes(killer, 0).await?;
    killer.node.begin(&host, &[]).await?;
    killer.node.ready().await?;
    killer.node.settled(DEPTH).await?;
    expect_processes(killer, DEPTH).await?;
    let client = killer.node.client()?;
    let name = "pools/default".to_owned();
    client.pools.clone().delete_pool(DeletePoolRequest { name, ..Default::default() }).await?;
    killer.node.settled(0).await?;
    let name = "templates/default".to_owned();
    let template = DeleteTemplateRequest { name, ..Default::default() };
    client.templates.clone().delete_template(template).await?;
    drop(client);
    // What hearth does on its own after a deletion it does while it lives, or at its next start.
    let uids = killer.ledger.seen();
    let (kind, of) = (Arc::clone(&killer.kind), uids.clone());
    until_nothing(move || kind.left(&of)).await?;
    killer.node.terminate()?;
    let kind = Arc::clone(&killer.kind);
    until_nothing(move || baseline::left(&host, &*kind, &uids)).await
}

/// Waits until nothing is left.
async fn until_nothing(left: impl Fn() -> Answer<Vec<String>> + Send + Sync + 'static) -> Outcome {
    let left = Arc::new(left);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let look = Arc::clone(&left);
        let left = beside(move || look()).await?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the host is not as it was before: {left:#?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// There are as many VMs as there should be, and all that are there are noted.
async fn expect_processes(killer: &Killer, count: usize) -> Outcome {
    let (kind, host) = (Arc::clone(&killer.kind), Arc::clone(&killer.host));
    let processes = beside(move || kind.processes(&host)).await?;
    if processes.len() != count {
        let what = format!("there should be {count} VMs, and there are {processes:?}");
        killer.ledger.violation(what);
    }
    killer.ledger.see(processes.into_keys());
    Ok(())
}

/// What hearth should never have logged.
fn unexpected(log: &str) -> Vec<String> {
    let panics = log.lines().filter(|line| line.contains("panicked"));
    panics.map(|line| format!("hearth logged {line}")).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs what blocks, beside what must not.
#[expect(clippy::disallowed_methods, reason = "these are no calls of a pool's provider")]
pub(crate) async fn beside<R: Send + 'static>(
    work: impl FnOnce() -> Answer<R> + Send + 'static,
) -> Answer<R> {
    tokio::task::spawn_blocking(work).await?
}
