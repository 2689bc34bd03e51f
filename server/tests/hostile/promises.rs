//! What holds whatever the provider does: no VM is given twice, no lease is lost, what lives is
//! warm or leased, and in the end nothing is left.

use std::collections::BTreeSet;

use hearth_pool::ids::ArtifactId;
use hearth_providers::VmStatus;

use crate::Answer;
use crate::faults::Row;
use crate::kinds::Site;
use crate::load::Callers;
use crate::node::{DEPTH, Host, Node, until};

const CALLERS: usize = 3;

/// Runs the scenario with what goes wrong in `row`.
pub(crate) fn hold(site: Site, row: &Row) -> Answer<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let host = Host::new(site);
    let held = runtime.block_on(run(&host, row));
    // Nothing hangs any longer, and threads can end.
    host.faults.clear();
    let live: Vec<_> = host.live().into_iter().map(|vm| (vm.vm_id, vm.uid, vm.status)).collect();
    drop(runtime);
    held.map_err(|error| format!("{error}; there are {live:?}").into())
}

async fn run(host: &Host, row: &Row) -> Answer<()> {
    let mut node = host.start().await?;
    node.furnish(&host.site).await?;
    settle(host, &node, 0).await?;
    row.begin(&host.faults);
    let callers = Callers::default();
    let load = (0..CALLERS).map(|caller| {
        let (manager, rounds) = (std::sync::Arc::clone(&node.manager), host.site.rounds);
        let callers = callers.clone();
        async move { callers.call(manager, caller, rounds).await }
    });
    futures_util::future::join_all(load).await;
    host.faults.clear();
    callers.make_up(&node.manager).await?;
    if row.is_found_at_a_start {
        node.crash().await?;
        node = host.start().await?;
    }
    let (held, artifacts) = {
        let told = callers.told.lock();
        println!("{}: {} acquires, {} failures", row.name, told.answered, told.failed);
        if !told.wrong.is_empty() {
            return Err(format!("{:#?}", told.wrong).into());
        }
        (told.held.clone(), told.artifacts.clone())
    };
    settle(host, &node, held.len()).await?;
    for (uid, vm_id) in &held {
        let info = node.manager.vm(vm_id, None)?;
        let really = host.site.runtime.get_vm(vm_id);
        let is_it = info.view.uid == *uid && really.as_ref().is_some_and(|vm| vm.uid == *uid);
        if !is_it || info.view.status != VmStatus::Running {
            return Err(format!("{vm_id} is to be {uid}: {info:?}, and really {really:?}").into());
        }
    }
    end(host, &node, &callers, &artifacts).await?;
    node.crash().await
}

/// Gives everything back and takes everything away: nothing is left.
async fn end(host: &Host, node: &Node, callers: &Callers, told: &[ArtifactId]) -> Answer<()> {
    let held = callers.told.lock().held.clone();
    for (uid, vm_id) in held {
        node.manager.release(&vm_id, Some(uid), None).await?;
    }
    settle(host, node, 0).await?;
    let artifacts = node.manager.artifacts(None);
    let there: BTreeSet<_> = artifacts.iter().map(|it| it.id.clone()).collect();
    if let Some(lost) = told.iter().find(|id| !there.contains(*id)) {
        return Err(format!("the artifact {lost} is lost").into());
    }
    for id in there {
        node.manager.delete_artifact(&id, None, None).await?;
    }
    node.unfurnish().await?;
    until("no VM is left", || host.live().is_empty()).await?;
    let left = || host.site.runtime.all_snapshots();
    until("no snapshot is left", || left().is_empty()).await.map_err(|error| {
        let left = left();
        format!("{error}: {left:#?}").into()
    })
}

/// Waits until what lives is what is warm and `leased`.
async fn settle(host: &Host, node: &Node, leased: usize) -> Answer<()> {
    let pool = node.pool()?;
    let settled = until("what lives is warm or leased", || {
        let status = pool.status();
        let is_full = (status.warm, status.restoring, status.leased) == (DEPTH, 0, leased);
        is_full && host.live().len() == DEPTH + leased
    });
    settled.await.map_err(|error| format!("{error}: {:?}", pool.status()).into())
}
