//! Another boot of the host: what looks alive was started anew, and is nobody's any more.
//!
//! The boot's id is substituted; the provider still has everything, as a container engine may that
//! starts with the host.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_pool::acquire::{AcquireRequest, Expiration};
use hearth_pool::env::{Env, VirtualEnv};
use hearth_pool::freeze::{FreezeRequest, ResumeRequest, ResumeSource};
use hearth_pool::ids::{ArtifactId, Tenant};
use hearth_pool::journal::{LeaseRecord, RecordState};
use hearth_pool::operations::Outcome;
use hearth_providers::VmStatus;
use hearth_providers::model::VmView;

use crate::common::*;
use crate::counts::Counts;
use crate::{journal, only_lease};

/// The world after the host was restarted.
#[derive(Debug)]
struct Rebooted {
    before: Arc<VirtualEnv>,
    boot_time: Duration,
}

impl Rebooted {
    fn of(host: &Host) -> Arc<Self> {
        Arc::new(Self { before: Arc::clone(&host.env), boot_time: host.env.boot_time() })
    }
}

impl Env for Rebooted {
    fn now(&self) -> SystemTime {
        self.before.now()
    }

    fn boot_time(&self) -> Duration {
        self.before.boot_time() - self.boot_time
    }

    fn boot_id(&self) -> String {
        "another".to_owned()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.before.fill(bytes);
    }
}

fn lives(host: &Host, vm: &VmView) -> bool {
    let view = host.provider.runtime.get_vm_by_uid(vm.uid);
    view.is_some_and(|it| it.status != VmStatus::Destroyed)
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_host_no_vm_is_warm_and_every_lease_is_failed() {
    let host = Host::new(50);
    let node = host.with_pool(2).await;
    let hour = Some(Expiration::After(Duration::from_secs(3600)));
    let asked = AcquireRequest { vm_id: Some(id("mine")), expiration: hour, ..identified("r") };
    let lease = node.take(asked.clone()).await.unwrap().lease;
    node.take(named("frozen")).await.unwrap();
    let artifact = ArtifactId::parse("kept").unwrap();
    let freeze = FreezeRequest {
        vm_id: id("frozen"),
        uid: None,
        tenant: None,
        artifact_id: Some(artifact.clone()),
        allow_stop: false,
        ttl: None,
    };
    let operation = node.freeze_vm(freeze).await.unwrap();
    let ended = node.operations().wait(&operation, Duration::from_secs(600)).await.unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Done)), "{ended:?}");
    node.settle("default").await;
    node.crash().await;
    let before = host.provider.runtime.list_vms();
    assert_eq!(before.len(), 4);

    let counts = Counts::default();
    let listening = counts.listen();
    let node = host.open_in(Rebooted::of(&host));
    node.start(false).await.unwrap();
    node.until("no VM of the former boot lives", || !before.iter().any(|vm| lives(&host, vm)))
        .await;
    assert_eq!(counts.reaped("vm"), 2, "the warm ones; the others are in records");
    drop(listening);
    for name in ["mine", "frozen"] {
        let status = node.vm(&id(name), None).unwrap().view.status;
        assert_eq!(status, VmStatus::Failed, "{name}");
    }
    let again = node.take(asked.clone()).await.unwrap();
    assert_eq!((again.replayed, again.lease.uid), (true, lease.uid));
    assert_eq!(reason(node.take(named("mine")).await), "already_exists");

    // New ones take their place, the artifact can be resumed, and what is released is free.
    node.settle("default").await;
    assert_eq!(host.live(), 2);
    let resume = ResumeRequest {
        source: ResumeSource::Artifact(artifact),
        tenant: Tenant::anonymous(),
        is_operator: true,
        vm_id: Some(id("resumed")),
        ttl: None,
        labels: std::collections::BTreeMap::new(),
        request_id: None,
    };
    node.resume_vm(resume).await.unwrap();
    assert_eq!(host.provider.runtime.status(&id("resumed")), Some(VmStatus::Running));
    node.release_named(&id("frozen")).await.unwrap();
    node.take(named("frozen")).await.unwrap();
    node.settle("default").await;
    // What is left of a lease's time is known by the wall clock.
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.crash().await;
    let node = host.open_in(Rebooted::of(&host));
    node.start(false).await.unwrap();
    assert!(node.take(asked.clone()).await.unwrap().replayed);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert_eq!(reason(node.take(asked).await), "lease_expired");
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_another_boot_is_not_finished() {
    let host = Host::new(51);
    let node = host.with_pool(0).await;
    node.take(named("mine")).await.unwrap();
    node.crash().await;
    host.provider.runtime.pause_vm(&id("mine")).unwrap();
    journal(&host, |journal| {
        let record = LeaseRecord { state: RecordState::Resuming, ..only_lease(journal) };
        journal.write_lease(&record).unwrap();
    });
    let node = host.open_in(Rebooted::of(&host));
    node.start(false).await.unwrap();
    node.until("it is destroyed", || host.live() == 0).await;
    node.release_named(&id("mine")).await.unwrap();
    node.take(named("mine")).await.unwrap();
}
