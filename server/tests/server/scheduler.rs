//! What a pool promises, how it says why it is as deep as it is, and what an acquire would get.

use hearth_proto::v1;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::explain_pool_response::{Bound, RestoreLimit};
use tonic::{Code, Status};

use crate::harness::{
    Server, eventually, fixed, from, named, promised, reason, server, server_with, violated,
};

impl Server {
    async fn resolve(
        &self,
        pool: &str,
        request: v1::AcquireVmRequest,
    ) -> Result<v1::ResolvePoolResponse, Status> {
        let name = format!("pools/{pool}");
        let request = v1::ResolvePoolRequest { name, request: Some(request) };
        let resolved = self.client.pools.clone().resolve_pool(request).await;
        resolved.map(tonic::Response::into_inner)
    }

    async fn update(&self, pool: v1::Pool, paths: &[&str]) -> Result<v1::Pool, Status> {
        let paths = paths.iter().map(ToString::to_string).collect();
        let request = v1::UpdatePoolRequest {
            pool: Some(pool),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        self.client.pools.clone().update_pool(request).await.map(tonic::Response::into_inner)
    }
}

/// Neither the pool nor the request says which: both are this one.
fn anything() -> v1::AcquireVmRequest {
    v1::AcquireVmRequest::default()
}

#[tokio::test]
async fn a_promised_pool_explains_itself() {
    let server = server().await;
    server.make_pool("web", 0, |pool| pool.sizing = Some(promised(0.01, 1, 8))).await;
    server.until_warm("web", 1).await;
    let idle = server.explain("web").await;
    assert_eq!((idle.bound(), idle.target), (Bound::Min, 1), "{idle:?}");
    assert_eq!((idle.observed_claims, idle.misses.len()), (0, 0));
    assert!(idle.restore_time.is_some() && idle.max_restoring > 0, "{idle:?}");
    assert_eq!(idle.pool.unwrap().sizing, Some(promised(0.01, 1, 8)));
    assert!(idle.summary.contains("Nobody claims from pools/web"), "{}", idle.summary);

    let burst = (0..20).map(|_| server.acquire(from("web")));
    let burst = futures_util::future::join_all(burst).await;
    assert!(burst.iter().all(Result::is_ok));
    eventually("demand has made it deeper", async || server.explain("web").await.target > 1).await;
    let busy = server.explain("web").await;
    let bounds = [Bound::Promise, Bound::Peak, Bound::Max];
    assert!(bounds.contains(&busy.bound()) && busy.target <= 8, "{busy:?}");
    assert!(busy.claims_per_second > 0.0 && busy.offered_load > 0.0, "{busy:?}");
    assert_eq!(busy.observed_claims, 20);
    let missed: i64 = busy.misses.iter().map(|miss| miss.count).sum();
    assert!(missed > 0, "one was warm, and twenty came");
    assert!((busy.observed_miss_ratio - missed as f64 / 20.0).abs() < 1e-9);
    assert!(busy.misses.iter().any(|miss| miss.reason == "POOL_EMPTY"), "{:?}", busy.misses);
    assert!(busy.summary.contains("pools/web is claimed from"), "{}", busy.summary);
    server.stop().await;
}

#[tokio::test]
async fn a_fixed_pool_and_one_whose_node_drains_say_so() {
    let server = server().await;
    let full = server.explain("default").await;
    assert_eq!((full.bound(), full.target), (Bound::Fixed, 4));
    assert_eq!(full.restore_limit(), RestoreLimit::Unspecified);
    server.client.node.clone().drain(v1::DrainRequest::default()).await.unwrap();
    let drained = server.explain("default").await;
    assert_eq!((drained.bound(), drained.target), (Bound::Drain, 0));
    let status = drained.pool.unwrap().status.unwrap();
    assert!(status.draining && status.target == 0, "{status:?}");
    assert!(drained.summary.contains("the node is drained"), "{}", drained.summary);
    let request = v1::ExplainPoolRequest { name: "pools/nope".to_owned() };
    let absent = server.client.pools.clone().explain_pool(request).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "POOL_NOT_FOUND");
    server.stop().await;
}

#[tokio::test]
async fn a_promise_and_a_rollout_are_changed_by_mask() {
    let server = server().await;
    let change = v1::Pool {
        name: "pools/default".to_owned(),
        sizing: Some(promised(0.001, 2, 6)),
        priority: 5,
        rollout: Some(v1::pool::Rollout { cut_over: 2, max_surge: 3 }),
        refill_warm_up: vec!["ping".to_owned()],
        prefault_memory: true,
        ..Default::default()
    };
    for path in ["sizing", "sizing.promised", "sizing.promised.max"] {
        let after = server.update(change.clone(), &[path]).await.unwrap();
        assert_eq!((after.sizing, after.priority), (Some(promised(0.001, 2, 6)), 0), "{path}");
        server
            .update(v1::Pool { sizing: Some(fixed(4)), ..change.clone() }, &[path])
            .await
            .unwrap();
    }
    let after = server.update(change.clone(), &["rollout.max_surge"]).await.unwrap();
    let rolling = v1::pool::CutOver::Rolling.into();
    assert_eq!(after.rollout, Some(v1::pool::Rollout { cut_over: rolling, max_surge: 3 }));
    assert!(!after.prefault_memory, "the mask does not name it");
    let paths = ["rollout", "priority", "refill_warm_up", "prefault_memory"];
    let after = server.update(change.clone(), &paths).await.unwrap();
    assert_eq!((after.rollout, after.priority), (change.rollout, 5));
    assert_eq!(after.refill_warm_up, change.refill_warm_up);
    assert!(after.prefault_memory);
    // Its VMs are asked, and are warm when they have answered.
    server.until_warm("default", 4).await;

    let wrong = [
        (
            v1::Pool { sizing: Some(promised(0.0, 1, 2)), ..change.clone() },
            "sizing.promised.miss_ratio",
        ),
        (
            v1::Pool { sizing: Some(promised(1.0, 1, 2)), ..change.clone() },
            "sizing.promised.miss_ratio",
        ),
        (v1::Pool { sizing: Some(promised(0.1, 3, 2)), ..change.clone() }, "sizing.promised.max"),
        (v1::Pool { sizing: Some(promised(0.1, 0, 0)), ..change.clone() }, "sizing.promised.max"),
        (v1::Pool { sizing: Some(promised(0.1, -1, 2)), ..change.clone() }, "sizing.promised.min"),
        (
            v1::Pool { sizing: Some(promised(0.1, 1, i32::MAX)), ..change.clone() },
            "sizing.promised.max",
        ),
        (v1::Pool { priority: -1, ..change.clone() }, "priority"),
    ];
    for (pool, field) in wrong {
        let refused = server.update(pool, &["sizing", "priority"]).await.unwrap_err();
        assert_eq!(violated(&refused), [format!("pool.{field}")]);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_acquire_is_resolved_without_taking_anything() {
    let server = server().await;
    let warm = server.resolve("default", anything()).await.unwrap();
    assert_eq!((warm.warm, warm.source()), (true, Source::Warm), "{warm:?}");
    assert_eq!((warm.reason.as_str(), warm.differences.len()), ("", 0));
    assert_eq!((warm.template.as_str(), warm.template_generation), ("templates/default", 1));

    let interface = v1::NetworkInterface {
        iface_id: "eth0".to_owned(),
        host_dev_name: "tap7".to_owned(),
        ..Default::default()
    };
    let own = v1::AcquireVmRequest { network_overrides: vec![interface], ..from("default") };
    let cold = server.resolve("default", own.clone()).await.unwrap();
    assert_eq!((cold.warm, cold.source()), (false, Source::Cold), "{cold:?}");
    let fields: Vec<_> = cold.differences.iter().map(|it| it.field.as_str()).collect();
    assert_eq!((fields, cold.reason.as_str()), (vec!["network_overrides"], ""));

    server.make_pool("bare", 0, |_| ()).await;
    let only = v1::pool::Overflow::WarmOnly.into();
    let refused = v1::AcquireVmRequest { overflow: only, ..anything() };
    let refused = server.resolve("bare", refused).await.unwrap();
    assert_eq!((refused.warm, refused.source()), (false, Source::Unspecified), "{refused:?}");
    assert_eq!(refused.reason, "POOL_EMPTY");
    let waits = server.resolve("bare", anything()).await.unwrap();
    assert_eq!((waits.source(), waits.reason.as_str()), (Source::Cold, "POOL_EMPTY"));
    server.acquire(named("taken")).await.unwrap();
    server.until_warm("default", 4).await;
    let taken = server.resolve("default", named("taken")).await.unwrap();
    assert_eq!((taken.source(), taken.reason.as_str()), (Source::Unspecified, "VM_ALREADY_EXISTS"));

    // What is wrong is told as of an acquire, by its path in this request.
    let wrong = v1::AcquireVmRequest { vm_id: "UP".to_owned(), ..anything() };
    let wrong = server.resolve("default", wrong).await.unwrap_err();
    assert_eq!(violated(&wrong), ["request.vm_id"]);
    let impossible = v1::AcquireVmRequest { overflow: only, ..own };
    let impossible = server.resolve("default", impossible).await.unwrap_err();
    assert_eq!(violated(&impossible), ["request.network_overrides"]);
    let other = server.resolve("default", from("bare")).await.unwrap_err();
    assert_eq!(violated(&other), ["request.pool"]);
    let told = v1::AcquireVmRequest { identity: Some(v1::Identity::default()), ..anything() };
    let told = server.resolve("default", told).await.unwrap_err();
    assert_eq!(reason(&told, Code::Unimplemented), "METHOD_UNIMPLEMENTED");
    let status = server.status("default").await;
    assert_eq!((status.warm, status.leased), (4, 1));
    assert_eq!(server.explain("default").await.observed_claims, 1, "nothing was counted");
    server.stop().await;
}

#[tokio::test]
async fn a_default_pool_can_promise() {
    let server = server_with(|config| {
        config.default_pool.miss_ratio = Some(0.01);
        config.default_pool.min = Some(2);
        config.default_pool.max = Some(9);
    })
    .await;
    server.until_warm("default", 2).await;
    assert_eq!(server.pool("default").await.sizing, Some(promised(0.01, 2, 9)));
    server.stop().await;
}
