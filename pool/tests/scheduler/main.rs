//! What the scheduler promises: as many warm VMs as it takes, restores that are bounded and fair, and
//! a good answer when nothing is left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;

mod depth;
mod fairness;
mod isolation;
mod limits;
mod overflow;
mod rollout;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::acquire::{AcquireRequest, Acquired};
use hearth_pool::error::Result;
use hearth_pool::ids::Tenant;
use hearth_pool::pool::Overflow;
use tokio::task::JoinHandle;

/// An acquire of `tenant`.
fn of(tenant: &str) -> AcquireRequest {
    AcquireRequest { tenant: Tenant::new(tenant), ..request() }
}

/// One that takes what is warm, or nothing.
fn warm_only() -> AcquireRequest {
    AcquireRequest { overflow: Some(Overflow::WarmOnly), ..request() }
}

/// An acquire under way.
#[expect(clippy::disallowed_methods, reason = "a caller is nobody's task")]
fn call(node: &Node, request: AcquireRequest) -> JoinHandle<Result<Acquired>> {
    let manager = Arc::clone(&node.manager);
    tokio::spawn(async move {
        manager.acquire(request).await.map(|acquired| acquired.expect("not only validated"))
    })
}

/// Runs what is ready, and no time passes.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Virtual time.
async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
