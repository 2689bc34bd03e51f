//! Nothing is warm: restores are bounded, nobody who had time fails, and who has none is told.

use tokio::time::Instant;

use super::*;

/// The most VMs that the pool restored at once until `done`.
async fn most_restoring(node: &Node, mut done: impl FnMut() -> bool) -> usize {
    let pool = node.pool_of("default");
    let mut most = 0;
    node.until("it is done", || {
        let status = pool.status();
        most = most.max(status.restoring);
        assert!(
            status.warm + status.restoring
                <= status.target + status.waiting + status.restoring.min(8),
            "{status:?}"
        );
        done()
    })
    .await;
    most
}

#[tokio::test(start_paused = true)]
async fn a_thousand_claims_at_once_make_no_vm_too_many() {
    let host = Host::new(1);
    let node = host.with_pool(500).await;
    let before = host.faults.count(hearth_providers::faulty::Call::Restore);
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.extend((0..100).map(|_| call(&node, request())));
        pass(1).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    node.settle("default").await;
    pass(5_000).await;
    assert_eq!(host.live(), 1500, "a thousand that tenants have, and five hundred warm");
    let restores = host.faults.count(hearth_providers::faulty::Call::Restore) - before;
    assert_eq!(restores, 1000, "one for each claim");
}

#[tokio::test(start_paused = true)]
async fn a_claim_begins_a_refill_in_the_same_instant() {
    let host = Host::new(2);
    let node = host.with_pool(4).await;
    let begun = Instant::now();
    node.take(warm_only()).await.unwrap();
    turns(8).await;
    assert_eq!(node.pool_of("default").status().restoring, 1);
    assert_eq!(begun.elapsed(), Duration::ZERO, "no time has passed");
}

#[tokio::test(start_paused = true)]
async fn a_stampede_is_served_with_bounded_restores() {
    let host = Host::new(3);
    let node = host.with_pool(0).await;
    node.take(request()).await.unwrap();
    let calls: Vec<_> = (0..500).map(|_| call(&node, request())).collect();
    let most = most_restoring(&node, || calls.iter().all(JoinHandle::is_finished)).await;
    assert!((2..=8).contains(&most), "{most} at once");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(host.live(), 501);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_in_vain_is_told_at_once_and_when_to_come_back() {
    let host = Host::new(4);
    let node = host.with_pool(0).await;
    node.take(request()).await.unwrap();
    // Long enough for the node to find out how many it bears.
    for _ in 0..10 {
        let calls: Vec<_> = (0..8).map(|_| call(&node, request())).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
    let begun = Instant::now();
    let deadline = Some(begun + Duration::from_millis(600));
    let calls: Vec<_> =
        (0..500).map(|_| call(&node, AcquireRequest { deadline, ..request() })).collect();
    turns(2000).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let (mut refused, mut served, mut late) = (0, 0, 0);
    let calls: Vec<_> = calls.into_iter().map(|call| (call.is_finished(), call)).collect();
    for (is_early, call) in calls {
        match call.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => {
                assert_eq!(error.reason(), "deadline_too_short");
                refused += usize::from(is_early);
                late += usize::from(!is_early);
            }
        }
    }
    assert!(served >= 100, "{served} served: 600 ms are 20 rounds of 8");
    assert!(refused >= 300, "{refused} refused at once");
    // Timers and turns take their time beside the restores, and who comes last feels it.
    assert!(late <= 16, "{late} waited in vain");
}

#[tokio::test(start_paused = true)]
async fn without_a_measurement_only_what_is_on_its_way_is_waited_for() {
    let host = Host::new(5);
    let node = host.with_pool(0).await;
    let calls: Vec<_> = (0..100).map(|_| call(&node, request())).collect();
    let mut served = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => assert_eq!(error.reason(), "cold_path_saturated"),
        }
    }
    assert!((1..=16).contains(&served), "{served}");
    // From now on it is known.
    let calls: Vec<_> = (0..100).map(|_| call(&node, request())).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn surplus_after_cancellations_is_retired() {
    let host = Host::new(6);
    let node = host.with_pool(2).await;
    let _have = [node.take(request()).await.unwrap(), node.take(request()).await.unwrap()];
    let calls: Vec<_> = (0..20).map(|_| call(&node, request())).collect();
    pass(10).await;
    calls.iter().for_each(JoinHandle::abort);
    node.settle("default").await;
    node.until("only two are warm", || host.live() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_over_all_pools() {
    let host = Host::new(7);
    let limits = hearth_pool::config::Limits { max_waiting_total: 10, ..Default::default() };
    let node = host.open_with(limits, |_| LATENCY);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    for id in ["default", "other"] {
        node.create_pool(pool(id, 0), false).await.unwrap();
        let from = hearth_pool::ids::PoolId::parse(id).unwrap();
        node.take(AcquireRequest { pool: from, ..request() }).await.unwrap();
    }
    let calls: Vec<_> = (0..30)
        .map(|number| {
            let id = if number % 2 == 0 { "default" } else { "other" };
            let pool = hearth_pool::ids::PoolId::parse(id).unwrap();
            call(&node, AcquireRequest { pool, ..request() })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        refused += usize::from(call.await.unwrap().is_err());
    }
    assert_eq!(refused, 20);
}
