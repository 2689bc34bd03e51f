//! What must hold of VMs of Firecracker that are frozen and resumed: memory is kept.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hearth_proto::v1::resume_vm_request::Source as Resumed;
use hearth_proto::v1::vm::{Origin, State};
use hearth_proto::v1::{Artifact, DeleteArtifactRequest, FreezeVmRequest, ResumeVmRequest, Vm};

use crate::hearth::{Answer, Hearth, Outcome, request};
use crate::rig::{Rig, ask, pings, settle};

/// How long a freeze may take before a case fails. Never a claim of speed.
const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn a_frozen_vm_goes_on_and_is_resumed_with_its_memory() -> Outcome {
    resumed_with_its_memory(false).await
}

pub(crate) async fn a_frozen_jailed_vm_goes_on_and_is_resumed_with_its_memory() -> Outcome {
    resumed_with_its_memory(true).await
}

async fn resumed_with_its_memory(is_jailed: bool) -> Outcome {
    let rig = Rig::new(is_jailed)?;
    let hearth = rig.host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    ask(&vm, "name kept").await?;
    assert_eq!(ask(&vm, "write file before").await?, "ok bytes=6");
    let counted = pings(&vm).await?;
    let artifact = freeze(&hearth, "vms/mine", "one").await?;
    assert!(artifact.has_memory && artifact.size_bytes > 0, "{artifact:?}");

    // It goes on, and what it does from now on is not in the artifact.
    let now = hearth.get("vms/mine").await?;
    assert_eq!((&now.uid, now.state(), now.preserved), (&vm.uid, State::Running, true));
    assert_eq!(now.process, vm.process, "the same process");
    for more in 1..=3 {
        assert_eq!(pings(&now).await?, counted + more);
    }
    ask(&now, "name other").await?;
    ask(&now, "write file after").await?;
    hearth.client.release(&vm).await?;
    settle(&hearth, &rig.host, 0).await?;

    let resumed = resume(&hearth, Resumed::Name("vms/mine".to_owned())).await?;
    assert_eq!((resumed.name.as_str(), resumed.origin()), ("vms/mine", Origin::Artifact));
    assert_ne!(resumed.uid, vm.uid);
    let said = ask(&resumed, "ping").await?;
    assert!(said.contains(&format!("counter={} ", counted + 1)), "it went on elsewhere: {said}");
    assert!(said.ends_with("name=kept"), "{said}");
    assert_eq!(ask(&resumed, "read file").await?, "data before");

    hearth.client.release(&resumed).await?;
    settle(&hearth, &rig.host, 0).await?;
    let request = DeleteArtifactRequest { name: artifact.name, ..DeleteArtifactRequest::default() };
    hearth
        .until("the artifact can be deleted", async || {
            hearth.client.artifacts.clone().delete_artifact(request.clone()).await.is_ok()
        })
        .await?;
    hearth.until("only the template's snapshot is left", async || snapshots(&rig).len() == 1).await
}

pub(crate) async fn an_artifact_lives_through_a_kill_of_hearth() -> Outcome {
    let rig = Rig::new(false)?;
    let hearth = rig.host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    let counted = pings(&vm).await?;
    freeze(&hearth, "vms/mine", "one").await?;
    hearth.client.release(&vm).await?;
    settle(&hearth, &rig.host, 0).await?;
    hearth.kill()?;
    let hearth = rig.host.start().await?;
    let resumed = resume(&hearth, Resumed::Artifact("artifacts/one".to_owned())).await?;
    assert_eq!((resumed.name.as_str(), resumed.origin()), ("vms/mine", Origin::Artifact));
    assert_eq!(pings(&resumed).await?, counted + 1);
    Ok(())
}

pub(crate) async fn an_artifact_without_its_memory_begins_anew_from_the_template() -> Outcome {
    let rig = Rig::new(false)?;
    let hearth = rig.host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    ask(&vm, "name kept").await?;
    let before = snapshots(&rig);
    freeze(&hearth, "vms/mine", "one").await?;
    let new: Vec<_> = snapshots(&rig).difference(&before).cloned().collect();
    let [dir] = new.as_slice() else { return Err(format!("one was made: {new:?}").into()) };
    hearth.client.release(&vm).await?;
    settle(&hearth, &rig.host, 0).await?;
    std::fs::remove_file(dir.join("memory"))?;

    let resumed = resume(&hearth, Resumed::Artifact("artifacts/one".to_owned())).await?;
    assert_eq!((resumed.name.as_str(), resumed.origin()), ("vms/mine", Origin::Template));
    assert_eq!(resumed.template, "templates/default");
    let said = ask(&resumed, "ping").await?;
    assert!(said.ends_with("name=-"), "it knows what it was called: {said}");
    let log = rig.host.log_tail();
    assert!(log.contains("an artifact's data is gone"), "{log}");
    hearth.client.release(&resumed).await?;
    settle(&hearth, &rig.host, 0).await
}

async fn freeze(hearth: &Hearth, vm: &str, artifact_id: &str) -> Answer<Artifact> {
    let (name, artifact_id) = (vm.to_owned(), artifact_id.to_owned());
    let asked = FreezeVmRequest { name, artifact_id, ..FreezeVmRequest::default() };
    let begun = hearth.client.vms.clone().freeze_vm(asked).await?.into_inner();
    let done = hearth.client.wait_operation(&begun.name, LONG).await?;
    Ok(hearth_proto::client::operation_response(&done)?)
}

async fn resume(hearth: &Hearth, source: Resumed) -> Answer<Vm> {
    let asked = ResumeVmRequest { source: Some(source), ..ResumeVmRequest::default() };
    Ok(hearth.client.vms.clone().resume_vm(asked).await?.into_inner())
}

/// The directories of all snapshots.
fn snapshots(rig: &Rig) -> BTreeSet<PathBuf> {
    let all = std::fs::read_dir(rig.host.state().join("snapshots")).into_iter().flatten();
    all.flatten().map(|entry| entry.path()).collect()
}
