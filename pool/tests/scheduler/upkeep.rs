//! What waits is looked after: none too old, none that has stopped answering.

use hearth_pool::budget::Budget;
use hearth_pool::config::Limits;
use hearth_pool::env::Env as _;
use hearth_pool::pool::{PoolConfig, WarmState};
use hearth_providers::agent::Agent;
use hearth_providers::faulty::{Call, Fault, When};

use super::*;

#[tokio::test(start_paused = true)]
async fn those_of_one_age_do_not_all_go_at_once() {
    let host = Host::new(1);
    let node = host.start().await;
    node.build_template("default").await;
    let max_warm_age = Some(Duration::from_secs(60));
    node.create_pool(PoolConfig { max_warm_age, ..pool("default", 20) }, false).await.unwrap();
    node.settle("default").await;
    let first: Vec<_> = host.provider.runtime.list_vms().iter().map(|vm| vm.uid).collect();
    let (pool, mut fewest) = (node.pool_of("default"), usize::MAX);
    for _ in 0..7_000 {
        pass(10).await;
        fewest = fewest.min(pool.status().warm);
    }
    assert!(fewest >= 15, "only {fewest} of 20 were warm at once");
    let now: Vec<_> = host.provider.runtime.list_vms().iter().map(|vm| vm.uid).collect();
    assert!(first.iter().all(|uid| !now.contains(uid)), "none is older than a minute");
}

#[tokio::test(start_paused = true)]
async fn one_that_stopped_answering_while_it_waited_is_replaced() {
    let host = Host::new(2);
    let node = host.with_pool(3).await;
    let vms = host.provider.runtime.list_vms();
    host.faults.add_for(&vms[1].vm_id, Call::Probe, When::Always, Fault::Fail("timeout"));
    let is_there = || host.provider.runtime.list_vms().iter().any(|vm| vm.uid == vms[1].uid);
    assert!(is_there());
    for _ in 0..65 {
        pass(1000).await;
    }
    assert!(!is_there(), "a probe has found it out");
    node.settle("default").await;
    assert_eq!(host.live(), 3);
    assert!(
        host.provider.runtime.list_vms().iter().any(|vm| vm.uid == vms[0].uid),
        "the others stay"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_never_keeps_a_vm_from_its_claimer() {
    let host = Host::new(3);
    let node = host.with_pool(2).await;
    // Both are being probed.
    pass(30_000).await;
    for _ in 0..40 {
        let status = node.pool_of("default").status();
        assert_eq!(status.warm, 2);
        pass(1).await;
    }
    node.take(warm_only()).await.unwrap();
    node.take(warm_only()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_vm_is_warmed_up_before_it_waits() {
    let host = Host::new(4);
    let node = host.start().await;
    node.build_template("default").await;
    let warm_up = vec!["name warmed".to_owned()];
    node.create_pool(PoolConfig { warm_up, ..pool("default", 2) }, false).await.unwrap();
    node.settle("default").await;
    for vm in host.provider.runtime.list_vms() {
        let patience = Duration::from_secs(1);
        let channel = host.provider.runtime.guest_channel(&vm.vm_id).unwrap();
        let mut agent = Agent::greet(channel, host.env.uid(), patience).unwrap();
        let pong = agent.ping(patience).unwrap();
        assert_eq!(pong.name.as_deref(), Some("warmed"));
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_read_in_before_a_vm_waits_and_only_where_that_is_wished() {
    for warm_state in [WarmState::Running, WarmState::Paused] {
        let host = Host::new(5);
        let node = host.start().await;
        node.build_template("default").await;
        node.create_pool(pool("plain", 2), false).await.unwrap();
        node.settle("plain").await;
        assert_eq!(host.faults.count(Call::Prefault), 0);
        let config = PoolConfig { prefault: true, warm_state, ..pool("default", 3) };
        node.create_pool(config, false).await.unwrap();
        node.settle("default").await;
        assert_eq!(host.faults.count(Call::Prefault), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_that_cannot_be_read_in_costs_no_vm_unless_the_vm_is_gone() {
    let host = Host::new(6);
    let node = host.start().await;
    node.build_template("default").await;
    let before = host.faults.count(Call::Restore);
    let fails = host.faults.add(Call::Prefault, When::Always, Fault::Fail("backend"));
    let config = PoolConfig { prefault: true, ..pool("default", 2) };
    node.create_pool(config, false).await.unwrap();
    node.settle("default").await;
    assert_eq!(host.faults.count(Call::Restore) - before, 2, "none was made again");
    host.faults.remove(fails);
    host.faults.add(Call::Prefault, When::Next(1), Fault::Fail("unavailable"));
    node.take(warm_only()).await.unwrap();
    pass(10_000).await;
    node.settle("default").await;
    assert_eq!(
        host.faults.count(Call::Restore) - before,
        4,
        "one for the caller's, one for the one gone"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_wait_for_memory_to_be_read_in() {
    let host = Host::new(7);
    let node = host.start().await;
    node.build_template("default").await;
    // Nothing is warm, and every restore is somebody's.
    node.create_pool(PoolConfig { prefault: true, ..pool("default", 0) }, false).await.unwrap();
    let before = host.faults.count(Call::Restore);
    for _ in 0..3 {
        node.take(request()).await.unwrap();
    }
    assert_eq!(host.faults.count(Call::Restore) - before, 3);
    assert_eq!(host.faults.count(Call::Prefault), 0);
}

/// Beside claims that leave enough nothing is restored for a moment, if restores are quick.
#[tokio::test(start_paused = true)]
async fn what_was_taken_of_a_quick_backend_is_replaced_a_moment_later_and_at_once_where_little_is_left()
 {
    for max_vms in [None, Some(20)] {
        let host = Host::new(1);
        let limits =
            Limits { budget: Budget { max_vms, ..Budget::default() }, ..Limits::default() };
        let node = host.open_with(limits, |_| Duration::from_millis(1));
        node.start(false).await.unwrap();
        node.build_template("default").await;
        node.create_pool(pool("default", 4), false).await.unwrap();
        let restoring = || node.pool_of("default").status().restoring;
        for (claims, is_refilled_at_once) in [(1, false), (3, true)] {
            node.settle("default").await;
            pass(100).await;
            for _ in 0..claims {
                node.take(warm_only()).await.unwrap();
            }
            turns(50).await;
            assert_eq!(restoring() > 0, is_refilled_at_once, "{claims} of {max_vms:?}");
        }
        node.settle("default").await;
    }
}
