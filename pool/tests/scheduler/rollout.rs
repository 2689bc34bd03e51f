//! A new generation comes in without a gap, proves itself first, and is taken back when it cannot.

use hearth_pool::pool::{CutOver, PoolConfig, Rollout};
use hearth_providers::faulty::{Call, Fault, When};

use super::*;

async fn generation_of(node: &Node) -> i64 {
    let got = node.take(warm_only()).await.unwrap();
    let (_, generation) = got.lease.template.clone().unwrap();
    node.release_named(&got.lease.held().vm_id).await.unwrap();
    generation
}

#[tokio::test(start_paused = true)]
async fn nobody_misses_while_a_generation_rolls_in() {
    let host = Host::new(1);
    let node = host.with_pool(8).await;
    let pool = node.pool_of("default");
    node.rebuild("default").await;
    let mut last = 1;
    for _ in 0..200 {
        // Somebody claims while it rolls, and always finds one.
        let now = generation_of(&node).await;
        assert!(now >= last, "an old one after a new one");
        last = now;
        assert!(pool.status().warm <= 8 + 2, "{:?}", pool.status());
        pass(20).await;
    }
    node.settle("default").await;
    assert_eq!((last, pool.status().outdated, pool.status().warm), (2, 0, 8));
}

#[tokio::test(start_paused = true)]
async fn a_roll_keeps_to_its_surge() {
    let host = Host::new(2);
    let node = host.with_pool(8).await;
    let id = node.pool_of("default").id.clone();
    let rollout = Rollout { cut_over: CutOver::Rolling, max_surge: 1 };
    let change = move |config: &mut PoolConfig| {
        config.rollout = rollout;
        Ok(())
    };
    node.update_pool(&id, "", false, change).await.unwrap();
    node.rebuild("default").await;
    let pool = node.pool_of("default");
    node.until("it has rolled in", || {
        let status = pool.status();
        assert!(status.warm + status.restoring <= 9, "{status:?}");
        assert!(status.warm >= 8 || status.outdated == 0, "{status:?}");
        status.outdated == 0 && status.warm == 8
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_of_a_generation_goes_alone() {
    let host = Host::new(3);
    let node = host.with_pool(8).await;
    let before = host.faults.count(Call::Restore);
    node.rebuild("default").await;
    let pool = node.pool_of("default");
    node.until("the first comes", || pool.status().restoring > 0).await;
    turns(50).await;
    assert_eq!(pool.status().restoring, 1);
    // One is that of the build.
    assert!(host.faults.count(Call::Restore) - before <= 2);
    node.until("all of them come", || pool.status().outdated == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_cannot_be_restored_is_taken_back() {
    let host = Host::new(4);
    let node = host.with_pool(4).await;
    let pool = node.pool_of("default");
    node.rebuild("default").await;
    host.faults.add(Call::Restore, When::Next(3), Fault::Fail("backend"));
    node.until("it was taken back", || {
        node.template(&pool.config().template).unwrap().generation == 3
    })
    .await;
    // What was warm is good again, and nothing was thrown away.
    let status = pool.status();
    assert_eq!((status.warm, status.outdated, status.generation), (4, 0, 3));
    assert!(!status.breaker_open, "{status:?}");
    assert!(generation_of(&node).await != 2);
    node.settle("default").await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_over_at_once_hands_nothing_old_out() {
    let host = Host::new(5);
    let node = host.start().await;
    node.build_template("default").await;
    let rollout = Rollout { cut_over: CutOver::Immediate, ..Rollout::default() };
    node.create_pool(PoolConfig { rollout, ..pool("default", 4) }, false).await.unwrap();
    node.settle("default").await;
    node.rebuild("default").await;
    for _ in 0..8 {
        let got = node.take(request()).await.unwrap();
        assert_eq!(got.lease.template.clone().unwrap().1, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn another_template_rolls_in_too() {
    let host = Host::new(6);
    let node = host.with_pool(4).await;
    node.build_template("other").await;
    let id = node.pool_of("default").id.clone();
    let other = hearth_pool::ids::TemplateId::parse("other").unwrap();
    let to = other.clone();
    node.update_pool(&id, "", false, move |config| {
        config.template = to;
        Ok(())
    })
    .await
    .unwrap();
    node.take(warm_only()).await.unwrap();
    let pool = node.pool_of("default");
    node.until("it has rolled in", || pool.status().outdated == 0 && pool.status().warm == 4).await;
    let got = node.take(warm_only()).await.unwrap();
    assert_eq!(got.lease.template.clone().unwrap().0, other);
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_proof_changes_nothing_about_it() {
    let host = Host::new(7);
    let node = host.with_pool(0).await;
    node.rebuild("default").await;
    let id = node.pool_of("default").config().template.clone();
    assert!(!node.template(&id).unwrap().is_proven);
    node.crash().await;

    let node = host.start().await;
    host.faults.add(Call::Restore, When::Next(3), Fault::Fail("backend"));
    assert_eq!(reason(node.take(request()).await), "restore_failed");
    node.until("it was taken back", || node.template(&id).unwrap().generation == 3).await;
    node.rebuild("default").await;
    node.take(request()).await.unwrap();
    node.until("it is proven", || node.template(&id).unwrap().is_proven).await;
    assert_eq!(node.template(&id).unwrap().generation, 4);
}

#[tokio::test(start_paused = true)]
async fn another_template_that_cannot_be_restored_takes_no_generation_back() {
    let host = Host::new(8);
    let node = host.with_pool(4).await;
    node.rebuild("default").await;
    node.until("it has rolled in", || node.pool_of("default").status().outdated == 0).await;
    node.settle("default").await;
    node.build_template("other").await;
    let broken = host.faults.add(Call::Restore, When::Always, Fault::Fail("backend"));
    let id = node.pool_of("default").id.clone();
    let (first, to) = (node.pool_of("default").config().template.clone(), "other");
    let to = hearth_pool::ids::TemplateId::parse(to).unwrap();
    node.update_pool(&id, "", false, move |config| {
        config.template = to;
        Ok(())
    })
    .await
    .unwrap();
    let pool = node.pool_of("default");
    node.until("its breaker opens", || pool.status().breaker_open).await;
    let got = node.take(warm_only()).await.unwrap();
    assert_eq!(got.lease.template.clone().unwrap().0, first, "the old ones serve");
    assert_eq!(node.template(&first).unwrap().generation, 2);
    host.faults.remove(broken);
    node.until("it has rolled in", || pool.status().outdated == 0 && pool.status().warm == 4).await;
}
