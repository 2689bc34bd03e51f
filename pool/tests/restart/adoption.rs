//! Who is warm again after a restart: only who everything agrees on.

use std::time::Duration;

use hearth_pool::env::Env as _;
use hearth_pool::ids::PoolId;
use hearth_pool::journal::{Control, Journal, LeaseRecord, RecordState, Source};
use hearth_pool::pool::PoolConfig;
use hearth_pool::templates::Template;
use hearth_providers::faulty::{Call, Fault, When};
use hearth_providers::model::VmView;
use hearth_providers::{VmId, VmStatus};

use crate::common::*;
use crate::counts::Counts;
use crate::journal;

#[tokio::test(start_paused = true)]
async fn warm_vms_are_adopted_not_restored_anew() {
    let host = Host::new(2);
    let node = host.with_pool(4).await;
    let before = host.faults.count(Call::Restore);
    node.crash().await;
    let node = host.start().await;
    node.settle("default").await;
    assert_eq!((host.live(), host.faults.count(Call::Restore)), (4, before));
    node.take(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_warm_vm_that_does_not_answer_is_reaped_not_adopted() {
    let host = Host::new(6);
    let node = host.with_pool(2).await;
    node.crash().await;
    let mute = host.provider.runtime.list_vms().remove(0);
    host.faults.add_for(&mute.vm_id, Call::Probe, When::Always, Fault::Fail("timeout"));
    let node = host.start().await;
    node.settle("default").await;
    node.until("it is gone", || {
        host.provider.runtime.status(&mute.vm_id) != Some(VmStatus::Running)
    })
    .await;
    assert_eq!(host.live(), 2);
}

/// Changes what a start finds; the VMs were warm when hearth was killed.
type Change = fn(&Host);

const REFUSED: [(&str, Change); 8] = [
    ("another generation of its template", |host| {
        journal(host, |journal| {
            let template = only::<Template>(journal, Control::Template);
            let next = Template { generation: template.generation + 1, ..template };
            journal.write_control(Control::Template, "default", &next).unwrap();
        });
    }),
    ("its pool is gone", |host| {
        journal(host, |journal| journal.forget_control(Control::Pool, "default").unwrap());
    }),
    ("its pool is of another template now", |host| {
        journal(host, |journal| {
            let template = only::<Template>(journal, Control::Template);
            let other = hearth_pool::ids::TemplateId::parse("other").unwrap();
            let config = PoolConfig { template: other.clone(), ..pool("default", DEPTH) };
            journal.write_control(Control::Pool, "default", &config).unwrap();
            let other = Template { id: other, ..template };
            journal.write_control(Control::Template, "other", &other).unwrap();
        });
    }),
    ("a record says that it was given away and taken back", |host| {
        write_records(host, RecordState::Aborted);
    }),
    ("a record says that its tenant has released it", |host| {
        write_records(host, RecordState::Releasing);
    }),
    ("a record says that it is gone", |host| write_records(host, RecordState::Gone)),
    ("somebody has stopped it", |host| {
        for vm in host.provider.runtime.list_vms() {
            host.provider.runtime.stop_vm(&vm.vm_id).unwrap();
        }
    }),
    ("it was put aside to be destroyed", |host| {
        for vm in host.provider.runtime.list_vms() {
            host.provider.runtime.rename_vm(&vm.vm_id, &VmId::warm(vm.uid)).unwrap();
        }
    }),
];

const DEPTH: usize = 2;

fn only<T: serde::de::DeserializeOwned>(journal: &Journal, kind: Control) -> T {
    let mut all = journal.control(kind).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Writes that every VM was a tenant's, and how that ended.
fn write_records(host: &Host, state: RecordState) {
    let record = |vm: VmView| LeaseRecord {
        uid: vm.uid,
        state,
        vm_id: id(&format!("was-{}", vm.uid.to_string().split('-').next().unwrap())),
        pool_vm_id: vm.vm_id,
        provider: "memory".into(),
        pool: Some(PoolId::parse("default").unwrap()),
        template: None,
        generation: 1,
        tenant: hearth_pool::ids::Tenant::anonymous(),
        labels: std::collections::BTreeMap::new(),
        request_id: None,
        fingerprint: 0,
        fence: 1,
        source: Source::Warm,
        boot_id: host.env.boot_id().into(),
        deadline: host.env.boot_time() + Duration::from_secs(3600),
        expire_time: host.env.now() + Duration::from_secs(3600),
        acquire_time: host.env.now(),
    };
    let records: Vec<_> = host.provider.runtime.list_vms().into_iter().map(record).collect();
    journal(host, |journal| {
        records.iter().for_each(|record| journal.write_lease(record).unwrap());
    });
}

#[tokio::test(start_paused = true)]
async fn a_warm_vm_on_which_not_all_agrees_is_destroyed_not_adopted() {
    for (seed, (why, change)) in (20..).zip(REFUSED) {
        let host = Host::new(seed);
        let node = host.with_pool(DEPTH).await;
        node.crash().await;
        let before = host.provider.runtime.list_vms();
        change(&host);
        let counts = Counts::default();
        let _listening = counts.listen();
        let node = host.start().await;
        let lives = |vm: &VmView| host.provider.runtime.get_vm_by_uid(vm.uid);
        let lives = |vm: &VmView| lives(vm).is_some_and(|it| it.status != VmStatus::Destroyed);
        node.until(why, || !before.iter().any(lives)).await;
        // What a record mentions is no orphan.
        let reaped = if why.starts_with("a record") { 0 } else { DEPTH as u64 };
        assert_eq!(counts.reaped("vm"), reaped, "{why}");
        if why.starts_with("its pool") {
            continue;
        }
        node.settle("default").await;
        assert_eq!(host.live(), DEPTH, "{why}");
        let got = node.take(request()).await.unwrap().lease;
        assert!(before.iter().all(|vm| vm.uid != got.uid), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_warm_vm_that_is_too_old_is_destroyed_not_adopted() {
    let max = Duration::from_secs(600);
    for (seed, down, adopted) in [(40, max / 2, DEPTH), (41, max, 0)] {
        let host = Host::new(seed);
        let node = host.start().await;
        node.build_template("default").await;
        let config = PoolConfig { max_warm_age: Some(max), ..pool("default", DEPTH) };
        node.create_pool(config, false).await.unwrap();
        node.settle("default").await;
        node.crash().await;
        let before = host.provider.runtime.list_vms();
        tokio::time::sleep(down).await;
        let counts = Counts::default();
        let _listening = counts.listen();
        let node = host.start().await;
        assert_eq!(counts.reaped("vm"), (DEPTH - adopted) as u64);
        node.settle("default").await;
        node.until("no more than should be", || host.live() == DEPTH).await;
        let now = host.provider.runtime.list_vms();
        let same = now.iter().filter(|vm| before.iter().any(|it| it.uid == vm.uid)).count();
        assert_eq!(same, adopted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_warm_vm_that_a_record_has_is_its_tenants() {
    let host = Host::new(42);
    let node = host.with_pool(1).await;
    node.crash().await;
    let vm = host.provider.runtime.list_vms().remove(0);
    write_records(&host, RecordState::Leased);
    let node = host.start().await;
    let lease = node.lease_by_uid(vm.uid, None).unwrap();
    assert_eq!(host.provider.runtime.get_vm_by_uid(vm.uid).unwrap().vm_id, lease.held().vm_id);
    node.settle("default").await;
    assert_ne!(node.take(request()).await.unwrap().lease.uid, vm.uid);
}

#[tokio::test(start_paused = true)]
async fn a_paused_warm_vm_is_adopted_paused() {
    let host = Host::new(43);
    let node = host.start().await;
    node.build_template("default").await;
    let warm_state = hearth_pool::pool::WarmState::Paused;
    let config = PoolConfig { warm_state, ..pool("default", DEPTH) };
    node.create_pool(config, false).await.unwrap();
    node.settle("default").await;
    node.crash().await;
    let before = host.faults.count(Call::Restore);
    let node = host.start().await;
    node.settle("default").await;
    assert_eq!((host.live(), host.faults.count(Call::Restore)), (DEPTH, before));
    let got = node.take(request()).await.unwrap().lease;
    assert_eq!(host.provider.runtime.status(&got.held().vm_id), Some(VmStatus::Running));
}
