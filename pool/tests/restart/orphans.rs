//! What no record mentions: ours is destroyed and counted, all else is left alone.

use hearth_providers::VmStatus;

use crate::common::*;
use crate::counts::Counts;
use crate::journal;

#[tokio::test(start_paused = true)]
async fn a_name_without_a_record_is_retired() {
    let host = Host::new(7);
    let node = host.with_pool(1).await;
    let got = node.take(named("mine")).await.unwrap().lease;
    node.settle("default").await;
    node.crash().await;
    journal(&host, |journal| journal.forget_lease(got.uid).unwrap());
    let counts = Counts::default();
    let _listening = counts.listen();
    let node = host.start().await;
    node.until("it is destroyed", || host.live() == 1).await;
    assert_eq!(counts.reaped("vm"), 1);
    node.take(named("mine")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_never_touched() {
    let host = Host::new(8);
    host.provider.runtime.create_vm(&id("stranger")).unwrap();
    let node = host.with_pool(1).await;
    node.crash().await;
    let counts = Counts::default();
    let _listening = counts.listen();
    let node = host.start().await;
    node.settle("default").await;
    assert_eq!(counts.reaped("vm"), 0);
    assert_eq!(host.provider.runtime.status(&id("stranger")), Some(VmStatus::Created));
    let got = node.take(named("stranger")).await;
    assert!(got.is_err(), "its name is not for us to give");
}

#[tokio::test(start_paused = true)]
async fn vms_of_another_journal_are_not_touched_unless_asked() {
    let host = Host::new(9);
    let node = host.with_pool(2).await;
    node.crash().await;
    std::fs::remove_dir_all(host.dir.path().join("journal")).unwrap();
    let node = host.open();
    let refused = node.start(false).await.unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("--reap"), "{why}");
    assert_eq!(host.live(), 2);
    node.crash().await;
    let counts = Counts::default();
    let _listening = counts.listen();
    let node = host.open();
    node.start(true).await.unwrap();
    node.until("they are destroyed", || host.live() == 0).await;
    assert_eq!(counts.reaped("vm"), 2);
}
