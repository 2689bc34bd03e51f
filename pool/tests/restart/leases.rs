//! What tenants have is theirs after a restart, or FAILED, or as ended as it was.

use std::time::Duration;

use hearth_pool::env::Env as _;
use hearth_pool::journal::{LeaseRecord, RecordState};
use hearth_providers::VmStatus;

use crate::common::*;
use crate::{journal, only_lease};

#[tokio::test(start_paused = true)]
async fn leases_live_on_and_replays_are_answered() {
    let host = Host::new(1);
    let node = host.with_pool(2).await;
    let before = node.take(identified("r")).await.unwrap().lease;
    node.settle("default").await;
    node.crash().await;
    let node = host.start().await;
    let after = node.take(identified("r")).await.unwrap();
    assert!(after.replayed);
    assert_eq!((after.lease.uid, after.lease.fence), (before.uid, before.fence));
    node.settle("default").await;
    assert_eq!(host.live(), 3);
    let next = node.take(request()).await.unwrap();
    assert!(next.lease.fence > before.fence, "fences grow across a restart");
    node.release_named(&before.held().vm_id).await.unwrap();
    assert_eq!(reason(node.take(identified("r")).await), "lease_expired");
}

#[tokio::test(start_paused = true)]
async fn a_lease_committed_but_not_renamed_is_rolled_forward() {
    let host = Host::new(3);
    let node = host.with_pool(1).await;
    let got = node.take(identified("r")).await.unwrap().lease;
    node.settle("default").await;
    node.crash().await;
    let name = got.held().vm_id;
    host.provider.runtime.rename_vm(&name, &got.pool_vm_id).unwrap();
    let node = host.start().await;
    assert_eq!(host.provider.runtime.get_vm(&name).unwrap().uid, got.uid);
    assert_eq!(node.take(identified("r")).await.unwrap().lease.uid, got.uid);
    assert_eq!(host.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resume_under_way_is_finished_and_a_tenants_stop_is_respected() {
    for (state, after) in
        [(RecordState::Resuming, VmStatus::Running), (RecordState::Leased, VmStatus::Stopped)]
    {
        let host = Host::new(14);
        let node = host.start().await;
        node.build_template("default").await;
        let warm_state = hearth_pool::pool::WarmState::Paused;
        let config = hearth_pool::pool::PoolConfig { warm_state, ..pool("default", 1) };
        node.create_pool(config, false).await.unwrap();
        node.settle("default").await;
        node.take(named("mine")).await.unwrap();
        node.settle("default").await;
        node.crash().await;
        host.provider.runtime.pause_vm(&id("mine")).unwrap();
        journal(&host, |journal| {
            assert_eq!(only_lease(journal).state, RecordState::Leased);
            let record = LeaseRecord { state, ..only_lease(journal) };
            journal.write_lease(&record).unwrap();
        });
        let node = host.start().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(host.provider.runtime.status(&id("mine")), Some(after));
        assert!(node.lease_of(&id("mine"), None, None).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_under_way_is_finished() {
    for state in [RecordState::Releasing, RecordState::Aborted, RecordState::Gone] {
        let host = Host::new(4);
        let node = host.with_pool(1).await;
        node.take(identified("r")).await.unwrap();
        node.settle("default").await;
        node.crash().await;
        journal(&host, |journal| {
            let record = LeaseRecord { state, ..only_lease(journal) };
            journal.write_lease(&record).unwrap();
        });
        let node = host.start().await;
        node.until("it is destroyed", || host.live() == 1).await;
        // An aborted request never had an answer: it may be made anew.
        match state {
            RecordState::Aborted => assert!(!node.take(identified("r")).await.unwrap().replayed),
            _ => assert_eq!(reason(node.take(identified("r")).await), "lease_expired"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_vm_is_lost_is_failed_and_found() {
    let host = Host::new(5);
    let node = host.with_pool(1).await;
    let asked = hearth_pool::acquire::AcquireRequest { vm_id: Some(id("mine")), ..identified("r") };
    node.take(asked.clone()).await.unwrap();
    node.settle("default").await;
    node.crash().await;
    host.provider.runtime.destroy_vm(&id("mine")).unwrap();
    let node = host.start().await;
    let info = node.vm(&id("mine"), None).unwrap();
    assert_eq!(info.view.status, VmStatus::Failed);
    assert!(node.take(asked).await.unwrap().replayed);
    node.release_named(&id("mine")).await.unwrap();
    assert_eq!(reason(node.vm(&id("mine"), None)), "not_found");
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_time_across_a_restart() {
    let host = Host::new(10);
    let node = host.with_pool(0).await;
    let expiration = Some(hearth_pool::acquire::Expiration::After(Duration::from_secs(60)));
    node.take(hearth_pool::acquire::AcquireRequest { expiration, ..named("mine") }).await.unwrap();
    node.crash().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let _node = host.start().await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(host.live(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(host.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_deleted_pool_lives_on() {
    let host = Host::new(12);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    node.settle("default").await;
    let id_of_pool = hearth_pool::ids::PoolId::parse("default").unwrap();
    assert_eq!(reason(node.delete_pool(&id_of_pool, "", false).await), "in_use");
    node.delete_pool(&id_of_pool, "", true).await.unwrap();
    node.until("its warm one is gone", || host.live() == 1).await;
    assert_eq!(node.vm(&id("mine"), None).unwrap().view.status, VmStatus::Running);
    node.crash().await;
    let node = host.start().await;
    assert_eq!(node.vm(&id("mine"), None).unwrap().view.status, VmStatus::Running);
    let _ = host.env.boot_time();
    node.release_named(&id("mine")).await.unwrap();
    node.until("it is gone", || host.live() == 0).await;
}
