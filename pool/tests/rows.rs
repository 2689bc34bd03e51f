//! Quick restores and destroys are made one after another on one thread: nothing of a row is lost,
//! whatever becomes of one of them. In real time, on threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::*;
use hearth_pool::acquire::AcquireRequest;
use hearth_pool::config::Limits;
use hearth_pool::pool::Overflow;
use hearth_providers::faulty::{Call, Fault, When};

const DEPTH: usize = 200;
/// After this a call is given up.
const TIMEOUT: Duration = Duration::from_millis(300);

async fn serving(host: &Host) -> Node {
    let limits = Limits { restore_timeout: TIMEOUT, verb_timeout: TIMEOUT, ..Limits::default() };
    let node = host.open_on_threads(limits);
    node.start(false).await.unwrap();
    node.build_template("default").await;
    node.create_pool(pool("default", DEPTH), false).await.unwrap();
    node
}

fn warm_only() -> AcquireRequest {
    AcquireRequest { overflow: Some(Overflow::WarmOnly), ..request() }
}

/// Takes `count` VMs at once and gives them back.
async fn burst(node: &Node, count: usize) {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(node.take(warm_only()).await.unwrap().lease);
    }
    for lease in leases {
        node.release_named(&lease.held().vm_id).await.unwrap();
    }
}

async fn is_whole(host: &Host, node: &Node) {
    node.until("all that was given back is gone, and replaced", || {
        let status = node.pool_of("default").status();
        (status.leased, status.restoring, status.warm) == (0, 0, DEPTH) && host.live() == DEPTH
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_replaced_and_destroyed_in_rows_to_the_last() {
    let host = Host::new(1);
    let node = serving(&host).await;
    is_whole(&host, &node).await;
    for count in [1, DEPTH / 2, DEPTH] {
        burst(&node, count).await;
        is_whole(&host, &node).await;
    }
    let restores = host.faults.count(Call::Restore);
    let wanted = (DEPTH + 1 + DEPTH / 2 + DEPTH) as u64;
    // One more proved the template.
    assert!((wanted..=wanted + 1).contains(&restores), "{restores} restores for {wanted} VMs");
    node.shut_down(true).await;
    assert_eq!(host.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_hangs_in_a_row_is_taken_for_failed_and_the_others_stay() {
    let host = Host::new(2);
    let node = serving(&host).await;
    is_whole(&host, &node).await;
    let hangs = host.faults.add(Call::Restore, When::Next(1), Fault::Hang);
    burst(&node, DEPTH / 2).await;
    node.until("it is noticed", || node.pool_of("default").status().failures > 0).await;
    node.until("the others are made all the same", || {
        node.pool_of("default").status().warm == DEPTH
    })
    .await;
    assert_eq!(host.faults.hanging(Call::Restore), 1);
    // What comes too late is thrown away.
    host.faults.remove(hangs);
    is_whole(&host, &node).await;
    node.shut_down(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroy_that_hangs_or_fails_in_a_row_holds_up_no_other() {
    let host = Host::new(3);
    let node = serving(&host).await;
    is_whole(&host, &node).await;
    // From here on destroys are known to be quick.
    burst(&node, 10).await;
    is_whole(&host, &node).await;
    let hangs = host.faults.add(Call::Destroy, When::Next(1), Fault::Hang);
    host.faults.add(Call::Destroy, When::Every(7), Fault::Fail("unavailable"));
    burst(&node, DEPTH / 2).await;
    // It is tried again beside the try that hangs, and may be gone before anybody looks.
    node.until("at most the one that hangs is left", || {
        node.pool_of("default").status().leased <= 1
    })
    .await;
    host.faults.remove(hangs);
    is_whole(&host, &node).await;
    node.shut_down(true).await;
}
