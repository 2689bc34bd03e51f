//! What operators do: templates, pools, the node.

use std::time::Duration;

use hearth_proto::client::operation_response;
use hearth_proto::google::longrunning::{GetOperationRequest, ListOperationsRequest};
use hearth_proto::v1;
use tonic::Code;

use crate::harness::{eventually, fixed, from, reason, server, violated};

fn template(id: &str) -> v1::CreateTemplateRequest {
    let check = v1::readiness::Check::ConsoleMarker("READY".to_owned());
    let recipe = v1::Template {
        readiness: Some(v1::Readiness { check: Some(check), timeout: None }),
        ..Default::default()
    };
    v1::CreateTemplateRequest {
        template_id: id.to_owned(),
        template: Some(recipe),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_template_is_checked_built_used_changed_and_deleted() {
    let server = server().await;
    let mut templates = server.client.templates.clone();
    let checked = v1::CreateTemplateRequest { validate_only: true, ..template("mine") };
    let planned = templates.create_template(checked).await.unwrap().into_inner();
    let planned: v1::Template = operation_response(&planned).unwrap();
    assert_eq!((planned.name.as_str(), planned.generation), ("templates/mine", 0));
    let get = |name: &str| v1::GetTemplateRequest { name: name.to_owned() };
    let absent = templates.get_template(get("templates/mine")).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "TEMPLATE_NOT_FOUND");

    let begun = templates.create_template(template("mine")).await.unwrap().into_inner();
    let wait = Duration::from_secs(30);
    let done = server.client.wait_operation(&begun.name, wait).await.unwrap();
    let made: v1::Template = operation_response(&done).unwrap();
    assert_eq!((made.state(), made.generation), (v1::template::State::Ready, 1));
    assert!(made.snapshot.as_ref().unwrap().has_memory);
    let taken = templates.create_template(template("mine")).await.unwrap_err();
    assert_eq!(reason(&taken, Code::AlreadyExists), "TEMPLATE_ALREADY_EXISTS");
    let first = templates.get_template(get("templates/mine@1")).await.unwrap().into_inner();
    assert_eq!((first.generation, &first.etag), (1, &made.etag));
    let absent = templates.get_template(get("templates/mine@2")).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "TEMPLATE_NOT_FOUND");

    let pool =
        v1::Pool { template: made.name.clone(), sizing: Some(fixed(2)), ..Default::default() };
    let request = v1::CreatePoolRequest {
        pool_id: "mine".to_owned(),
        pool: Some(pool),
        ..Default::default()
    };
    server.client.pools.clone().create_pool(request).await.unwrap();
    server.until_warm("mine", 2).await;
    let delete = v1::DeleteTemplateRequest { name: made.name.clone(), ..Default::default() };
    let used = templates.delete_template(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&used, Code::FailedPrecondition), "TEMPLATE_IN_USE");

    let step = v1::warm_up::Step::Request("ping".to_owned());
    let changed = v1::Template {
        name: made.name.clone(),
        etag: made.etag.clone(),
        warm_up: vec![v1::WarmUp { step: Some(step), ..Default::default() }],
        ..Default::default()
    };
    let update = v1::UpdateTemplateRequest { template: Some(changed), ..Default::default() };
    let begun = templates.update_template(update.clone()).await.unwrap().into_inner();
    let done = server.client.wait_operation(&begun.name, wait).await.unwrap();
    let second: v1::Template = operation_response(&done).unwrap();
    assert_eq!((second.generation, second.warm_up.len()), (2, 1));
    assert_eq!(second.readiness, made.readiness, "what was not named stays");
    let stale = templates.update_template(update).await.unwrap_err();
    assert_eq!(reason(&stale, Code::Aborted), "ETAG_MISMATCH");
    eventually("the pool has gone over", async || {
        let status = server.status("mine").await;
        (status.generation, status.warm, status.outdated) == (2, 2, 0)
    })
    .await;
    let vm = server.acquire(from("mine")).await.unwrap().vm.unwrap();
    assert_eq!(vm.template_generation, 2);

    let request = v1::DeletePoolRequest { name: "pools/mine".to_owned(), ..Default::default() };
    let mut pools = server.client.pools.clone();
    let held = pools.delete_pool(request.clone()).await.unwrap_err();
    assert_eq!(reason(&held, Code::FailedPrecondition), "POOL_IN_USE");
    pools.delete_pool(v1::DeletePoolRequest { force: true, ..request }).await.unwrap();
    assert_eq!(server.get(&vm.name).await.unwrap().uid, vm.uid, "its tenant keeps it");
    server.client.release(&vm).await.unwrap();
    templates.delete_template(delete).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_build_that_fails_says_why() {
    let server = server().await;
    let mut request = template("broken");
    let recipe = request.template.as_mut().unwrap();
    let readiness = recipe.readiness.as_mut().unwrap();
    readiness.check = Some(v1::readiness::Check::ConsoleMarker("NEVER PRINTED".to_owned()));
    readiness.timeout = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let mut templates = server.client.templates.clone();
    let begun = templates.create_template(request).await.unwrap().into_inner();
    let wait = Duration::from_secs(30);
    let done = server.client.wait_operation(&begun.name, wait).await.unwrap();
    let failed = operation_response::<v1::Template>(&done).unwrap_err();
    assert_eq!(reason(&failed, Code::Unavailable), "PROVIDER_UNAVAILABLE");
    let request = v1::GetTemplateRequest { name: "templates/broken".to_owned() };
    let broken = templates.get_template(request).await.unwrap().into_inner();
    assert_eq!(broken.state(), v1::template::State::Failed);
    assert!(broken.failure.unwrap().message.contains("NEVER PRINTED"));
    server.make_pool("unready", 1, |pool| pool.template = "templates/broken".to_owned()).await;
    let refused = server.acquire(from("unready")).await.unwrap_err();
    assert_eq!(reason(&refused, Code::FailedPrecondition), "TEMPLATE_NOT_READY");

    let mut operations = server.client.operations.clone();
    let listed = operations.list_operations(ListOperationsRequest::default()).await.unwrap();
    assert!(listed.into_inner().operations.iter().any(|it| it.name == begun.name));
    let request = GetOperationRequest { name: "operations/nope".to_owned() };
    let absent = operations.get_operation(request).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "OPERATION_NOT_FOUND");
    server.stop().await;
}

#[tokio::test]
async fn a_template_is_imported_from_a_snapshot() {
    let server = server().await;
    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    let request = v1::SnapshotVmRequest {
        name: vm.name.clone(),
        snapshot_id: "s".to_owned(),
        ..Default::default()
    };
    server.client.vms.clone().snapshot_vm(request).await.unwrap();
    let source = v1::SnapshotRef {
        vm: Some(v1::snapshot_ref::Vm::Uid(vm.uid.clone())),
        snapshot_id: "s".to_owned(),
        ..Default::default()
    };
    let request = v1::ImportTemplateRequest {
        template_id: "imported".to_owned(),
        source: Some(source.clone()),
        ..Default::default()
    };
    let mut templates = server.client.templates.clone();
    let wrong = v1::SnapshotRef { resume_immediately: true, ..source };
    let refused = v1::ImportTemplateRequest { source: Some(wrong), ..request.clone() };
    let refused = templates.import_template(refused).await.unwrap_err();
    assert_eq!(violated(&refused), ["source.resume_immediately"]);
    let made = templates.import_template(request).await.unwrap().into_inner();
    assert_eq!(made.state(), v1::template::State::Ready);
    server.client.release(&vm).await.unwrap();
    server.make_pool("imported", 1, |pool| pool.template = made.name).await;
    server.until_warm("imported", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_pool_is_changed_by_mask_and_etag() {
    let server = server().await;
    let mut pools = server.client.pools.clone();
    let before = server.pool("default").await;
    let change = v1::Pool {
        name: before.name.clone(),
        etag: before.etag.clone(),
        sizing: Some(fixed(6)),
        max_parallel_restores: 3,
        ..Default::default()
    };
    let mask = |paths: &[&str]| {
        Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
    };
    let update = |paths: &[&str]| v1::UpdatePoolRequest {
        pool: Some(change.clone()),
        update_mask: mask(paths),
        ..Default::default()
    };
    let wrong = pools.update_pool(update(&["status", "nonsense"])).await.unwrap_err();
    assert_eq!(violated(&wrong), ["update_mask", "update_mask"]);
    let checked = v1::UpdatePoolRequest { validate_only: true, ..update(&["sizing"]) };
    let planned = pools.update_pool(checked).await.unwrap().into_inner();
    assert_eq!(planned.sizing, Some(fixed(6)));
    assert_eq!(server.pool("default").await.sizing, Some(fixed(4)), "it was only checked");
    let after = pools.update_pool(update(&["sizing"])).await.unwrap().into_inner();
    assert_eq!(after.sizing, Some(fixed(6)));
    assert_eq!(after.max_parallel_restores, before.max_parallel_restores, "not in the mask");
    assert_ne!(after.etag, before.etag);
    server.until_warm("default", 6).await;
    let stale = pools.update_pool(update(&["sizing"])).await.unwrap_err();
    assert_eq!(reason(&stale, Code::Aborted), "ETAG_MISMATCH");
    server.stop().await;
}

#[tokio::test]
async fn a_node_describes_itself_drains_and_serves_again() {
    let server = server().await;
    let mut node = server.client.node.clone();
    let found = node.get_node(v1::GetNodeRequest::default()).await.unwrap().into_inner();
    assert_eq!(found.providers.len(), 1);
    let provider = &found.providers[0];
    assert_eq!((provider.name.as_str(), provider.kind.as_str()), ("memory", "memory"));
    assert!(provider.capabilities.as_ref().unwrap().rename);
    assert_eq!(found.capacity.as_ref().unwrap().live_vms, 4);
    assert_eq!(found.bounds.as_ref().unwrap().max_page_size, 1000);

    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    assert!(node.drain(v1::DrainRequest::default()).await.unwrap().into_inner().draining);
    let refused = server.acquire(from("default")).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unavailable), "NODE_DRAINING");
    assert!(hearth_proto::StatusDetails::of(&refused).retry_after.is_some());
    assert_eq!(server.admin("/readyz").await, (503, "draining\n".to_owned()));
    eventually("the pool is empty", async || server.status("default").await.warm == 0).await;
    server.client.release(&vm).await.expect("leases go on");
    assert!(!node.undrain(v1::UndrainRequest::default()).await.unwrap().into_inner().draining);
    server.until_warm("default", 4).await;
    assert_eq!(server.admin("/readyz").await.0, 200);

    let level =
        |level: &str| v1::SetLogLevelRequest { level: level.to_owned(), ..Default::default() };
    let set = node.set_log_level(level("info,hearth_pool=debug")).await.unwrap().into_inner();
    assert_eq!(set.previous_level, "info");
    let wrong = node.set_log_level(level("loud")).await.unwrap_err();
    assert_eq!(violated(&wrong), ["level"]);
    server.stop().await;
}
