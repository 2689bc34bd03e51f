//! A freeze: afterwards there is a whole artifact or none, and the VM is as it was.

use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning::WaitOperationRequest;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::v1;
use hearth_proto::v1::vm::{Origin, State};
use tonic::Status;

use crate::driver::Scene;
use crate::host::{BLOCKING, Hearth, Host, WORKER};
use crate::{Answer, Outcome, check};

/// The VM that is frozen again and again, and its artifact.
const VM: &str = "demo";
const ARTIFACT: &str = "cut";
/// Snapshots that are there without any artifact: that of the default template.
const BASELINE: usize = 1;

pub(crate) struct Freeze {
    uid: String,
}

impl Scene for Freeze {
    const NAME: &'static str = "freeze";
    const THREADS: &'static [&'static str] = &[WORKER, BLOCKING];
    const HALLMARKS: &'static [&'static str] = &["rename", "fsync", "mkdir", "write"];

    async fn begin(_: &Host, hearth: &Hearth) -> Answer<Self> {
        let request = v1::AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id: VM.to_owned(),
            expiration: Some(v1::acquire_vm_request::Expiration::Ttl(duration_to_wire(
                Duration::from_secs(3600),
            ))),
            ..Default::default()
        };
        let vm = hearth.client.acquire(request, Duration::from_secs(60)).await?.vm;
        Ok(Self { uid: vm.ok_or("no vm")?.uid })
    }

    /// Freezes to the end, or until the server is gone.
    async fn act(&mut self, _: &Host, hearth: &Hearth) -> Result<(), Status> {
        let request = v1::FreezeVmRequest {
            name: format!("vms/{VM}"),
            artifact_id: ARTIFACT.to_owned(),
            ..Default::default()
        };
        let begun = hearth.client.vms.clone().freeze_vm(request).await?.into_inner();
        let timeout = Some(duration_to_wire(Duration::from_secs(60)));
        let wait = WaitOperationRequest { name: begun.name, timeout };
        let done = hearth.client.operations.clone().wait_operation(wait).await?.into_inner();
        match done.result {
            Some(Ended::Response(_)) => Ok(()),
            other => Err(Status::internal(format!("it did not freeze: {other:?}"))),
        }
    }

    async fn look(&mut self, host: &Host, hearth: &Hearth) -> Answer<bool> {
        let vm = hearth.get(VM).await?;
        let is_it = vm.uid == self.uid && vm.state() == State::Running;
        check(is_it, || format!("the VM: {vm:?}"))?;
        let list = v1::ListArtifactsRequest::default();
        let artifacts = hearth.client.artifacts.clone().list_artifacts(list).await?.into_inner();
        let artifacts = artifacts.artifacts;
        check(artifacts.len() <= 1, || format!("artifacts: {artifacts:?}"))?;
        let kept = BASELINE + artifacts.len();
        check(host.snapshots() == kept, || format!("{} snapshots, not {kept}", host.snapshots()))?;
        check(host.marks() == artifacts.len(), || format!("{} marks", host.marks()))?;
        let is_marked = vm.preserved != artifacts.is_empty();
        check(is_marked, || format!("preserved: {}", vm.preserved))?;
        if let Some(artifact) = artifacts.first() {
            resume(hearth, artifact).await?;
            delete(hearth).await?;
            check(host.snapshots() == BASELINE, || "an artifact is not gone".to_owned())?;
        }
        use_it(hearth).await?;
        Ok(!artifacts.is_empty())
    }
}

/// Begins a VM from the artifact, and ends it.
async fn resume(hearth: &Hearth, artifact: &v1::Artifact) -> Outcome {
    check(artifact.has_memory && artifact.size_bytes > 0, || format!("{artifact:?}"))?;
    let request = v1::ResumeVmRequest {
        source: Some(v1::resume_vm_request::Source::Artifact(artifact.name.clone())),
        ..Default::default()
    };
    let vm = hearth.client.vms.clone().resume_vm(request).await?.into_inner();
    let is_it = vm.origin() == Origin::Artifact && vm.state() == State::Running;
    check(is_it, || format!("resumed: {vm:?}"))?;
    Ok(hearth.client.release(&vm).await?)
}

/// The VM stops and starts, as ever.
async fn use_it(hearth: &Hearth) -> Outcome {
    let (name, mut vms) = (format!("vms/{VM}"), hearth.client.vms.clone());
    let stop = v1::StopVmRequest { name: name.clone(), ..Default::default() };
    vms.stop_vm(stop).await?;
    let start = v1::StartVmRequest { name, ..Default::default() };
    let vm = vms.start_vm(start).await?.into_inner();
    check(vm.state() == State::Running, || format!("started: {vm:?}"))
}

async fn delete(hearth: &Hearth) -> Outcome {
    let name = format!("artifacts/{ARTIFACT}");
    let request = v1::DeleteArtifactRequest { name, ..Default::default() };
    let artifacts = hearth.client.artifacts.clone();
    // A VM that was just released may use it for a moment.
    Hearth::until("the artifact can be deleted", async || {
        artifacts.clone().delete_artifact(request.clone()).await.is_ok()
    })
    .await
}
