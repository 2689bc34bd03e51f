//! Frozen VMs: whole or not at all, kept, resumed, and gone in their time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::error::Error;
use hearth_pool::freeze::{FreezeRequest, ResumeRequest, ResumeSource};
use hearth_pool::ids::{ArtifactId, RequestId, Tenant};
use hearth_pool::operations::Outcome;
use hearth_providers::agent::Agent;
use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::faulty::{Call, Fault, When};
use hearth_providers::{VmId, VmRuntimeError, VmStatus};

fn artifact(text: &str) -> ArtifactId {
    ArtifactId::parse(text).unwrap()
}

fn freezing(vm: &str, name: &str) -> FreezeRequest {
    FreezeRequest {
        vm_id: id(vm),
        uid: None,
        tenant: None,
        artifact_id: Some(artifact(name)),
        allow_stop: false,
        ttl: None,
    }
}

fn resuming(source: ResumeSource) -> ResumeRequest {
    ResumeRequest {
        source,
        tenant: Tenant::anonymous(),
        is_operator: true,
        vm_id: None,
        ttl: None,
        labels: BTreeMap::new(),
        request_id: None,
    }
}

fn of_artifact(name: &str) -> ResumeRequest {
    resuming(ResumeSource::Artifact(artifact(name)))
}

impl Node {
    async fn freeze(&self, request: FreezeRequest) -> Result<(), Arc<Error>> {
        let operation = self.freeze_vm(request).await.map_err(Arc::new)?;
        let ended = self.operations().wait(&operation, Duration::from_secs(600)).await.unwrap();
        match ended.outcome.unwrap() {
            Outcome::Done => Ok(()),
            Outcome::Failed(error) => Err(error),
        }
    }
}

fn ask(host: &Host, vm_id: &VmId, request: &str) -> String {
    let channel = host.provider.runtime.guest_channel(vm_id).unwrap();
    let limit = Duration::from_secs(5);
    Agent::greet(channel, SystemEnv.uid(), limit).unwrap().ask(request, limit).unwrap()
}

fn frozen_snapshots(host: &Host) -> usize {
    let all = host.provider.runtime.all_snapshots();
    all.iter().filter(|it| it.snapshot_id.as_str().starts_with("frozen-")).count()
}

#[tokio::test(start_paused = true)]
async fn a_frozen_vm_goes_on_where_it_stood_under_its_old_name() {
    let host = Host::new(1);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    ask(&host, &id("mine"), "write note kept");
    ask(&host, &id("mine"), "name of-mine");
    node.freeze(freezing("mine", "one")).await.unwrap();
    let kept = node.artifact(&artifact("one"), None).unwrap();
    assert_eq!(node.vm(&id("mine"), None).unwrap().artifact, Some(artifact("one")));
    assert!(kept.has_memory);
    assert_eq!(kept.resume_hint, "hearth resume one");
    assert_eq!(host.provider.runtime.status(&id("mine")), Some(VmStatus::Running));

    // The name is taken: another one is given.
    let retried = || ResumeRequest { request_id: Some(RequestId::new("r")), ..of_artifact("one") };
    let other = node.resume_vm(retried()).await.unwrap().lease;
    let replayed = node.resume_vm(retried()).await.unwrap();
    assert!(replayed.replayed && replayed.lease.uid == other.uid);
    assert_ne!(other.held().vm_id, id("mine"));
    assert!(ask(&host, &other.held().vm_id, "ping").ends_with("name=of-mine"));
    node.release_named(&other.held().vm_id).await.unwrap();
    node.release_named(&id("mine")).await.unwrap();
    node.until("both are gone", || host.live() == 1).await;

    let again = node.resume_vm(resuming(ResumeSource::Vm(id("mine"), None))).await.unwrap().lease;
    assert_eq!(again.held().vm_id, id("mine"));
    assert_eq!(ask(&host, &id("mine"), "read note"), "data kept");
    let info = node.vm(&id("mine"), None).unwrap();
    let from = node.artifact_by_snapshot(info.view.restored_from.unwrap()).unwrap();
    assert_eq!(from, artifact("one"));
    assert_eq!(info.resumed_from, Some(from));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_fails_anywhere_leaves_nothing_and_the_vm_unharmed() {
    for call in [Call::Snapshot, Call::Pin, Call::Preserve] {
        for fault in [Fault::Fail("backend"), Fault::LoseAnswer("timeout")] {
            let host = Host::new(2);
            let node = host.with_pool(1).await;
            node.take(named("mine")).await.unwrap();
            host.faults.add(call, When::Next(1), fault);
            node.freeze(freezing("mine", "one")).await.unwrap_err();
            assert_eq!(frozen_snapshots(&host), 0, "{call:?} {fault:?}");
            assert!(node.artifacts(None).is_empty());
            assert!(ask(&host, &id("mine"), "ping").starts_with("pong"));
            node.freeze(freezing("mine", "one")).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_a_whole_artifact_or_none() {
    let host = Host::new(3);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    node.freeze(freezing("mine", "whole")).await.unwrap();
    let runtime = &host.provider.runtime;
    // Killed after each of the provider's steps: nobody wrote down what they were for.
    let uid = runtime.get_vm(&id("mine")).unwrap().uid;
    for pinned in [false, true] {
        let snapshot_id = hearth_providers::freeze::snapshot_id(host.env.uid()).unwrap();
        runtime.snapshot_vm(&id("mine"), &snapshot_id).unwrap();
        if pinned {
            let reference = hearth_providers::SnapshotRef {
                source: hearth_providers::model::SnapshotSource::VmUid(uid),
                snapshot_id,
                resume_immediately: false,
                network_overrides: Vec::new(),
            };
            runtime.pin_snapshot(&reference, "artifact:lost").unwrap();
        }
    }
    assert_eq!(frozen_snapshots(&host), 3);
    node.crash().await;
    let node = host.start().await;
    assert_eq!(frozen_snapshots(&host), 1);
    let names: Vec<_> = node.artifacts(None).iter().map(|it| it.id.to_string()).collect();
    assert_eq!(names, ["whole"]);
    assert!(ask(&host, &id("mine"), "ping").starts_with("pong"));
    node.resume_vm(of_artifact("whole")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_artifact_whose_data_is_gone_begins_anew_from_its_template() {
    let host = Host::new(4);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    ask(&host, &id("mine"), "name of-mine");
    node.freeze(freezing("mine", "one")).await.unwrap();
    let kept = node.artifact(&artifact("one"), None).unwrap();
    // Somebody deleted it behind our back.
    let of = (kept.snapshot.uid, &kept.snapshot.snapshot_id);
    let runtime = &*host.provider.runtime;
    hearth_providers::freeze::undo(runtime, of, kept.snapshot.vm_uid, "one").unwrap();
    let anew = node.resume_vm(of_artifact("one")).await.unwrap().lease;
    assert_eq!(anew.template.as_ref().unwrap().0.as_str(), "default");
    assert!(ask(&host, &anew.held().vm_id, "ping").ends_with("name=template"));
}

#[tokio::test(start_paused = true)]
async fn an_artifact_that_a_vm_runs_from_is_not_deleted_and_goes_later() {
    let host = Host::new(5);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    let ttl = Some(Duration::from_secs(60));
    node.freeze(FreezeRequest { ttl, ..freezing("mine", "one") }).await.unwrap();
    let resumed = node.resume_vm(of_artifact("one")).await.unwrap().lease;
    assert_eq!(reason(node.delete_artifact(&artifact("one"), None, None).await), "in_use");
    host.env.step_wall_clock(Duration::from_secs(120));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.artifacts(None).len(), 1, "a VM runs from it");
    node.release_named(&resumed.held().vm_id).await.unwrap();
    node.until("it has expired", || node.artifacts(None).is_empty()).await;
    node.until("its data is gone", || frozen_snapshots(&host) == 0).await;
    assert_eq!(reason(node.resume_vm(of_artifact("one")).await), "not_found");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_frozen_is_refused() {
    let host = Host::new(6);
    let node = host.with_pool(1).await;
    assert_eq!(reason(node.freeze_vm(freezing("nobody", "one")).await), "not_found");
    node.take(named("mine")).await.unwrap();
    node.settle("default").await;
    let warm = node.vms(None).into_iter().find(|vm| vm.lease.is_none()).unwrap().view.vm_id;
    assert_eq!(reason(node.freeze_vm(freezing(warm.as_str(), "one")).await), "vm_in_pool");
    node.freeze(freezing("mine", "one")).await.unwrap();
    assert_eq!(reason(node.freeze_vm(freezing("mine", "one")).await), "already_exists");
    let long = Some(Duration::from_secs(400 * 24 * 3600));
    let refused = node.freeze_vm(FreezeRequest { ttl: long, ..freezing("mine", "two") }).await;
    assert_eq!(reason(refused), "invalid_argument");
    let stranger = Tenant::new("stranger");
    let theirs = node.artifact(&artifact("one"), Some(&stranger));
    assert_eq!(reason(theirs), "not_found");
}

#[tokio::test(start_paused = true)]
async fn a_vm_without_a_record_is_frozen_by_its_name_alone() {
    let host = Host::new(7);
    let node = host.with_pool(1).await;
    // As one that an earlier age made: nothing of ours says what it is.
    let runtime = &host.provider.runtime;
    runtime.create_vm(&id("old")).unwrap();
    runtime.start_vm(&id("old")).unwrap();
    ask(&host, &id("old"), "write note kept");
    let tenant = Some(Tenant::new("somebody"));
    let by_tenant = FreezeRequest { tenant, ..freezing("old", "theirs") };
    assert_eq!(reason(node.freeze_vm(by_tenant).await), "not_found");
    let uid = Some(host.env.uid());
    let wrong = FreezeRequest { uid, ..freezing("old", "wrong") };
    assert_eq!(reason(node.freeze_vm(wrong).await), "uid_mismatch");

    node.freeze(freezing("old", "saved")).await.unwrap();
    let saved = node.artifact(&artifact("saved"), None).unwrap();
    assert_eq!((saved.tenant.as_str(), &saved.template), ("", &None), "what is not known is blank");
    assert_eq!(reason(node.artifact(&artifact("saved"), Some(&Tenant::anonymous()))), "not_found");
    assert_eq!(runtime.status(&id("old")), Some(VmStatus::Running));
    runtime.destroy_vm(&id("old")).unwrap();
    node.resume_vm(of_artifact("saved")).await.unwrap();
    assert_eq!(ask(&host, &id("old"), "read note"), "data kept");
    // Now it has a lease, and goes its usual way.
    node.freeze(freezing("old", "again")).await.unwrap();
    assert_eq!(node.artifact(&artifact("again"), None).unwrap().tenant, Tenant::anonymous());
    // Without data there is nothing to begin from: no template is known.
    let of = (saved.snapshot.uid, &saved.snapshot.snapshot_id);
    node.release_named(&id("old")).await.unwrap();
    node.until("it is gone", || host.live() == 1).await;
    hearth_providers::freeze::undo(&**runtime, of, saved.snapshot.vm_uid, "saved").unwrap();
    let error = node.resume_vm(of_artifact("saved")).await.unwrap_err();
    assert!(matches!(error, Error::Provider(VmRuntimeError::SnapshotNotFound { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_vm_is_not_frozen() {
    let host = Host::new(8);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    ask(&host, &id("mine"), "panic");
    let error = node.freeze(freezing("mine", "one")).await.unwrap_err();
    let is_dead = matches!(&*error, Error::Provider(VmRuntimeError::InvalidTransition { .. }));
    assert!(is_dead, "{error:?}");
    assert!(node.artifacts(None).is_empty() && frozen_snapshots(&host) == 0);
}

#[tokio::test(start_paused = true)]
async fn an_artifact_is_exported_and_stays_meanwhile() {
    let host = Host::new(9);
    let node = host.with_pool(1).await;
    node.take(named("mine")).await.unwrap();
    ask(&host, &id("mine"), "write note kept");
    node.freeze(freezing("mine", "one")).await.unwrap();
    let (data, reader) = std::io::pipe().map(|(reader, data)| (data, reader)).unwrap();
    node.export_artifact(&artifact("one"), None, data).await.unwrap();
    let text = std::io::read_to_string(reader).unwrap();
    assert!(text.contains("guest.json") && text.contains("kept"), "{text}");
    let stranger = Tenant::new("stranger");
    let theirs = node.export_artifact(&artifact("one"), Some(&stranger), Vec::new()).await;
    assert_eq!(reason(theirs), "not_found");
    let used = node.usage().await.unwrap();
    let [(name, used)] = used.as_slice() else { panic!("{used:?}") };
    assert_eq!(**name, *host.provider.name);
    assert_eq!((used.artifacts.count, used.snapshots.count), (1, 1), "the template's is the other");
    assert!(used.artifacts.bytes > 0 && used.instances.count >= 2 && used.quarantine.count == 0);
}
