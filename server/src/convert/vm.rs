//! VMs, leases and snapshots.

use hearth_pool::acquire::Acquired;
use hearth_pool::freeze::Artifact;
use hearth_pool::ids::ArtifactId;
use hearth_pool::journal::Source;
use hearth_pool::manager::VmInfo;
use hearth_pool::metrics::Timing;
use hearth_proto::names;
use hearth_proto::v1;
use hearth_providers::VmId;
use hearth_providers::model::{self, EndpointKind, SnapshotView, VmStatus};

use super::{duration, time};
use crate::auth::Caller;

/// A VM, as `caller` may see it.
pub(crate) fn vm(info: &VmInfo, caller: &Caller) -> v1::Vm {
    let (view, lease) = (&info.view, info.lease.as_ref());
    let origin = match (&info.template, lease) {
        _ if info.resumed_from.is_some() => v1::vm::Origin::Artifact,
        (Some(_), _) => v1::vm::Origin::Template,
        (None, Some(_)) => v1::vm::Origin::Spec,
        (None, None) => v1::vm::Origin::Unspecified,
    };
    v1::Vm {
        name: name(&view.vm_id),
        uid: view.uid.to_string(),
        state: state(view.status).into(),
        tenant: lease.map(|lease| lease.tenant.as_str().to_owned()).unwrap_or_default(),
        lease: lease.map(|lease| v1::Lease {
            expire_time: time(lease.held().expire_time),
            request_id: lease
                .request
                .as_ref()
                .map_or_else(String::new, |it| it.request_id.as_str().to_owned()),
            fence: lease.fence,
        }),
        provider: info.provider.name.to_string(),
        pool: info.pool.as_ref().map(|pool| names::POOLS.name(pool.as_str())).unwrap_or_default(),
        template: info
            .template
            .as_ref()
            .map(|(template, _)| names::TEMPLATES.name(template.as_str()))
            .unwrap_or_default(),
        template_generation: info.template.as_ref().map_or(0, |(_, generation)| *generation),
        labels: lease.map(|lease| lease.labels.clone()).unwrap_or_default(),
        endpoints: view.endpoints.iter().map(endpoint).collect(),
        create_time: time(view.create_time),
        acquire_time: lease.and_then(|lease| time(lease.acquire_time)),
        process: view.process.as_ref().filter(|_| caller.is_operator()).map(process),
        origin: origin.into(),
        snapshots: view.snapshots.iter().map(ToString::to_string).collect(),
        artifact: info.artifact.as_ref().map(artifact_name).unwrap_or_default(),
        preserved: info.artifact.is_some(),
        failure: view.failure.as_ref().map(failure),
    }
}

/// The name of a VM.
pub(crate) fn name(vm_id: &VmId) -> String {
    names::VMS.name(vm_id.as_str())
}

/// The name of an artifact.
pub(crate) fn artifact_name(id: &ArtifactId) -> String {
    names::ARTIFACTS.name(id.as_str())
}

/// An artifact.
pub(crate) fn artifact(artifact: &Artifact) -> v1::Artifact {
    v1::Artifact {
        name: artifact_name(&artifact.id),
        uid: artifact.uid.to_string(),
        provider: artifact.provider.clone(),
        reference: artifact.reference.clone(),
        vm: name(&artifact.vm_id),
        has_memory: artifact.has_memory,
        size_bytes: i64::try_from(artifact.size_bytes).unwrap_or(i64::MAX),
        resume_hint: artifact.resume_hint.clone(),
        export_hint: artifact.export_hint.clone(),
        create_time: time(artifact.create_time),
        expire_time: time(artifact.expire_time),
        tenant: artifact.tenant.as_str().to_owned(),
        template: artifact
            .template
            .as_ref()
            .map(|(template, _)| names::TEMPLATES.name(template.as_str()))
            .unwrap_or_default(),
    }
}

/// What an acquire got.
pub(crate) fn acquired(
    acquired: &Acquired,
    info: &VmInfo,
    caller: &Caller,
) -> v1::AcquireVmResponse {
    use v1::acquire_vm_response::Source as WireSource;
    let source = match acquired.lease.source {
        Source::Warm => WireSource::Warm,
        Source::Cold => WireSource::Cold,
    };
    v1::AcquireVmResponse {
        vm: Some(vm(info, caller)),
        source: source.into(),
        replayed: acquired.replayed,
        timing: Some(timing(&acquired.timing)),
    }
}

fn timing(timing: &Timing) -> v1::Timing {
    // A stage that did not occur took no time at all.
    let stage = |took: std::time::Duration| if took.is_zero() { None } else { duration(took) };
    v1::Timing {
        queue: stage(timing.queue),
        select: stage(timing.select),
        commit: stage(timing.commit),
        resume: stage(timing.resume),
        identity: None,
        restore: stage(timing.restore),
        total: stage(timing.total),
    }
}

/// A snapshot of the VM that is called `vm_id` now.
pub(crate) fn snapshot(view: &SnapshotView, vm_id: &str) -> v1::Snapshot {
    v1::Snapshot {
        name: names::snapshot_name(vm_id, view.snapshot_id.as_str()),
        uid: view.uid.to_string(),
        has_memory: view.has_memory,
        size_bytes: i64::try_from(view.size_bytes).unwrap_or(i64::MAX),
        made_with: view.made_with.clone(),
        pinned_by: view.pinned_by.iter().map(|holder| pin_name(holder)).collect(),
        create_time: time(view.create_time),
        vm_uid: view.vm_uid.to_string(),
    }
}

/// A pin by the name of the resource that has it; VMs are known by their uid here.
fn pin_name(holder: &str) -> String {
    match holder.split_once(':') {
        Some(("template", generation)) => format!("templates/{generation}"),
        Some(("artifact", id)) => format!("artifacts/{id}"),
        _ => holder.to_owned(),
    }
}

/// The name of a state in filters, without its prefix.
pub(crate) fn state_name(status: VmStatus) -> &'static str {
    match status {
        VmStatus::Created => "CREATED",
        VmStatus::Running => "RUNNING",
        VmStatus::Stopped => "STOPPED",
        VmStatus::Failed => "FAILED",
        VmStatus::Destroyed => "DESTROYED",
    }
}

/// The same of a state on the wire.
pub(crate) const fn wire_state_name(state: v1::vm::State) -> &'static str {
    use v1::vm::State;
    match state {
        State::Unspecified => "UNSPECIFIED",
        State::Created => "CREATED",
        State::Running => "RUNNING",
        State::Stopped => "STOPPED",
        State::Failed => "FAILED",
        State::Destroyed => "DESTROYED",
    }
}

const fn state(status: VmStatus) -> v1::vm::State {
    match status {
        VmStatus::Created => v1::vm::State::Created,
        VmStatus::Running => v1::vm::State::Running,
        VmStatus::Stopped => v1::vm::State::Stopped,
        VmStatus::Failed => v1::vm::State::Failed,
        VmStatus::Destroyed => v1::vm::State::Destroyed,
    }
}

/// What lies behind an address.
pub(crate) const fn endpoint_kind(kind: EndpointKind) -> v1::endpoint::Kind {
    match kind {
        EndpointKind::Serial => v1::endpoint::Kind::Serial,
        EndpointKind::Vsock => v1::endpoint::Kind::Vsock,
        EndpointKind::Tcp => v1::endpoint::Kind::Tcp,
        EndpointKind::Unix => v1::endpoint::Kind::Unix,
    }
}

fn endpoint(endpoint: &model::Endpoint) -> v1::Endpoint {
    let kind = endpoint_kind(endpoint.kind);
    v1::Endpoint { kind: kind.into(), address: endpoint.address.clone() }
}

fn process(process: &model::VmmProcess) -> v1::Process {
    v1::Process {
        pid: i64::from(process.pid),
        start_time: time(process.start_time),
        executable: process.executable.display().to_string(),
    }
}

fn failure(failure: &model::Failure) -> v1::Failure {
    // The provider has one number for both, as shells do.
    let (status, signal) = match failure.exit_status {
        Some(ended) if ended > 128 => (None, Some(ended - 128)),
        status => (status, None),
    };
    v1::Failure {
        reason: "VM_ENDED".to_owned(),
        message: failure.reason.clone(),
        time: time(failure.time),
        exit_status: status,
        exit_signal: signal,
        console_tail: failure.console_tail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_signal_is_told_from_an_exit_status() {
        let ended = |exit_status| {
            let (reason, console_tail) = ("it ended".to_owned(), String::new());
            let time = SystemTime::UNIX_EPOCH;
            let shown = failure(&model::Failure { reason, time, exit_status, console_tail });
            (shown.exit_status, shown.exit_signal)
        };
        assert_eq!(ended(None), (None, None));
        assert_eq!(ended(Some(0)), (Some(0), None));
        assert_eq!(ended(Some(1)), (Some(1), None));
        assert_eq!(ended(Some(137)), (None, Some(9)));
    }
}
