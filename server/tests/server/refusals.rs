//! Bad input: a clear error that names the fields, and nothing is made.

use hearth_proto::v1;
use prost_types::Duration as WireDuration;
use tonic::Code;

use crate::harness::{Server, from, named, reason, server, ttl, violated};

/// Nothing was acquired and nothing was made.
async fn assert_untouched(server: &Server) {
    assert_eq!(server.status("default").await.leased, 0);
    assert_eq!(server.list("").await.len(), 4);
    let pools = server.client.pools.clone().list_pools(v1::ListPoolsRequest::default()).await;
    assert_eq!(pools.unwrap().into_inner().pools.len(), 1);
}

#[tokio::test]
async fn bad_acquires_are_refused_by_field() {
    let server = server().await;
    let long = "a".repeat(64);
    let mut cases = Vec::new();
    for id in ["a/b", "..", "a\0b", "Upper", "-a", "a-", "a b", "é", &long, "warm-a"] {
        cases.push((named(id), vec!["vm_id"]));
    }
    for pool in ["", "default", "pools/", "pools/a/b", "pools/..", "vms/default", "pools/A"] {
        let request = v1::AcquireVmRequest { pool: pool.to_owned(), ..Default::default() };
        cases.push((request, vec!["pool"]));
    }
    for (seconds, nanos) in [
        (0, 0),
        (-1, 0),
        (i64::MIN, 0),
        (0, -1),
        (1, 2_000_000_000),
        (i64::MAX, 0),
        (10_000_000, 0),
    ] {
        let ttl = v1::acquire_vm_request::Expiration::Ttl(WireDuration { seconds, nanos });
        let request = v1::AcquireVmRequest { expiration: Some(ttl), ..from("default") };
        cases.push((request, vec!["ttl"]));
    }
    for seconds in [0, -5, 1_000_000_000, i64::MAX] {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        let expiration = Some(v1::acquire_vm_request::Expiration::ExpireTime(time));
        cases.push((v1::AcquireVmRequest { expiration, ..from("default") }, vec!["expire_time"]));
    }
    let request_id =
        |id: &str| v1::AcquireVmRequest { request_id: id.to_owned(), ..from("default") };
    cases.push((request_id("not-a-uuid"), vec!["request_id"]));
    cases.push((v1::AcquireVmRequest { overflow: 99, ..from("default") }, vec!["overflow"]));
    let labels = (0..65).map(|number| (format!("k{number}"), String::new())).collect();
    cases.push((v1::AcquireVmRequest { labels, ..from("default") }, vec!["labels"]));
    let interface = v1::NetworkInterface {
        guest_mac: "nonsense".to_owned(),
        host_dev_name: "tap0".to_owned(),
        ..Default::default()
    };
    let overrides = v1::AcquireVmRequest { network_overrides: vec![interface], ..from("default") };
    let fields = vec!["network_overrides[0].iface_id", "network_overrides[0].guest_mac"];
    cases.push((overrides, fields));
    let everything = v1::AcquireVmRequest {
        pool: "nope".to_owned(),
        vm_id: "UP".to_owned(),
        request_id: "x".to_owned(),
        expiration: ttl(-1),
        ..Default::default()
    };
    cases.push((everything, vec!["pool", "vm_id", "request_id", "ttl"]));
    for (request, fields) in cases {
        let shown = format!("{request:?}");
        let refused = server.acquire(request).await.expect_err(&shown);
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT", "{shown}");
        assert_eq!(violated(&refused), fields, "{shown}");
        let details = hearth_proto::StatusDetails::of(&refused);
        assert_eq!(details.allocated, Some(false), "{shown}");
    }
    let unknown = server.acquire(from("unknown")).await.unwrap_err();
    assert_eq!(reason(&unknown, Code::NotFound), "POOL_NOT_FOUND");
    assert_untouched(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_of_five_megabytes_is_refused() {
    let server = server().await;
    let labels = [("k".to_owned(), "v".repeat(5_000_000))].into();
    let request = v1::AcquireVmRequest { labels, ..from("default") };
    let refused = server.acquire(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT");
    assert_eq!(violated(&refused), ["request"]);
    assert_untouched(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_spec_that_cannot_be_is_refused_by_field() {
    let server = server().await;
    let mut vms = server.client.vms.clone();
    let cases = [
        (v1::VmSpec { vcpu_count: Some(0), ..Default::default() }, "spec.vcpu_count"),
        (v1::VmSpec { mem_size_mib: Some(0), ..Default::default() }, "spec.mem_size_mib"),
        (v1::VmSpec { vcpu_count: Some(100_000), ..Default::default() }, "spec.vcpu_count"),
        (v1::VmSpec { kernel: "/does/not/exist".to_owned(), ..Default::default() }, "spec.kernel"),
        (v1::VmSpec { rootfs: "/".to_owned(), ..Default::default() }, "spec.rootfs"),
    ];
    for (spec, field) in cases {
        let request = v1::CreateVmRequest { spec: Some(spec.clone()), ..Default::default() };
        let refused = vms.create_vm(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT", "{field}");
        assert_eq!(violated(&refused), [field]);
        let template = v1::Template { spec: Some(spec), ..Default::default() };
        let request = v1::CreateTemplateRequest {
            template_id: "t".to_owned(),
            template: Some(template),
            ..Default::default()
        };
        let refused = server.client.templates.clone().create_template(request).await.unwrap_err();
        assert_eq!(violated(&refused), [format!("template.{field}")]);
    }
    let request = v1::CreateVmRequest { provider: "nope".to_owned(), ..Default::default() };
    let refused = vms.create_vm(request).await.unwrap_err();
    assert_eq!(violated(&refused), ["provider"]);
    let from = v1::SnapshotRef {
        vm: Some(v1::snapshot_ref::Vm::VmId("nobody".to_owned())),
        snapshot_id: "s".to_owned(),
        ..Default::default()
    };
    let spec = Some(v1::VmSpec { restore_from: Some(from), ..Default::default() });
    let request = v1::CreateVmRequest { spec, ..Default::default() };
    let refused = vms.create_vm(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::NotFound), "SNAPSHOT_NOT_FOUND");
    assert_untouched(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn bad_pools_are_refused_by_field() {
    use crate::harness::fixed;
    let server = server().await;
    let good = || v1::Pool { template: "templates/default".to_owned(), ..Default::default() };
    let duration = |seconds| Some(WireDuration { seconds, nanos: 0 });
    let cases = [
        (v1::Pool::default(), "pool.template"),
        (v1::Pool { sizing: Some(fixed(-1)), ..good() }, "pool.sizing.fixed.depth"),
        (v1::Pool { sizing: Some(fixed(i32::MAX)), ..good() }, "pool.sizing.fixed.depth"),
        (v1::Pool { warm_state: 9, ..good() }, "pool.warm_state"),
        (v1::Pool { max_warm_age: duration(-1), ..good() }, "pool.max_warm_age"),
        (v1::Pool { max_parallel_restores: -1, ..good() }, "pool.max_parallel_restores"),
        (v1::Pool { default_ttl: duration(0), ..good() }, "pool.default_ttl"),
        (v1::Pool { max_ttl: duration(1_000_000_000), ..good() }, "pool.max_ttl"),
        (
            v1::Pool { default_ttl: duration(60), max_ttl: duration(30), ..good() },
            "pool.default_ttl",
        ),
    ];
    let mut pools = server.client.pools.clone();
    for (pool, field) in cases {
        let request = v1::CreatePoolRequest {
            pool_id: "p".to_owned(),
            pool: Some(pool),
            ..Default::default()
        };
        let refused = pools.create_pool(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT", "{field}");
        assert_eq!(violated(&refused), [field]);
    }
    let unknown = v1::Pool { template: "templates/nope".to_owned(), ..Default::default() };
    let request = v1::CreatePoolRequest {
        pool_id: "p".to_owned(),
        pool: Some(unknown),
        ..Default::default()
    };
    let refused = pools.create_pool(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::NotFound), "TEMPLATE_NOT_FOUND");
    let request = v1::CreatePoolRequest {
        pool_id: "default".to_owned(),
        pool: Some(good()),
        ..Default::default()
    };
    let refused = pools.create_pool(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::AlreadyExists), "POOL_ALREADY_EXISTS");
    assert_untouched(&server).await;
    server.stop().await;
}
