//! How many are warm: as many as the promise needs, and as were announced.

use hearth_pool::jobs::Class;
use hearth_pool::pool::{PoolConfig, Sizing};
use hearth_pool::sizing::Bound;

use super::*;

async fn promised(host: &Host, min: usize, max: usize) -> Node {
    let node = host.start().await;
    node.build_template("default").await;
    let sizing = Sizing::Promised { miss_ratio: 0.001, min, max };
    node.create_pool(PoolConfig { sizing, ..pool("default", 0) }, false).await.unwrap();
    node.settle("default").await;
    node
}

/// Claims `per_second` for `seconds`, each given back at once; answers how many were warm.
async fn claim(node: &Node, per_second: u64, seconds: u64) -> u64 {
    let mut warm = 0;
    for _ in 0..per_second * seconds {
        let got = node.take(request()).await.unwrap();
        warm += u64::from(got.lease.source == hearth_pool::journal::Source::Warm);
        node.release_named(&got.lease.held().vm_id).await.unwrap();
        pass(1000 / per_second).await;
    }
    warm
}

#[tokio::test(start_paused = true)]
async fn a_promised_pool_follows_demand_up_and_falls_to_its_minimum() {
    let host = Host::new(1);
    let node = promised(&host, 0, 50).await;
    let pool = node.pool_of("default");
    assert_eq!((pool.status().target, host.live()), (0, 0), "nobody has asked yet");
    claim(&node, 50, 10).await;
    let warm = claim(&node, 50, 20).await;
    assert!(warm >= 995, "{warm} of 1000");
    let plan = pool.planned();
    assert!((2..=20).contains(&plan.target), "{plan:?}");
    assert!((25.0..100.0).contains(&plan.depth.claims_per_second), "{plan:?}");
    // Silence.
    pass(3_600_000).await;
    assert_eq!((pool.status().target, pool.planned().depth.bound), (0, Bound::Min));
    node.until("nothing is left", || host.live() == 0).await;
    // And back.
    claim(&node, 50, 3).await;
    assert!(pool.status().target > 0);
}

#[tokio::test(start_paused = true)]
async fn a_maximum_that_binds_is_said() {
    let host = Host::new(2);
    let node = promised(&host, 1, 2).await;
    claim(&node, 200, 10).await;
    let plan = node.pool_of("default").planned();
    assert_eq!((plan.target, plan.depth.bound), (2, Bound::Max), "{plan:?}");
    assert!(plan.depth.wanted > 2 && plan.depth.predicted_miss_ratio > 0.001, "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_announced_is_there_when_it_is_wanted() {
    let host = Host::new(3);
    let node = promised(&host, 1, 10).await;
    let id = node.pool_of("default").id.clone();
    let ttl = Duration::from_secs(60);
    let announced = node.prewarm_pool(&id, 30, ttl, "request-1").await.unwrap();
    let again = node.prewarm_pool(&id, 30, ttl, "request-1").await.unwrap();
    assert_eq!(announced, again, "the same announcement");
    assert_eq!(node.pool_of("default").planned().depth.bound, Bound::Prewarm);
    node.settle("default").await;
    assert!(host.live() >= 30);
    for _ in 0..30 {
        node.take(warm_only()).await.unwrap();
    }
    pass(61_000).await;
    node.settle("default").await;
    let status = node.pool_of("default").status();
    assert!(status.prewarmed == 0 && status.target <= 10, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_announcement_and_a_drain_outlive_hearth() {
    let host = Host::new(4);
    let node = host.with_pool(1).await;
    let id = node.pool_of("default").id.clone();
    let ttl = Duration::from_secs(600);
    let announced = node.prewarm_pool(&id, 5, ttl, "request-1").await.unwrap();
    let etag = node.pool_of("default").config().etag.clone();
    node.crash().await;

    let node = host.start().await;
    node.settle("default").await;
    assert_eq!(node.pool_of("default").status().warm, 6);
    assert_eq!(node.prewarm_pool(&id, 5, ttl, "request-1").await.unwrap(), announced);
    node.cancel_prewarm(&id, &announced.id).await.unwrap();
    node.cancel_prewarm(&id, &announced.id).await.unwrap();
    node.settle("default").await;
    assert_eq!(node.pool_of("default").status().warm, 1);
    let kept = node.take(request()).await.unwrap();
    node.drain_pool(&id, true).await.unwrap();
    assert_eq!(node.pool_of("default").config().etag, etag, "no setting has changed");
    node.crash().await;

    let node = host.start().await;
    assert_eq!(reason(node.take(request()).await), "pool_draining");
    node.until("only the leased one is left", || host.live() == 1).await;
    assert!(kept.lease.is_live());
    node.drain_pool(&id, false).await.unwrap();
    node.settle("default").await;
    node.take(warm_only()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_is_told_of_a_drain() {
    let host = Host::new(5);
    let slow = |class| if class == Class::Restore { 100 * LATENCY } else { LATENCY };
    let node = host.open_with(hearth_pool::config::Limits::default(), slow);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    node.create_pool(pool("default", 0), false).await.unwrap();
    let waiting = call(&node, request());
    turns(50).await;
    let id = node.pool_of("default").id.clone();
    node.drain_pool(&id, true).await.unwrap();
    assert_eq!(reason(waiting.await.unwrap()), "pool_draining");
    node.until("nothing is left", || host.live() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn announcements_are_bounded() {
    let host = Host::new(6);
    let node = host.with_pool(0).await;
    let id = node.pool_of("default").id.clone();
    let ttl = Duration::from_secs(60);
    let too_many = node.prewarm_pool(&id, 1_000_000, ttl, "").await;
    assert_eq!(reason(too_many), "capacity_exhausted");
    assert_eq!(reason(node.prewarm_pool(&id, 0, ttl, "").await), "invalid_argument");
    assert_eq!(reason(node.prewarm_pool(&id, 1, Duration::ZERO, "").await), "invalid_argument");
    for _ in 0..hearth_pool::announce::MAX_PREWARMS {
        node.prewarm_pool(&id, 1, ttl, "").await.unwrap();
    }
    assert_eq!(reason(node.prewarm_pool(&id, 1, ttl, "").await), "capacity_exhausted");
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_demand_had_led_to() {
    let host = Host::new(7);
    let node = promised(&host, 1, 50).await;
    claim(&node, 100, 20).await;
    node.settle("default").await;
    let before = node.pool_of("default").status().warm;
    assert!(before > 2);
    node.crash().await;

    let node = host.start().await;
    assert_eq!(node.pool_of("default").status().warm, before, "all of them were taken up");
    pass(60_000).await;
    assert_eq!(node.pool_of("default").status().warm, before);
    pass(120_000).await;
    node.settle("default").await;
    assert_eq!(node.pool_of("default").status().warm, 1, "nobody has claimed since");
}
