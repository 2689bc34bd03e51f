//! Demand that is announced, and pools that are kept empty.

use std::time::Duration;

use hearth_proto::v1::explain_pool_response::Bound;
use hearth_proto::{StatusDetails, v1};
use prost_types::Duration as WireDuration;
use tonic::{Code, Status};

use crate::harness::{Server, eventually, from, reason, server, server_with, violated};

const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn announced(count: i32, ttl: Duration) -> v1::PrewarmPoolRequest {
    v1::PrewarmPoolRequest {
        name: "pools/default".to_owned(),
        count,
        ttl: Some(WireDuration::try_from(ttl).unwrap()),
        request_id: String::new(),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

impl Server {
    async fn prewarm(&self, request: v1::PrewarmPoolRequest) -> Result<v1::Prewarm, Status> {
        let done = self.client.pools.clone().prewarm_pool(request).await;
        done.map(tonic::Response::into_inner)
    }

    async fn cancel(&self, prewarm_id: &str) -> v1::Pool {
        let request = v1::CancelPrewarmRequest {
            name: "pools/default".to_owned(),
            prewarm_id: prewarm_id.to_owned(),
            request_id: String::new(),
        };
        self.client.pools.clone().cancel_prewarm(request).await.unwrap().into_inner()
    }

    async fn drain_pool(&self, undo: bool) -> v1::Pool {
        let name = "pools/default".to_owned();
        let request = v1::DrainPoolRequest { name, undo, request_id: ID.to_owned() };
        let request_id = if undo { String::new() } else { ID.to_owned() };
        let request = v1::DrainPoolRequest { request_id, ..request };
        self.client.pools.clone().drain_pool(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn announced_demand_is_met_until_it_is_taken_back() {
    let server = server().await;
    let etag = server.pool("default").await.etag;
    let request = v1::PrewarmPoolRequest { request_id: ID.to_owned(), ..announced(3, HOUR) };
    let prewarm = server.prewarm(request.clone()).await.unwrap();
    assert_eq!((prewarm.pool.as_str(), prewarm.count), ("pools/default", 3));
    assert!(prewarm.expire_time.is_some() && prewarm.request_id == ID, "{prewarm:?}");
    assert_eq!(server.prewarm(request.clone()).await.unwrap(), prewarm, "it is the same one");
    let other = v1::PrewarmPoolRequest { count: 4, ..request };
    let other = server.prewarm(other).await.unwrap_err();
    assert_eq!(reason(&other, Code::AlreadyExists), "REQUEST_ID_REUSED");
    server.until_warm("default", 7).await;
    let status = server.status("default").await;
    assert_eq!((status.target, status.prewarmed), (7, 3));
    let explained = server.explain("default").await;
    assert_eq!(explained.bound(), Bound::Prewarm);
    assert_eq!(explained.prewarms, std::slice::from_ref(&prewarm));
    assert!(explained.summary.contains("3 that were announced"), "{}", explained.summary);

    let pool = server.cancel(&prewarm.prewarm_id).await;
    assert_eq!(pool.status.unwrap().prewarmed, 0);
    server.until_warm("default", 4).await;
    let pool = server.cancel(&prewarm.prewarm_id).await;
    assert_eq!(pool.etag, etag, "it is no setting");
    server.stop().await;
}

#[tokio::test]
async fn announced_demand_ends_by_itself() {
    let server = server().await;
    server.prewarm(announced(2, Duration::from_millis(200))).await.unwrap();
    eventually("it has ended", async || {
        let status = server.status("default").await;
        (status.prewarmed, status.target, status.warm) == (0, 4, 4)
    })
    .await;
    assert!(server.explain("default").await.prewarms.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_announcement_is_known_again_after_a_restart() {
    let server = server().await;
    let request = v1::PrewarmPoolRequest { request_id: ID.to_owned(), ..announced(3, HOUR) };
    let prewarm = server.prewarm(request.clone()).await.unwrap();
    let server = server.restarted().await;
    assert_eq!(server.prewarm(request).await.unwrap().prewarm_id, prewarm.prewarm_id);
    server.until_warm("default", 7).await;
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_announced_is_refused() {
    let server = server_with(|config| config.limits.budget.max_vms = Some(10)).await;
    let nothing = v1::PrewarmPoolRequest { ttl: None, ..announced(0, HOUR) };
    let cases = [
        (v1::PrewarmPoolRequest { ttl: None, ..announced(1, HOUR) }, vec!["ttl"]),
        (announced(-1, HOUR), vec!["count"]),
        (announced(0, HOUR), vec!["count"]),
        (announced(1, HOUR * 25), vec!["ttl"]),
        (announced(1, Duration::ZERO), vec!["ttl"]),
        (v1::PrewarmPoolRequest { name: "web".to_owned(), ..nothing }, vec!["name", "ttl"]),
        (
            v1::PrewarmPoolRequest { request_id: "x".to_owned(), ..announced(1, HOUR) },
            vec!["request_id"],
        ),
    ];
    for (request, fields) in cases {
        let refused = server.prewarm(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT", "{fields:?}");
        assert_eq!(violated(&refused), fields);
    }
    let refused = server.prewarm(announced(100, HOUR)).await.unwrap_err();
    assert_eq!(reason(&refused, Code::ResourceExhausted), "CAPACITY_EXHAUSTED");
    let absent = v1::PrewarmPoolRequest { name: "pools/nope".to_owned(), ..announced(1, HOUR) };
    let absent = server.prewarm(absent).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "POOL_NOT_FOUND");
    let mut pools = server.client.pools.clone();
    let unnamed =
        v1::CancelPrewarmRequest { name: "pools/default".to_owned(), ..Default::default() };
    assert_eq!(violated(&pools.cancel_prewarm(unnamed).await.unwrap_err()), ["prewarm_id"]);
    server.stop().await;
}

#[tokio::test]
async fn a_drained_pool_is_empty_and_takes_no_acquires_until_it_is_undone() {
    let server = server().await;
    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    let drained = server.drain_pool(false).await;
    assert!(drained.status.unwrap().draining);
    let refused = server.acquire(from("default")).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unavailable), "NODE_DRAINING");
    let details = StatusDetails::of(&refused);
    assert!(details.retry_after.is_some(), "{refused:?}");
    assert_eq!(details.allocated, Some(false));
    assert_eq!(details.metadata.get("pool").map(String::as_str), Some("pools/default"));
    eventually("it is empty", async || server.status("default").await.warm == 0).await;
    let explained = server.explain("default").await;
    assert_eq!((explained.bound(), explained.target), (Bound::Drain, 0));
    assert!(explained.summary.contains("the pool is drained"), "{}", explained.summary);
    let request = v1::ResolvePoolRequest { name: "pools/default".to_owned(), request: None };
    let resolved = server.client.pools.clone().resolve_pool(request).await.unwrap().into_inner();
    assert_eq!((resolved.warm, resolved.reason.as_str()), (false, "NODE_DRAINING"));
    assert_eq!(server.admin("/readyz").await.0, 200, "the node goes on");
    server.make_pool("other", 1, |_| ()).await;
    server.acquire(from("other")).await.expect("other pools go on");
    server.client.release(&vm).await.expect("leases go on");

    let undone = server.drain_pool(true).await;
    assert!(!undone.status.unwrap().draining);
    server.until_warm("default", 4).await;
    server.acquire(from("default")).await.unwrap();
    server.stop().await;
}
