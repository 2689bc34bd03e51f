//! The handoff: warm, cold, in line, by several at once, and with callers that leave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::acquire::{AcquireRequest, Expiration};
use hearth_pool::env::Env as _;
use hearth_pool::ids::Tenant;
use hearth_pool::journal::Source;
use hearth_pool::pool::{Overflow, WarmState};
use hearth_providers::VmStatus;
use hearth_providers::faulty::Call;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_warm_vm_is_handed_out_by_renaming_it() {
    let host = Host::new(1);
    let node = host.with_pool(4).await;
    let restores = host.faults.count(Call::Restore);
    let got = node.take(named("mine")).await.unwrap();
    assert_eq!(got.lease.source, Source::Warm);
    assert_eq!(host.faults.count(Call::Restore), restores, "the warm path restores nothing");
    let view = host.provider.runtime.get_vm(&id("mine")).unwrap();
    assert_eq!((view.uid, view.status), (got.lease.uid, VmStatus::Running));
    assert_eq!(node.pool_of("default").status().leased, 1);
    node.settle("default").await;
    assert_eq!(host.live(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_serves_cold() {
    let host = Host::new(2);
    let node = host.with_pool(0).await;
    let got = node.take(request()).await.unwrap();
    assert_eq!(got.lease.source, Source::Cold);
    assert_eq!(got.timing.queue, LATENCY);
    node.settle("default").await;
    assert_eq!(host.live(), 1, "one caller, one restore");
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_costs_no_warm_vm() {
    let host = Host::new(3);
    let node = host.with_pool(4).await;
    node.take(named("mine")).await.unwrap();
    node.settle("default").await;
    let restores = host.faults.count(Call::Restore);
    assert_eq!(reason(node.take(named("mine")).await), "already_exists");
    assert_eq!(node.pool_of("default").status().warm, 4);
    assert_eq!(host.faults.count(Call::Restore), restores);
}

#[tokio::test(start_paused = true)]
async fn no_vm_is_ever_given_to_two_tenants() {
    let host = Host::new(4);
    let node = host.with_pool(50).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let manager = Arc::clone(&node.manager);
        let tenant = Tenant::new(&format!("tenant-{}", number % 7));
        calls.spawn(async move { manager.acquire(AcquireRequest { tenant, ..request() }).await });
    }
    let got = calls.join_all().await;
    let uids: HashSet<_> = got.into_iter().map(|it| it.unwrap().unwrap().lease.uid).collect();
    assert_eq!(uids.len(), 1000);
    node.settle("default").await;
    assert_eq!(host.live(), 1050, "live = warm + leased");
}

#[tokio::test(start_paused = true)]
async fn one_request_id_is_one_vm() {
    let host = Host::new(5);
    for depth in [0, 4] {
        let host = if depth == 0 { &host } else { &Host::new(6) };
        let node = host.with_pool(depth).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let manager = Arc::clone(&node.manager);
            calls.spawn(async move { manager.acquire(identified("r")).await });
        }
        let got: Vec<_> =
            calls.join_all().await.into_iter().map(|it| it.unwrap().unwrap()).collect();
        let uids: HashSet<_> = got.iter().map(|it| it.lease.uid).collect();
        assert_eq!(uids.len(), 1);
        assert_eq!(got.iter().filter(|it| it.replayed).count(), 15);
        node.settle("default").await;
        assert_eq!(host.live(), depth + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_id_stands_for_one_request_and_one_lease() {
    let host = Host::new(7);
    let node = host.with_pool(2).await;
    let got = node.take(identified("r")).await.unwrap();
    let other = AcquireRequest { vm_id: Some(id("other")), ..identified("r") };
    assert_eq!(reason(node.take(other).await), "request_id_reused");
    let tenant = Tenant::new("another");
    let theirs = node.take(AcquireRequest { tenant, ..identified("r") }).await.unwrap();
    assert_ne!(theirs.lease.uid, got.lease.uid, "ids are the tenant's own");
    node.release_named(&got.lease.held().vm_id).await.unwrap();
    assert_eq!(reason(node.take(identified("r")).await), "lease_expired");
}

#[tokio::test(start_paused = true)]
async fn a_failed_acquire_is_not_remembered() {
    let host = Host::new(8);
    let node = host.with_pool(0).await;
    let warm_only = AcquireRequest { overflow: Some(Overflow::WarmOnly), ..identified("r") };
    assert_eq!(reason(node.take(warm_only).await), "pool_empty");
    assert!(!node.take(identified("r")).await.unwrap().replayed);
}

/// The caller leaves at every point at which its call can be left.
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_loses_nothing_and_leaks_nothing() {
    for (seed, depth, warm_state, overflow) in [
        (10, 2, WarmState::Running, Overflow::WarmElseCold),
        (11, 2, WarmState::Paused, Overflow::WarmElseCold),
        (12, 0, WarmState::Running, Overflow::WarmElseCold),
        (13, 2, WarmState::Running, Overflow::ColdOnly),
    ] {
        let host = Host::new(seed);
        let node = host.start().await;
        node.build_template("default").await;
        let config = hearth_pool::pool::PoolConfig { warm_state, ..pool("default", depth) };
        node.create_pool(config, false).await.unwrap();
        node.settle("default").await;
        for patience_ms in 0..70 {
            let patience = Duration::from_millis(patience_ms);
            let asked = AcquireRequest { overflow: Some(overflow), ..request() };
            if let Ok(Ok(got)) = tokio::time::timeout(patience, node.take(asked)).await {
                node.release_named(&got.lease.held().vm_id).await.unwrap();
            }
            let pool = node.pool_of("default");
            node.until("nothing is left but the warm", || {
                let status = pool.status();
                (status.leased, status.waiting) == (0, 0) && host.live() == depth
            })
            .await;
        }
        // With a request id the VM waits for its caller's retry.
        for patience_ms in 0..70 {
            let asked = AcquireRequest {
                overflow: Some(overflow),
                ..identified(&format!("r{patience_ms}"))
            };
            let patience = Duration::from_millis(patience_ms);
            let _ = tokio::time::timeout(patience, node.take(asked.clone())).await;
            let got = node.take(asked).await.unwrap();
            node.settle("default").await;
            assert_eq!(node.pool_of("default").status().leased, 1);
            node.release_named(&got.lease.held().vm_id).await.unwrap();
            node.until("it is gone", || host.live() == depth).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_resumes_at_the_handoff() {
    let host = Host::new(14);
    let node = host.start().await;
    node.build_template("default").await;
    let config =
        hearth_pool::pool::PoolConfig { warm_state: WarmState::Paused, ..pool("default", 2) };
    node.create_pool(config, false).await.unwrap();
    node.settle("default").await;
    let is_paused = |view: &hearth_providers::VmView| view.status == VmStatus::Stopped;
    assert!(host.provider.runtime.list_vms().iter().all(is_paused));
    let got = node.take(named("mine")).await.unwrap();
    assert_eq!(got.lease.source, Source::Warm);
    assert_eq!(host.provider.runtime.status(&id("mine")), Some(VmStatus::Running));
}

#[tokio::test(start_paused = true)]
async fn wait_adds_no_restore_of_its_own() {
    let host = Host::new(15);
    let node = host.with_pool(0).await;
    let soon = Some(Instant::now() + Duration::from_secs(5));
    let wait = AcquireRequest { overflow: Some(Overflow::Wait), deadline: soon, ..request() };
    assert_eq!(reason(node.take(wait).await), "deadline_too_short");
    assert_eq!(host.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_restores_no_more_than_it_needs() {
    let host = Host::new(16);
    let node = host.with_pool(4).await;
    let before = host.faults.count(Call::Restore);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let manager = Arc::clone(&node.manager);
        calls.spawn(async move { manager.acquire(request()).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    node.settle("default").await;
    assert_eq!(host.faults.count(Call::Restore) - before, 500, "one for each that was taken");
}

#[tokio::test(start_paused = true)]
async fn release_frees_the_name_at_once_and_destroys_the_vm() {
    let host = Host::new(17);
    let node = host.with_pool(2).await;
    let got = node.take(named("mine")).await.unwrap();
    let begun = Instant::now();
    let wrong = Some(host.provider.runtime.list_vms()[1].uid);
    assert_eq!(reason(node.release(&id("mine"), wrong, None).await), "uid_mismatch");
    node.release(&id("mine"), Some(got.lease.uid), None).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "the answer does not wait for the destroy");
    node.take(named("mine")).await.unwrap();
    let again = node.release(&id("mine"), Some(got.lease.uid), None).await;
    assert_eq!(reason(again), "uid_mismatch", "a late release does not hit the next holder");
    node.release_named(&id("mine")).await.unwrap();
    node.release_named(&id("mine")).await.unwrap();
    assert_eq!(reason(node.release_named(&id("never")).await), "not_found");
    node.settle("default").await;
    node.until("only the warm are left", || host.live() == 2).await;
    let ended = host.provider.runtime.get_vm_by_uid(got.lease.uid).unwrap();
    assert_eq!(ended.status, VmStatus::Destroyed);
}

#[tokio::test(start_paused = true)]
async fn a_warm_vm_is_nobodys_to_touch() {
    let host = Host::new(18);
    let node = host.with_pool(1).await;
    let warm = host.provider.runtime.list_vms().remove(0).vm_id;
    assert_eq!(reason(node.release_named(&warm).await), "vm_in_pool");
    assert_eq!(reason(node.take(named(warm.as_str())).await), "invalid_argument");
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_time_unless_it_is_renewed() {
    let host = Host::new(19);
    let node = host.with_pool(1).await;
    let short = AcquireRequest {
        expiration: Some(Expiration::After(Duration::from_secs(10))),
        ..named("short")
    };
    node.take(short).await.unwrap();
    let renewed = AcquireRequest {
        expiration: Some(Expiration::After(Duration::from_secs(10))),
        ..named("renewed")
    };
    node.take(renewed).await.unwrap();
    // A step of the wall clock expires nobody.
    host.env.step_wall_clock(Duration::from_secs(100_000));
    tokio::time::sleep(Duration::from_secs(8)).await;
    node.renew(&id("renewed"), None, None, Expiration::After(Duration::from_secs(60)), false)
        .unwrap();
    node.renew(&id("renewed"), None, None, Expiration::After(Duration::from_secs(1)), false)
        .unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(host.provider.runtime.status(&id("short")), None);
    assert_eq!(host.provider.runtime.status(&id("renewed")), Some(VmStatus::Running));
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.until("only the warm one is left", || host.live() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenants_rename_moves_the_lease() {
    let host = Host::new(20);
    let node = host.with_pool(2).await;
    let got = node.take(named("one")).await.unwrap();
    node.take(named("taken")).await.unwrap();
    let to = |new: &str| node.rename_vm(&id("one"), None, None, &id(new));
    assert_eq!(reason(to("taken")), "already_exists");
    assert_eq!(reason(to("warm-x")), "invalid_argument");
    to("two").unwrap();
    assert_eq!(node.lease_of(&id("two"), None, None).unwrap().uid, got.lease.uid);
    assert_eq!(reason(node.lease_of(&id("one"), None, None)), "not_found");
    assert_eq!(host.provider.runtime.get_vm(&id("two")).unwrap().uid, got.lease.uid);
}

#[tokio::test(start_paused = true)]
async fn over_aged_vms_are_replaced_and_never_handed_out() {
    let host = Host::new(21);
    let node = host.start().await;
    node.build_template("default").await;
    let max_warm_age = Some(Duration::from_secs(60));
    let config = hearth_pool::pool::PoolConfig { max_warm_age, ..pool("default", 2) };
    node.create_pool(config, false).await.unwrap();
    node.settle("default").await;
    let first: HashSet<_> = host.provider.runtime.list_vms().iter().map(|vm| vm.uid).collect();
    tokio::time::sleep(Duration::from_secs(61)).await;
    node.settle("default").await;
    let got = node.take(request()).await.unwrap();
    assert!(!first.contains(&got.lease.uid));
}

#[tokio::test(start_paused = true)]
async fn draining_turns_away_and_tells_those_in_line() {
    let host = Host::new(22);
    let node = host.with_pool(0).await;
    let wait = AcquireRequest { overflow: Some(Overflow::Wait), ..request() };
    let manager = Arc::clone(&node.manager);
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { manager.acquire(wait).await });
    node.until("it waits", || node.pool_of("default").status().waiting == 1).await;
    node.drain().await.unwrap();
    assert_eq!(reason(waiting.join_next().await.unwrap().unwrap()), "draining");
    assert_eq!(reason(node.take(request()).await), "draining");
    node.undrain().await.unwrap();
    node.take(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_empties_the_pools_keeps_leases_and_holds_across_a_restart() {
    let host = Host::new(23);
    let node = host.with_pool(3).await;
    node.take(named("mine")).await.unwrap();
    node.drain().await.unwrap();
    node.until("only the lease is left", || host.live() == 1).await;
    node.crash().await;
    let node = host.start().await;
    assert_eq!(reason(node.take(request()).await), "draining");
    assert_eq!(host.provider.runtime.status(&id("mine")), Some(VmStatus::Running));
    node.undrain().await.unwrap();
    node.settle("default").await;
    node.take(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_by_expire_time_is_the_same_request() {
    let host = Host::new(24);
    let node = host.with_pool(1).await;
    let end = host.env.now() + Duration::from_secs(600);
    let asked = AcquireRequest { expiration: Some(Expiration::At(end)), ..identified("r") };
    let got = node.take(asked.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.take(asked).await.unwrap().lease.uid, got.lease.uid);
    let past = Some(Expiration::At(host.env.now() - Duration::from_secs(1)));
    let asked = AcquireRequest { expiration: past, ..request() };
    assert_eq!(reason(node.take(asked).await), "invalid_argument");
}
