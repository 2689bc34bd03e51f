//! A freeze, killed at every one of its system calls.

use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning::WaitOperationRequest;
use hearth_proto::v1;
use hearth_proto::v1::vm::{Origin, State};
use parking_lot::Mutex;
use tonic::Status;

use crate::host::{Hearth, Host};
use crate::strace::{Site, Strace};
use crate::{Answer, Outcome};

/// Two cores run two hearths.
const WORKERS: u32 = 2;
/// The VM that is frozen again and again.
const VM: &str = "demo";
/// Snapshots that are there without any artifact: that of the default template.
const BASELINE: usize = 1;
/// How often a freeze may be over before its kill.
const MAX_TRIES: usize = 5;

/// Counts the system calls of a freeze, kills one hearth at each, and prints what came of it.
pub(crate) async fn run() -> Outcome {
    let host = Host::new()?;
    let hearth = begin(&host).await?;
    let strace = Strace::attach(hearth.blocking_thread()?, None, &host.path("strace"))?;
    freeze(&hearth, "counted").await?;
    let sites = strace.detach()?;
    let count = sites.len();
    println!("a freeze makes {count} system calls: {}", summary(&sites));
    // Without these it would not be one.
    let has = |name: &str| sites.iter().any(|site| site.name.starts_with(name));
    check(has("rename") && has("fsync") && count > 30, || format!("{sites:?}"))?;
    drop(hearth);

    let left = Mutex::new(sites.into_iter());
    let workers = (0..WORKERS).map(|_| worker(&left));
    let (mut killed, mut whole, mut violations) = (0, 0, Vec::new());
    for done in futures_util::future::try_join_all(workers).await? {
        killed += done.killed;
        whole += done.whole;
        violations.extend(done.violations);
    }
    violations.iter().for_each(|violation| println!("violation: {violation}"));
    println!(
        "freeze {killed} of {count}: {} violations ({whole} whole artifacts, {} none)",
        violations.len(),
        killed - whole
    );
    match violations.is_empty() && killed == count {
        true => Ok(()),
        false => Err(format!("{killed} of {count} kills, {violations:?}").into()),
    }
}

#[derive(Default)]
struct Done {
    killed: usize,
    whole: usize,
    violations: Vec<String>,
}

/// Kills at what no other worker has taken, on a host of its own.
async fn worker(left: &Mutex<std::vec::IntoIter<Site>>) -> Answer<Done> {
    let host = Host::new()?;
    let mut hearth = begin(&host).await?;
    let uid = get(&hearth, VM).await?.uid;
    let mut done = Done::default();
    loop {
        let site = left.lock().next();
        let Some(site) = site else { return Ok(done) };
        hearth = kill_a_freeze_at(&host, hearth, &site).await?;
        done.killed += 1;
        match look(&host, &hearth, &uid).await {
            Ok(is_whole) => done.whole += usize::from(is_whole),
            Err(violation) => {
                done.violations.push(format!("killed at {site}: {violation}"));
                // Whatever is left of it must not be taken for the next one's doing.
                return Ok(done);
            }
        }
    }
}

/// A hearth with the VM. The first freeze has made the thread for blocking calls do all it ever does
/// for the first time, so that the others are alike.
async fn begin(host: &Host) -> Answer<Hearth> {
    let hearth = host.start().await?;
    let templates = hearth.client.templates.clone();
    Hearth::until("the template is ready", async || {
        let name = "templates/default".to_owned();
        let found = templates.clone().get_template(v1::GetTemplateRequest { name }).await;
        found.is_ok_and(|it| it.into_inner().state() == v1::template::State::Ready)
    })
    .await?;
    let request = v1::AcquireVmRequest {
        pool: "pools/default".to_owned(),
        vm_id: VM.to_owned(),
        expiration: Some(v1::acquire_vm_request::Expiration::Ttl(duration_to_wire(
            Duration::from_secs(3600),
        ))),
        ..Default::default()
    };
    hearth.client.acquire(request, Duration::from_secs(60)).await?;
    Ok(hearth)
}

/// Freezes until the kill comes; where a freeze was over without it, having made a call fewer than the
/// one that was counted, another one is begun.
async fn kill_a_freeze_at(host: &Host, mut hearth: Hearth, site: &Site) -> Answer<Hearth> {
    for _ in 0..MAX_TRIES {
        let thread = hearth.blocking_thread()?;
        let strace = Strace::attach(thread, Some(site), &host.path("strace"))?;
        match freeze(&hearth, "cut").await {
            Err(_) => {
                hearth.killed().await?;
                return host.start().await;
            }
            Ok(()) => {
                drop(strace);
                // It may have come after the answer.
                if hearth.is_gone()? {
                    return host.start().await;
                }
                delete(&hearth, "cut").await?;
            }
        }
    }
    Err(format!("no freeze came as far as {site}").into())
}

/// After a kill: a whole artifact or none, and the VM as it was. Answers whether there is one.
async fn look(host: &Host, hearth: &Hearth, uid: &str) -> Answer<bool> {
    let vm = get(hearth, VM).await?;
    check(vm.uid == uid && vm.state() == State::Running, || format!("the VM: {vm:?}"))?;
    let list = v1::ListArtifactsRequest::default();
    let artifacts = hearth.client.artifacts.clone().list_artifacts(list).await?.into_inner();
    let artifacts = artifacts.artifacts;
    check(artifacts.len() <= 1, || format!("artifacts: {artifacts:?}"))?;
    let kept = BASELINE + artifacts.len();
    check(host.snapshots() == kept, || format!("{} snapshots, not {kept}", host.snapshots()))?;
    check(host.marks() == artifacts.len(), || format!("{} marks", host.marks()))?;
    check(vm.preserved != artifacts.is_empty(), || format!("preserved: {}", vm.preserved))?;
    if let Some(artifact) = artifacts.first() {
        resume(hearth, artifact).await?;
        let id = artifact.name.trim_start_matches("artifacts/");
        delete(hearth, id).await?;
        check(host.snapshots() == BASELINE, || "an artifact is not gone".to_owned())?;
    }
    use_it(hearth).await?;
    Ok(!artifacts.is_empty())
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

async fn get(hearth: &Hearth, vm_id: &str) -> Result<v1::Vm, Status> {
    let request = v1::GetVmRequest { name: format!("vms/{vm_id}") };
    hearth.client.vms.clone().get_vm(request).await.map(tonic::Response::into_inner)
}

/// Freezes to the end, or until the server is gone.
async fn freeze(hearth: &Hearth, artifact_id: &str) -> Result<(), Status> {
    let request = v1::FreezeVmRequest {
        name: format!("vms/{VM}"),
        artifact_id: artifact_id.to_owned(),
        ..Default::default()
    };
    let begun = hearth.client.vms.clone().freeze_vm(request).await?.into_inner();
    let timeout = Some(duration_to_wire(Duration::from_secs(60)));
    let wait = WaitOperationRequest { name: begun.name, timeout };
    let done = hearth.client.operations.clone().wait_operation(wait).await?.into_inner();
    match done.result {
        Some(hearth_proto::google::longrunning::operation::Result::Response(_)) => Ok(()),
        other => Err(Status::internal(format!("it did not freeze: {other:?}"))),
    }
}

async fn delete(hearth: &Hearth, artifact_id: &str) -> Outcome {
    let name = format!("artifacts/{artifact_id}");
    let request = v1::DeleteArtifactRequest { name, ..Default::default() };
    let artifacts = hearth.client.artifacts.clone();
    // A VM that was just released may use it for a moment.
    Hearth::until("the artifact can be deleted", async || {
        artifacts.clone().delete_artifact(request.clone()).await.is_ok()
    })
    .await
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// How often each system call was made, in the order of their names.
fn summary(sites: &[Site]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    sites.iter().for_each(|site| *counts.entry(site.name.as_str()).or_insert(0) += 1);
    let words: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    words.join(", ")
}
