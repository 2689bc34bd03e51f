//! Providers at their worst: what fails, hangs or dies costs its own pool and nobody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use hearth_pool::acquire::AcquireRequest;
use hearth_pool::config::Limits;
use hearth_pool::env::Env as _;
use hearth_pool::ids::RequestId;
use hearth_pool::jobs::Class;
use hearth_pool::journal::Source;
use hearth_pool::pool::Overflow;
use hearth_pool::verbs::StateVerb;
use hearth_providers::VmStatus;
use hearth_providers::agent::Agent;
use hearth_providers::faulty::{Call, Fault, When};
use tokio::task::JoinSet;

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_every_restore_is_tried_ever_more_rarely() {
    let host = Host::new(1);
    let node = host.with_pool(4).await;
    let before = host.faults.count(Call::Restore);
    let broken = host.faults.add(Call::Restore, When::Always, Fault::Fail("backend"));
    for _ in 0..4 {
        node.take(request()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let tries = host.faults.count(Call::Restore) - before;
    assert!((4..60).contains(&tries), "{tries} tries in ten minutes");
    let status = node.pool_of("default").status();
    assert!(status.breaker_open && !status.reason.is_empty(), "{status:?}");
    // Callers are told at once instead of being kept.
    assert_eq!(reason(node.take(request()).await), "restore_failed");
    host.faults.remove(broken);
    node.settle("default").await;
    assert!(!node.pool_of("default").status().breaker_open);
}

#[tokio::test(start_paused = true)]
async fn those_in_line_are_told_when_the_breaker_opens() {
    let host = Host::new(2);
    let node = host.with_pool(0).await;
    host.faults.add(Call::Restore, When::Always, Fault::Fail("backend"));
    assert_eq!(reason(node.take(request()).await), "restore_failed");
    assert_eq!(host.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_restore_that_fails_in_passing_costs_a_waiter_only_time() {
    let host = Host::new(3);
    let node = host.with_pool(0).await;
    host.faults.add(Call::Restore, When::Next(1), Fault::Fail("unavailable"));
    assert_eq!(node.take(request()).await.unwrap().lease.source, Source::Cold);
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_not_ready_is_never_handed_out_nor_left() {
    let host = Host::new(4);
    let node = host.with_pool(0).await;
    host.faults.add(Call::Probe, When::Next(1), Fault::Fail("timeout"));
    node.take(request()).await.unwrap();
    node.until("only the leased one is left", || host.live() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_handover_that_fails_is_tried_with_another_vm() {
    let host = Host::new(5);
    let node = host.with_pool(4).await;
    host.faults.add(Call::Rename, When::Next(2), Fault::Fail("backend"));
    let got = node.take(named("mine")).await.unwrap();
    assert_eq!(host.provider.runtime.get_vm(&id("mine")).unwrap().uid, got.lease.uid);
    node.settle("default").await;
    node.until("the two are gone", || host.live() == 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_handover_that_always_fails_frees_the_name_and_the_request() {
    let host = Host::new(6);
    let node = host.with_pool(4).await;
    let broken = host.faults.add(Call::Rename, When::Always, Fault::Fail("backend"));
    let asked = AcquireRequest { vm_id: Some(id("mine")), ..identified("r") };
    assert_eq!(reason(node.take(asked.clone()).await), "rename_failed");
    host.faults.remove(broken);
    node.settle("default").await;
    node.until("nothing is left but the warm", || host.live() == 4).await;
    assert!(!node.take(asked).await.unwrap().replayed);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_rename_leaves_nobody_with_two_names() {
    let host = Host::new(7);
    let node = host.with_pool(2).await;
    host.faults.add(Call::Rename, When::Next(1), Fault::LoseAnswer("unavailable"));
    let got = node.take(named("mine")).await.unwrap();
    assert_eq!(host.provider.runtime.get_vm(&id("mine")).unwrap().uid, got.lease.uid);
    node.settle("default").await;
    node.until("the one whose answer was lost is gone", || host.live() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_warm_vm_is_never_handed_out_and_is_replaced() {
    let host = Host::new(8);
    let node = host.with_pool(2).await;
    let dead = host.provider.runtime.list_vms().remove(0);
    power_off(&host, &dead.vm_id);
    let mut taken = HashSet::new();
    for _ in 0..4 {
        taken.insert(node.take(request()).await.unwrap().lease.uid);
    }
    assert!(!taken.contains(&dead.uid));
    node.settle("default").await;
    node.until("the dead one is gone", || host.live() == 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_leased_vm_that_dies_stays_visible_as_failed_until_it_is_released() {
    let host = Host::new(9);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    power_off(&host, &id("mine"));
    let info = node.vm(&id("mine"), None).unwrap();
    assert_eq!(info.view.status, VmStatus::Failed);
    assert!(info.view.failure.unwrap().console_tail.contains("powered itself off"));
    node.settle("default").await;
    node.release_named(&id("mine")).await.unwrap();
    node.until("only the warm one is left", || host.live() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_fails_is_tried_until_it_succeeds() {
    let host = Host::new(10);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    host.faults.add(Call::Destroy, When::Next(5), Fault::Fail("unavailable"));
    node.release_named(&id("mine")).await.unwrap();
    assert_eq!(node.pool_of("default").status().leased, 1, "counted until it is gone");
    node.until("it is gone", || host.live() == 1).await;
    node.until("it is counted", || node.pool_of("default").status().leased == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_dedicated_restore_that_fails_leaves_nothing() {
    let host = Host::new(11);
    let node = host.with_pool(0).await;
    host.faults.add(Call::Probe, When::Next(1), Fault::Fail("timeout"));
    let cold = AcquireRequest { overflow: Some(Overflow::ColdOnly), ..named("mine") };
    assert_eq!(reason(node.take(cold.clone()).await), "restore_failed");
    node.until("nothing is left", || host.live() == 0).await;
    node.take(cold).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broken_pool_starves_no_other() {
    let host = Host::new(12);
    let node = host.with_pool(0).await;
    node.build_template("other").await;
    let other = hearth_pool::ids::TemplateId::parse("other").unwrap();
    let config = hearth_pool::pool::PoolConfig { template: other, ..pool("other", 4) };
    node.create_pool(config, false).await.unwrap();
    node.settle("other").await;
    // The snapshot that the first pool restores from is taken away from under it.
    let template = node.template(&hearth_pool::ids::TemplateId::parse("default").unwrap()).unwrap();
    let snapshot = template.snapshot.as_ref().unwrap();
    host.provider.runtime.unpin_snapshot(snapshot.uid, &template.pin()).unwrap();
    assert_eq!(reason(node.take(request()).await), "restore_failed");
    for _ in 0..20 {
        let pool = hearth_pool::ids::PoolId::parse("other").unwrap();
        node.take(AcquireRequest { pool, ..request() }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_be_built_says_why_and_leaves_nothing() {
    let host = Host::new(13);
    let node = host.start().await;
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    let operation = node.create_template(template("default"), false).await.unwrap();
    let ended = node.operations().wait(&operation, Duration::from_secs(60)).await.unwrap();
    assert!(matches!(ended.outcome, Some(hearth_pool::operations::Outcome::Failed(_))));
    let found = node.templates().remove(0);
    assert!(
        matches!(&found.state, hearth_pool::templates::TemplateState::Failed(why) if !why.is_empty())
    );
    node.create_pool(pool("default", 2), false).await.unwrap();
    assert_eq!(reason(node.take(request()).await), "template_not_ready");
    node.until("nothing is left", || host.live() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_dedicated_restore_in_vain_leaves_its_name_free() {
    let host = Host::new(15);
    let node = host.with_pool(0).await;
    let request = || AcquireRequest {
        request_id: Some(RequestId::new("again")),
        overflow: Some(Overflow::ColdOnly),
        ..named("mine")
    };
    // What is to be destroyed stays for long.
    let stuck = host.faults.add(Call::Destroy, When::Always, Fault::Fail("backend"));
    host.faults.add(Call::Probe, When::Next(1), Fault::Fail("timeout"));
    assert_eq!(reason(node.take(request()).await), "restore_failed");
    assert!(tokio::time::timeout(LATENCY / 2, node.take(request())).await.is_err());
    let got = node.take(request()).await.unwrap();
    assert_eq!(host.provider.runtime.get_vm(&id("mine")).unwrap().uid, got.lease.uid);
    host.faults.remove(stuck);
    node.until("only the leased one is left", || host.live() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_built_too_late_leaves_nothing() {
    let host = Host::new(14);
    let limits = Limits { build_timeout: Duration::from_secs(60), ..Limits::default() };
    let node = host.open_with(limits, |class| match class {
        Class::Build => Duration::from_secs(90),
        _ => LATENCY,
    });
    node.start(false).await.unwrap();
    let operation = node.create_template(template("default"), false).await.unwrap();
    let ended = node.operations().wait(&operation, Duration::from_secs(80)).await.unwrap();
    assert!(matches!(ended.outcome, Some(hearth_pool::operations::Outcome::Failed(_))));
    assert_eq!(host.provider.runtime.all_snapshots().len(), 0, "nothing is made yet");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(host.faults.count(Call::Snapshot), 1, "it was made");
    node.until("no VM is left", || host.live() == 0).await;
    node.until("no snapshot is left", || host.provider.runtime.all_snapshots().is_empty()).await;
}

fn power_off(host: &Host, vm_id: &hearth_providers::VmId) {
    let channel = host.provider.runtime.guest_channel(vm_id).unwrap();
    let patience = Duration::from_secs(5);
    let mut agent = Agent::greet(channel, host.env.uid(), patience).unwrap();
    agent.ask("poweroff", patience).unwrap();
}

/// A node with so many warm VMs, all of whose jobs of `class` hang once that is switched on.
async fn whose_jobs_hang(host: &Host, class: Class, depth: usize) -> (Node, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&hangs);
    let latency = move |of| match of == class && seen.load(Ordering::Relaxed) {
        true => Duration::from_secs(3600),
        false => LATENCY,
    };
    let node = host.open_with(Limits::default(), latency);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    node.create_pool(pool("default", depth), false).await.unwrap();
    node.settle("default").await;
    (node, hangs)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_up_operators_for_a_while_and_tenants_not_at_all() {
    let host = Host::new(40);
    let (node, hangs) = whose_jobs_hang(&host, Class::Journal, 4).await;
    let id = node.pool_of("default").id.clone();
    hangs.store(true, Ordering::Relaxed);
    let update = node.update_pool(&id, "", false, |_| Ok(()));
    let (first, second, taken) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(7200), update),
        node.drain_pool(&id, true),
        node.take(request()),
    );
    assert!(first.unwrap().is_ok(), "it was done in the end");
    assert_eq!(reason(second), "storage", "told, and not kept for an hour");
    node.release_named(&taken.unwrap().lease.held().vm_id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_backend_all_of_whose_calls_hang_holds_up_nothing_that_operators_write() {
    let host = Host::new(41);
    let (node, hangs) = whose_jobs_hang(&host, Class::Verb, 40).await;
    let mut leased = Vec::new();
    for _ in 0..40 {
        leased.push(node.take(request()).await.unwrap().lease);
    }
    hangs.store(true, Ordering::Relaxed);
    // More than there are places for.
    let mut stops = JoinSet::new();
    for lease in leased {
        let (manager, vm_id) = (Arc::clone(&node.manager), lease.held().vm_id);
        stops.spawn(async move { manager.change_state(StateVerb::Stop, &vm_id, None, None).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = node.pool_of("default").id.clone();
    let update = node.update_pool(&id, "", false, |_| Ok(()));
    tokio::time::timeout(Duration::from_secs(5), update).await.unwrap().unwrap();
    assert!(stops.try_join_next().is_none(), "all of them hang");
}
