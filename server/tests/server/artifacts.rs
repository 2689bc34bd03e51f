//! Frozen VMs, over the wire.

use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::google::longrunning::{Operation, WaitOperationRequest};
use hearth_proto::v1;
use hearth_proto::v1::resume_vm_request::Source;
use hearth_proto::v1::vm::{Origin, State};
use prost::Message as _;
use tonic::{Code, Status};

use crate::harness::{Server, named, reason, server, server_with, violated};

const REQUEST_ID: &str = "0b8f9a5e-6a1c-4f0e-9d51-3f0a6a4a7c11";

async fn freeze(server: &Server, request: v1::FreezeVmRequest) -> Result<v1::Artifact, Status> {
    let begun = server.client.vms.clone().freeze_vm(request).await?.into_inner();
    let done = finish(server, begun).await;
    let Some(Ended::Response(made)) = done.result else { panic!("it failed: {done:?}") };
    Ok(v1::Artifact::decode(made.value.as_slice()).unwrap())
}

async fn finish(server: &Server, begun: Operation) -> Operation {
    let request = WaitOperationRequest {
        name: begun.name,
        timeout: Some(duration_to_wire(Duration::from_secs(30))),
    };
    server.client.operations.clone().wait_operation(request).await.unwrap().into_inner()
}

fn freezing(vm: &str, artifact_id: &str) -> v1::FreezeVmRequest {
    let (name, artifact_id) = (vm.to_owned(), artifact_id.to_owned());
    v1::FreezeVmRequest { name, artifact_id, ..Default::default() }
}

fn resuming(source: Source) -> v1::ResumeVmRequest {
    v1::ResumeVmRequest { source: Some(source), ..Default::default() }
}

#[tokio::test]
async fn a_vm_is_frozen_released_and_resumed() {
    let server = server().await;
    let vm = server.acquire(named("mine")).await.unwrap().vm.unwrap();
    let artifact = freeze(&server, freezing("vms/mine", "one")).await.unwrap();
    assert_eq!((artifact.name.as_str(), artifact.vm.as_str()), ("artifacts/one", "vms/mine"));
    assert!(artifact.has_memory && artifact.size_bytes > 0 && artifact.expire_time.is_some());
    assert_eq!(artifact.template, "templates/default");
    let frozen = server.get("vms/mine").await.unwrap();
    assert_eq!((frozen.artifact.as_str(), frozen.preserved), ("artifacts/one", true));
    assert_eq!(frozen.state(), State::Running);

    let mut artifacts = server.client.artifacts.clone();
    let get = v1::GetArtifactRequest { name: "artifacts/one".to_owned() };
    assert_eq!(artifacts.get_artifact(get.clone()).await.unwrap().into_inner(), artifact);
    let list =
        |filter: &str| v1::ListArtifactsRequest { filter: filter.to_owned(), ..Default::default() };
    let of_it = artifacts.list_artifacts(list("vm = \"vms/mine\"")).await.unwrap().into_inner();
    assert_eq!(of_it.artifacts, std::slice::from_ref(&artifact));
    let none = artifacts.list_artifacts(list("vm = \"vms/other\"")).await.unwrap().into_inner();
    assert!(none.artifacts.is_empty());

    server.client.release(&vm).await.unwrap();
    let resume = v1::ResumeVmRequest {
        request_id: REQUEST_ID.to_owned(),
        ..resuming(Source::Name("vms/mine".to_owned()))
    };
    let mut vms = server.client.vms.clone();
    let resumed = vms.resume_vm(resume.clone()).await.unwrap().into_inner();
    assert_eq!((resumed.name.as_str(), resumed.origin()), ("vms/mine", Origin::Artifact));
    assert_ne!(resumed.uid, vm.uid);
    assert_eq!(vms.resume_vm(resume).await.unwrap().into_inner().uid, resumed.uid, "a retry");

    let delete = v1::DeleteArtifactRequest { name: artifact.name.clone(), ..Default::default() };
    let used = artifacts.delete_artifact(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&used, Code::FailedPrecondition), "ARTIFACT_IN_USE");
    server.client.release(&resumed).await.unwrap();
    crate::harness::eventually("it can be deleted", async || {
        artifacts.delete_artifact(delete.clone()).await.is_ok()
    })
    .await;
    let gone = artifacts.get_artifact(get).await.unwrap_err();
    assert_eq!(reason(&gone, Code::NotFound), "ARTIFACT_NOT_FOUND");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_frozen_or_resumed_says_why() {
    let server = server().await;
    let refused = freeze(&server, freezing("vms/nobody", "")).await.unwrap_err();
    assert_eq!(reason(&refused, Code::NotFound), "VM_NOT_FOUND");
    server.acquire(named("mine")).await.unwrap();
    let bad = v1::FreezeVmRequest { artifact_id: "../etc".to_owned(), ..freezing("vms/mine", "") };
    assert_eq!(violated(&freeze(&server, bad).await.unwrap_err()), ["artifact_id"]);
    let picked = freeze(&server, freezing("vms/mine", "")).await.unwrap();
    let taken = picked.name.trim_start_matches("artifacts/").to_owned();
    let again = freeze(&server, freezing("vms/mine", &taken)).await.unwrap_err();
    assert_eq!(reason(&again, Code::AlreadyExists), "ARTIFACT_ALREADY_EXISTS");
    let other_uid = v1::FreezeVmRequest { uid: picked.uid.clone(), ..freezing("vms/mine", "two") };
    let refused = freeze(&server, other_uid).await.unwrap_err();
    assert_eq!(reason(&refused, Code::FailedPrecondition), "UID_MISMATCH");

    let mut vms = server.client.vms.clone();
    let nothing = vms.resume_vm(v1::ResumeVmRequest::default()).await.unwrap_err();
    assert_eq!(violated(&nothing), ["artifact"]);
    let missing = resuming(Source::Artifact("artifacts/none".to_owned()));
    let missing = vms.resume_vm(missing).await.unwrap_err();
    assert_eq!(reason(&missing, Code::NotFound), "ARTIFACT_NOT_FOUND");
    let taken = v1::ResumeVmRequest {
        vm_id: "mine".to_owned(),
        ..resuming(Source::Artifact(picked.name.clone()))
    };
    let taken = vms.resume_vm(taken).await.unwrap_err();
    assert_eq!(reason(&taken, Code::AlreadyExists), "VM_ALREADY_EXISTS");
    server.stop().await;
}

#[tokio::test]
async fn an_artifact_is_read_out_from_any_byte() {
    let server = server().await;
    server.acquire(named("mine")).await.unwrap();
    freeze(&server, freezing("vms/mine", "one")).await.unwrap();
    let whole = export(&server, "artifacts/one", 0).await.unwrap();
    assert_eq!(whole.len() % 512, 0, "a tar stream is made of blocks");
    assert!(whole.starts_with(b"guest.json"));
    assert_eq!(export(&server, "artifacts/one", 700).await.unwrap(), whole[700..]);
    assert!(export(&server, "artifacts/one", whole.len() as i64).await.unwrap().is_empty());

    let negative = export(&server, "artifacts/one", -1).await.unwrap_err();
    assert_eq!(violated(&negative), ["offset"]);
    let missing = export(&server, "artifacts/two", 0).await.unwrap_err();
    assert_eq!(reason(&missing, Code::NotFound), "ARTIFACT_NOT_FOUND");

    // A reader that leaves takes nothing with it.
    let request = v1::ExportArtifactRequest { name: "artifacts/one".to_owned(), offset: 0 };
    drop(server.client.artifacts.clone().export_artifact(request).await.unwrap());
    let name = "artifacts/one".to_owned();
    let delete = v1::DeleteArtifactRequest { name, ..Default::default() };
    crate::harness::eventually("it can be deleted", async || {
        server.client.artifacts.clone().delete_artifact(delete.clone()).await.is_ok()
    })
    .await;
    server.stop().await;
}

async fn export(server: &Server, name: &str, offset: i64) -> Result<Vec<u8>, Status> {
    let request = v1::ExportArtifactRequest { name: name.to_owned(), offset };
    let mut stream = server.client.artifacts.clone().export_artifact(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = stream.message().await? {
        assert_eq!(piece.offset, offset + data.len() as i64);
        assert_eq!(piece.media_type.is_empty(), !data.is_empty());
        data.extend_from_slice(&piece.data);
    }
    Ok(data)
}

#[tokio::test]
async fn what_is_on_disk_is_added_up_by_kind() {
    let server = server_with(|config| {
        let memory = config.providers.get_mut("memory").unwrap();
        memory.durable = Some(true);
    })
    .await;
    server.until_warm("default", 4).await;
    server.acquire(named("mine")).await.unwrap();
    freeze(&server, freezing("vms/mine", "one")).await.unwrap();
    server.until_warm("default", 4).await;
    let node = async |with_usage| {
        let request = v1::GetNodeRequest { with_usage };
        server.client.node.clone().get_node(request).await.unwrap().into_inner()
    };
    assert!(node(false).await.usage.is_empty());
    let used = node(true).await.usage;
    let counts: Vec<_> = used.iter().map(|it| (it.kind.as_str(), it.count)).collect();
    let expected = [("instances", 5), ("quarantine", 0), ("snapshots", 1), ("artifacts", 1)];
    assert_eq!(counts, expected);
    let has_bytes = |it: &v1::Usage| (it.size_bytes > 0) == (it.count > 0);
    assert!(used.iter().all(has_bytes), "{used:?}");
    server.stop().await;
}
