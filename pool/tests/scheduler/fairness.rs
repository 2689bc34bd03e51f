//! Tenants share what is scarce by weight, have what is kept for them, and no more than they may.

use std::collections::{BTreeMap, HashMap};

use hearth_pool::bucket::Rate;
use hearth_pool::config::Limits;
use hearth_pool::ids::PoolId;
use hearth_pool::tenants::{TenantSettings, TenantsSettings};

use super::*;

async fn node_with(host: &Host, tenants: &[(&str, TenantSettings)], depth: usize) -> Node {
    let named = tenants.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
    let tenants = TenantsSettings { named, ..TenantsSettings::default() };
    let node = host.open_with(Limits { tenants, ..Limits::default() }, |_| LATENCY);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    node.create_pool(pool("default", depth), false).await.unwrap();
    node.settle("default").await;
    node
}

fn weight(weight: u32) -> TenantSettings {
    TenantSettings { weight, ..TenantSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_scarce_pool_is_shared_by_weight() {
    let host = Host::new(1);
    let tenants = [("a", weight(1)), ("b", weight(2)), ("c", weight(7))];
    let node = node_with(&host, &tenants, 0).await;
    node.take(of("a")).await.unwrap();
    // Each keeps twenty callers in line for as long as it takes to serve 1,000.
    let mut calls = Vec::new();
    for (name, _) in &tenants {
        calls.extend((0..20).map(|_| (*name, call(&node, of(name)))));
    }
    let mut served = HashMap::<&str, usize>::new();
    while served.values().sum::<usize>() < 1000 {
        pass(1).await;
        for (name, waiting) in &mut calls {
            if waiting.is_finished() {
                std::mem::replace(waiting, call(&node, of(name))).await.unwrap().unwrap();
                *served.entry(name).or_default() += 1;
            }
        }
    }
    let all: usize = served.values().sum();
    for (name, share) in [("a", 0.1), ("b", 0.2), ("c", 0.7)] {
        let got = served[name] as f64 / all as f64;
        assert!((got - share).abs() <= 0.05 * share, "{name} got {got} of {all}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_greedy_tenant_costs_another_one_turn() {
    let host = Host::new(2);
    let node = node_with(&host, &[], 0).await;
    node.take(of("greedy")).await.unwrap();
    let greedy: Vec<_> = (0..400).map(|_| call(&node, of("greedy"))).collect();
    pass(200).await;
    let begun = tokio::time::Instant::now();
    node.take(of("modest")).await.unwrap();
    assert!(begun.elapsed() <= 3 * LATENCY, "{:?}", begun.elapsed());
    assert!(greedy.iter().any(|call| !call.is_finished()), "the others still wait");
}

#[tokio::test(start_paused = true)]
async fn warm_vms_that_are_kept_for_a_tenant_are_there_for_it() {
    let host = Host::new(3);
    let floors = BTreeMap::from([(PoolId::parse("default").unwrap(), 2)]);
    let kept = TenantSettings { warm_floors: floors, ..TenantSettings::default() };
    let node = node_with(&host, &[("kept", kept)], 6).await;
    let only = |tenant| AcquireRequest { overflow: Some(Overflow::WarmOnly), ..of(tenant) };
    for _ in 0..4 {
        node.take(only("other")).await.unwrap();
    }
    assert_eq!(reason(node.take(only("other")).await), "pool_empty");
    node.take(only("kept")).await.unwrap();
    node.take(only("kept")).await.unwrap();
    // Who has nothing kept waits, and gets one.
    node.take(of("other")).await.unwrap();
    node.settle("default").await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_for_every_way_to_a_vm_and_across_a_crash() {
    let host = Host::new(4);
    let quota = TenantSettings { max_vms: Some(2), ..TenantSettings::default() };
    let node = node_with(&host, &[("a", quota.clone())], 4).await;
    let first = node.take(of("a")).await.unwrap();
    let mine = AcquireRequest { overflow: Some(Overflow::ColdOnly), ..of("a") };
    node.take(mine.clone()).await.unwrap();
    for request in [of("a"), mine] {
        assert_eq!(reason(node.take(request).await), "quota_exceeded");
    }
    node.take(of("b")).await.unwrap();
    node.crash().await;

    let named = BTreeMap::from([("a".to_owned(), quota)]);
    let tenants = TenantsSettings { named, ..TenantsSettings::default() };
    let node = host.open_with(Limits { tenants, ..Limits::default() }, |_| LATENCY);
    node.start(false).await.unwrap();
    assert_eq!(reason(node.take(of("a")).await), "quota_exceeded");
    node.release_named(&first.lease.held().vm_id).await.unwrap();
    node.take(of("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_acquire_costs_no_quota() {
    let host = Host::new(5);
    let quota = TenantSettings { max_vms: Some(1), ..TenantSettings::default() };
    let node = node_with(&host, &[("a", quota)], 0).await;
    let only = AcquireRequest { overflow: Some(Overflow::WarmOnly), ..of("a") };
    for _ in 0..3 {
        assert_eq!(reason(node.take(only.clone()).await), "pool_empty");
    }
    let leaver = call(&node, of("a"));
    pass(1).await;
    leaver.abort();
    pass(1).await;
    node.take(of("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_says_when_the_next_is_let_through() {
    let host = Host::new(6);
    let acquire_rate = Some(Rate { per_second: 2.0, burst: 3 });
    let limited = TenantSettings { acquire_rate, ..TenantSettings::default() };
    let node = node_with(&host, &[("a", limited)], 8).await;
    for _ in 0..3 {
        node.take(of("a")).await.unwrap();
    }
    let refused = node.take(of("a")).await.unwrap_err();
    let hearth_pool::error::Error::RateLimited { retry_after, .. } = refused else {
        panic!("{refused}")
    };
    node.take(of("b")).await.unwrap();
    tokio::time::sleep(retry_after).await;
    node.take(of("a")).await.unwrap();
}
