//! What all pools share of the node: its budget, and how fast restores may begin.

use hearth_pool::bucket::Rate;
use hearth_pool::budget::Budget;
use hearth_pool::config::Limits;
use hearth_pool::ids::PoolId;
use hearth_pool::pool::{PoolConfig, Sizing};
use hearth_pool::sizing::Bound;

use super::*;

async fn node_with(host: &Host, limits: Limits) -> Node {
    let node = host.open_with(limits, |_| LATENCY);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    node
}

fn vms(max_vms: u64) -> Limits {
    let budget = Budget { max_vms: Some(max_vms), ..Budget::default() };
    Limits { budget, ..Limits::default() }
}

fn from(id: &str) -> AcquireRequest {
    AcquireRequest { pool: PoolId::parse(id).unwrap(), ..request() }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_and_never_passed() {
    let host = Host::new(1);
    let node = node_with(&host, vms(12)).await;
    node.create_pool(pool("default", 10), false).await.unwrap();
    let urgent = PoolConfig { priority: 1, ..pool("urgent", 6) };
    node.create_pool(urgent, false).await.unwrap();
    let (low, high) = (node.pool_of("default"), node.pool_of("urgent"));
    let mut most = 0;
    node.until("both have their share", || {
        most = most.max(host.live());
        (low.status().warm, high.status().warm) == (6, 6)
    })
    .await;
    assert_eq!(low.planned().depth.bound, Bound::Budget);
    assert_eq!(high.planned().depth.bound, Bound::Fixed);
    // What tenants take is the others' to do without.
    for _ in 0..6 {
        node.take(from("urgent")).await.unwrap();
    }
    node.until("the other gave way", || (low.status().warm, high.status().warm) == (0, 6)).await;
    for _ in 0..6 {
        node.take(from("urgent")).await.unwrap();
    }
    pass(1000).await;
    for request in
        [from("default"), AcquireRequest { overflow: Some(Overflow::ColdOnly), ..request() }]
    {
        assert_eq!(reason(node.take(request).await), "capacity_exhausted");
    }
    assert_eq!(host.live(), 12);
    let vm_id = node.vms(None)[0].view.vm_id.clone();
    node.release_named(&vm_id).await.unwrap();
    pass(1000).await;
    node.take(from("default")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vm_of_its_own_makes_warm_ones_give_way() {
    let host = Host::new(2);
    let node = node_with(&host, vms(4)).await;
    node.create_pool(pool("default", 4), false).await.unwrap();
    node.settle("default").await;
    let own = AcquireRequest { overflow: Some(Overflow::ColdOnly), ..request() };
    node.take(own).await.unwrap();
    node.until("there are four again", || host.live() == 4).await;
    assert_eq!(node.pool_of("default").status().warm, 3);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_is_kept_where_others_want_more() {
    let host = Host::new(3);
    let node = node_with(&host, vms(10)).await;
    let sizing = Sizing::Promised { miss_ratio: 0.01, min: 3, max: 5 };
    node.create_pool(PoolConfig { sizing, ..pool("default", 0) }, false).await.unwrap();
    let greedy = PoolConfig { priority: 9, ..pool("greedy", 50) };
    node.create_pool(greedy, false).await.unwrap();
    let (kept, greedy) = (node.pool_of("default"), node.pool_of("greedy"));
    node.until("each has its own", || (kept.status().warm, greedy.status().warm) == (3, 7)).await;
}

#[tokio::test(start_paused = true)]
async fn restores_begin_no_faster_than_they_may() {
    let host = Host::new(4);
    let restore_rate = Some(Rate { per_second: 5.0, burst: 2 });
    let node = node_with(&host, Limits { restore_rate, ..Limits::default() }).await;
    let begun = tokio::time::Instant::now();
    node.create_pool(pool("default", 22), false).await.unwrap();
    node.settle("default").await;
    let took = begun.elapsed().as_secs_f64();
    assert!((3.9..5.5).contains(&took), "{took} s for twenty after the first two");
}
