//! An end in order, and what it leaves.

use std::time::Duration;

use hearth_providers::VmStatus;

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_vms_running_or_takes_them_down_as_asked() {
    let host = Host::new(11);
    let node = host.with_pool(2).await;
    node.take(named("mine")).await.unwrap();
    node.settle("default").await;
    node.shut_down(false).await;
    assert_eq!(host.live(), 3);
    drop(node);
    let node = host.start().await;
    node.settle("default").await;
    assert_eq!(node.vm(&id("mine"), None).unwrap().view.status, VmStatus::Running);
    node.shut_down(true).await;
    assert_eq!(host.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_down_what_restores_under_way_bring() {
    for patience_ms in (0..40).step_by(5) {
        let host = Host::new(13);
        let node = host.with_pool(4).await;
        for _ in 0..3 {
            node.take(request()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(patience_ms)).await;
        node.shut_down(true).await;
        assert_eq!(host.live(), 0, "after {patience_ms} ms");
    }
}
