//! What is left in the audit of what everybody did.

use std::path::Path;

use hearth_proto::v1;
use serde_json::Value;

use super::site::{Site, Who, make_artifact};
use crate::harness::named;

const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    for who in Who::EVERYBODY {
        let token = who.token().map(|it| format!("Bearer {it}"));
        assert!(token.is_none_or(|token| !text.contains(&token)), "a token is in it");
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn it_says_who_acquired_released_froze_and_managed_what() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().to_owned();
    let site = Site::with(|config| config.audit.dir = Some(audit)).await;
    let (alice, root) = (site.client(Who::Alice).await, site.client(Who::Root).await);
    let stranger = site.client(Who::Stranger).await;
    let patience = std::time::Duration::from_secs(30);
    let request = v1::AcquireVmRequest { request_id: ID.to_owned(), ..named("mine") };
    let vm = alice.acquire(request.clone(), patience).await.unwrap().vm.unwrap();
    stranger.acquire(request, patience).await.unwrap_err();
    let taken = alice.acquire(named("mine"), patience).await.unwrap_err();
    assert_eq!(taken.code(), tonic::Code::AlreadyExists);
    let (frozen, artifact, _) = make_artifact(&alice).await;
    let from = Some(v1::resume_vm_request::Source::Artifact(artifact.name.clone()));
    let request = v1::ResumeVmRequest { source: from, ..Default::default() };
    let resumed = alice.vms.clone().resume_vm(request).await.unwrap().into_inner();
    let open = v1::connect_vm_request::Open { name: vm.name.clone(), ..Default::default() };
    let opened =
        v1::ConnectVmRequest { message: Some(v1::connect_vm_request::Message::Open(open)) };
    let guest = alice.vms.clone().connect_vm(tokio_stream::iter([opened])).await.unwrap();
    let mut guest = guest.into_inner();
    while guest.message().await.is_ok_and(|message| message.is_some()) {}
    alice.release(&vm).await.unwrap();
    let request = v1::ReadConsoleRequest { name: frozen.name.clone(), ..Default::default() };
    let mut console = alice.vms.clone().read_console(request).await.unwrap().into_inner();
    while console.message().await.is_ok_and(|message| message.is_some()) {}
    alice.node.clone().drain(v1::DrainRequest::default()).await.unwrap_err();
    let request = v1::DrainPoolRequest { name: "pools/hidden".to_owned(), ..Default::default() };
    root.pools.clone().drain_pool(request).await.unwrap();
    alice.vms.clone().list_vms(v1::ListVmsRequest::default()).await.unwrap();
    drop((alice, root, stranger));
    site.server.stop().await;

    let lines = lines(dir.path());
    let seen = |method: &str| {
        let of = lines.iter().filter(|line| line["method"].as_str().unwrap().ends_with(method));
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or("").to_owned();
        of.map(|line| {
            ["who", "tenant", "resource", "request_id", "result"].map(|key| text(line, key))
        })
        .collect::<Vec<_>>()
    };
    let acquires = seen("/AcquireVm");
    assert_eq!(acquires[0], ["alice", "alice", "vms/mine", ID, "OK"]);
    assert_eq!(acquires[1], ["alice", "alice", "pools/default", "", "AlreadyExists"]);
    assert_eq!(acquires.len(), 3, "and nothing of strangers: {acquires:?}");
    assert_eq!(seen("/ReleaseVm"), [["alice", "alice", "vms/mine", "", "OK"]]);
    assert_eq!(seen("/FreezeVm"), [["alice", "alice", frozen.name.as_str(), "", "OK"]]);
    assert_eq!(seen("/ResumeVm"), [["alice", "alice", resumed.name.as_str(), "", "OK"]]);
    let connected = seen("/ConnectVm");
    assert_eq!(connected[0], ["alice", "alice", "vms/mine", "", "OPEN"]);
    assert_eq!(connected.len(), 2, "it began and ended: {connected:?}");
    let console = seen("/ReadConsole");
    assert_eq!(console[0][..3], ["alice", "alice", frozen.name.as_str()], "{console:?}");
    assert_eq!(seen("/Drain"), [["alice", "alice", "", "", "PermissionDenied"]]);
    let drained = seen("/DrainPool");
    assert_eq!(drained.last().unwrap()[..3], ["root", "ops", "pools/hidden"]);
    assert!(seen("/ListVms").is_empty(), "what only reads is not kept");
    let first = &lines[0];
    assert!(
        first["call"].is_string() && first["took_ms"].is_number() && first["peer"] == "127.0.0.1"
    );
}
