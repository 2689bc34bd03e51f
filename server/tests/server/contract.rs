//! Rules that hold for many methods: operations can be cancelled, retries are known, kinds of snapshots.

use hearth_proto::google::longrunning::{CancelOperationRequest, Operation, WaitOperationRequest};
use hearth_proto::{client, v1};
use tonic::Code;

use crate::harness::{Server, named, reason, server};

const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

async fn wait(server: &Server, name: &str) -> Operation {
    let request = WaitOperationRequest { name: name.to_owned(), timeout: None };
    server.client.operations.clone().wait_operation(request).await.unwrap().into_inner()
}

async fn cancel(server: &Server, name: &str) -> Result<(), tonic::Status> {
    let request = CancelOperationRequest { name: name.to_owned() };
    server.client.operations.clone().cancel_operation(request).await.map(drop)
}

#[tokio::test]
async fn a_build_is_cancelled_and_leaves_nothing_but_its_failure() {
    let server = server().await;
    let never = v1::readiness::Check::ConsoleMarker("this is never printed".to_owned());
    let template = v1::Template {
        readiness: Some(v1::Readiness { check: Some(never), timeout: None }),
        ..Default::default()
    };
    let request = v1::CreateTemplateRequest {
        template_id: "endless".to_owned(),
        template: Some(template),
        ..Default::default()
    };
    let begun = server.client.templates.clone().create_template(request).await.unwrap();
    let begun = begun.into_inner();
    assert!(!begun.done);
    cancel(&server, &begun.name).await.unwrap();
    let ended = wait(&server, &begun.name).await;
    let status = client::operation_response::<v1::Template>(&ended).unwrap_err();
    assert_eq!(reason(&status, Code::Cancelled), "OPERATION_CANCELLED");
    let request = v1::GetTemplateRequest { name: "templates/endless".to_owned() };
    let template = server.client.templates.clone().get_template(request).await.unwrap();
    assert_eq!(template.into_inner().state(), v1::template::State::Failed);
    // Of one that has ended nothing changes, and of none there is nothing to cancel.
    cancel(&server, &begun.name).await.unwrap();
    let absent = cancel(&server, "operations/nope").await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "OPERATION_NOT_FOUND");
    crate::harness::eventually("its VMs are gone", async || server.list("").await.len() == 4).await;
    server.stop().await;
}

#[tokio::test]
async fn a_snapshot_of_a_kind_that_the_provider_has_not_is_refused() {
    use v1::snapshot_vm_request::Type;
    let server = server().await;
    let vm = server.acquire(named("mine")).await.unwrap().vm.unwrap();
    for (kind, is_there) in [(Type::Full, true), (Type::Diff, false), (Type::Disk, false)] {
        let request = v1::SnapshotVmRequest {
            name: vm.name.clone(),
            r#type: kind.into(),
            ..Default::default()
        };
        match server.client.vms.clone().snapshot_vm(request).await {
            Ok(taken) => assert!(is_there && taken.into_inner().has_memory, "{kind:?}"),
            Err(refused) => {
                assert!(!is_there, "{kind:?}: {refused:?}");
                assert_eq!(reason(&refused, Code::Unimplemented), "PROVIDER_UNSUPPORTED");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_release_is_known_by_its_request_id_too() {
    let server = server().await;
    let one = server.acquire(named("one")).await.unwrap().vm.unwrap();
    server.acquire(named("two")).await.unwrap();
    let release = |name: &str| v1::ReleaseVmRequest {
        name: name.to_owned(),
        request_id: ID.to_owned(),
        ..Default::default()
    };
    let mut vms = server.client.vms.clone();
    vms.release_vm(release(&one.name)).await.unwrap();
    vms.release_vm(release(&one.name)).await.unwrap();
    let reused = vms.release_vm(release("vms/two")).await.unwrap_err();
    assert_eq!(reason(&reused, Code::AlreadyExists), "REQUEST_ID_REUSED");
    assert!(server.get("vms/two").await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_retry_after_a_restart_gets_the_answer_of_the_call_before() {
    let server = server().await;
    let pool = |priority| v1::CreatePoolRequest {
        pool_id: "kept".to_owned(),
        pool: Some(v1::Pool {
            template: "templates/default".to_owned(),
            priority,
            ..Default::default()
        }),
        request_id: ID.to_owned(),
        ..Default::default()
    };
    let made = server.client.pools.clone().create_pool(pool(1)).await.unwrap().into_inner();
    let server = server.restarted().await;
    let again = server.client.pools.clone().create_pool(pool(1)).await.unwrap().into_inner();
    assert_eq!(again.etag, made.etag, "it was not made a second time");
    let reused = server.client.pools.clone().create_pool(pool(2)).await.unwrap_err();
    assert_eq!(reason(&reused, Code::AlreadyExists), "REQUEST_ID_REUSED");
    server.stop().await;
}
