//! Templates over time: what is kept of them, and the way back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::acquire::AcquireRequest;
use hearth_pool::error::Error;
use hearth_pool::ids::TemplateId;
use hearth_pool::journal::{Control, Journal};
use hearth_pool::operations::Outcome;
use hearth_pool::pool::Overflow;
use hearth_pool::templates::{KEPT_GENERATIONS, Template, TemplateState};
use hearth_providers::faulty::{Call, Fault, When};

const PATIENCE: Duration = Duration::from_secs(60);

fn default() -> TemplateId {
    TemplateId::parse("default").unwrap()
}

fn kept(node: &Node) -> Vec<Arc<Template>> {
    node.generations(&default()).unwrap()
}

/// Numbers and states, the newest first.
fn states(node: &Node) -> Vec<(i64, char)> {
    let letter = |state: &TemplateState| match state {
        TemplateState::Building => 'B',
        TemplateState::Ready => 'R',
        TemplateState::Failed(_) => 'F',
    };
    kept(node).iter().map(|it| (it.generation, letter(&it.state))).collect()
}

/// Pins of templates, wherever they are.
fn pins(host: &Host) -> BTreeSet<String> {
    let all = host.provider.runtime.all_snapshots().into_iter();
    all.flat_map(|it| it.pinned_by).filter(|pin| pin.starts_with("template:")).collect()
}

/// That what is kept is pinned, and nothing else is.
fn assert_pinned(host: &Host, node: &Node) {
    let kept = kept(node);
    let whole = kept.iter().filter(|it| it.snapshot.is_some());
    assert_eq!(pins(host), whole.map(|it| it.pin()).collect());
}

/// Has the next build fail, and builds.
async fn fail_build(host: &Host, node: &Node) {
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    let operation = node.create_template(template("default"), true).await.unwrap();
    let ended = node.operations().wait(&operation, PATIENCE).await.unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Failed(_))), "{ended:?}");
}

/// What a caller gets now, restored for it alone.
async fn generation_of_a_cold_one(node: &Node) -> i64 {
    let cold = AcquireRequest { overflow: Some(Overflow::ColdOnly), ..request() };
    let got = node.take(cold).await.unwrap();
    node.release_named(&got.lease.held().vm_id).await.unwrap();
    got.lease.template.clone().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn the_last_generations_are_kept_across_restarts_and_older_ones_let_go() {
    let host = Host::new(1);
    let node = host.with_pool(1).await;
    for _ in 0..5 {
        node.rebuild("default").await;
    }
    fail_build(&host, &node).await;
    let listed = vec![(7, 'F'), (6, 'R'), (5, 'R'), (4, 'R'), (3, 'R')];
    assert_eq!(states(&node), listed);
    assert_pinned(&host, &node);
    assert_eq!(node.template(&default()).unwrap().generation, 6);
    let before = kept(&node);
    node.crash().await;
    let node = host.start().await;
    assert_eq!(kept(&node), before);
    assert_pinned(&host, &node);
    assert_eq!(reason(node.generation(&default(), 2)), "not_found");
    assert!(node.generation(&default(), 3).unwrap().not_ready().is_none());
    assert_eq!(kept(&node).len(), KEPT_GENERATIONS + 1);
    // Deleted, all of it is let go.
    node.delete_pool(&hearth_pool::ids::PoolId::parse("default").unwrap(), "", true).await.unwrap();
    node.delete_template(&default(), "").await.unwrap();
    assert_eq!(reason(node.generations(&default())), "not_found");
    node.until("no VM is left", || host.live() == 0).await;
    assert_eq!(host.provider.runtime.all_snapshots(), []);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_a_new_generation_of_the_same_make_and_builds_nothing() {
    let host = Host::new(2);
    let node = host.with_pool(1).await;
    node.rebuild("default").await;
    let first = node.generation(&default(), 1).unwrap();
    let before = (host.faults.count(Call::Create), host.faults.count(Call::Snapshot));
    let made = node.roll_back_template(&default(), 0, "").await.unwrap();
    assert_eq!((made.generation, &made.state), (3, &TemplateState::Ready));
    assert!(made.is_same_make(&first) && made.etag != first.etag);
    assert!(!made.is_same_make(&node.generation(&default(), 2).unwrap()));
    assert_eq!((made.create_time, first.create_time.is_some()), (first.create_time, true));
    assert_eq!((host.faults.count(Call::Create), host.faults.count(Call::Snapshot)), before);
    assert_pinned(&host, &node);
    node.settle("default").await;
    assert_eq!(generation_of_a_cold_one(&node).await, 3);
    // And forth again: the last one before this.
    let made = node.roll_back_template(&default(), 0, "").await.unwrap();
    assert!(made.is_same_make(&node.generation(&default(), 2).unwrap()));
    // The snapshot of the first goes with the last of those that share it.
    for _ in 0..3 {
        node.rebuild("default").await;
    }
    assert_eq!(states(&node), [(7, 'R'), (6, 'R'), (5, 'R'), (4, 'R')]);
    assert_pinned(&host, &node);
    let shared = node.generation(&default(), 4).unwrap().snapshot.clone().unwrap();
    let is_there = |uid| host.provider.runtime.all_snapshots().iter().any(|it| it.uid == uid);
    assert!(is_there(shared.uid));
    // A clone of it is about to be gone.
    node.until("it is gone", || !is_there(first.snapshot.as_ref().unwrap().uid)).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_gone_back_to_says_why_and_changes_nothing() {
    let host = Host::new(3);
    let node = host.with_pool(0).await;
    let back = async |generation, etag: &str| {
        reason(node.roll_back_template(&default(), generation, etag).await)
    };
    assert_eq!(back(0, "").await, "not_found");
    node.rebuild("default").await;
    fail_build(&host, &node).await;
    assert_eq!(back(3, "").await, "template_not_ready");
    assert_eq!(back(9, "").await, "not_found");
    assert_eq!(back(2, "").await, "invalid_argument");
    assert_eq!(back(1, "old").await, "etag_mismatch");
    let absent = TemplateId::parse("absent").unwrap();
    assert_eq!(reason(node.roll_back_template(&absent, 0, "").await), "not_found");
    for kind in ["snapshot_incompatible", "snapshot_not_found"] {
        for generation in [0, 1] {
            host.faults.add(Call::Fits, When::Next(1), Fault::Fail(kind));
            assert_eq!(back(generation, "").await, "template_not_ready", "{kind}");
        }
    }
    host.faults.add(Call::Pin, When::Next(1), Fault::Fail("exhausted"));
    assert_eq!(back(1, "").await, "exhausted");
    assert_eq!(states(&node), [(3, 'F'), (2, 'R'), (1, 'R')]);
    assert_eq!(node.template(&default()).unwrap().generation, 2);
    assert_pinned(&host, &node);
    let etag = node.template(&default()).unwrap().etag.clone();
    assert_eq!(node.roll_back_template(&default(), 1, &etag).await.unwrap().generation, 4);
}

#[tokio::test(start_paused = true)]
async fn a_failed_canary_goes_back_once_however_many_say_so() {
    let host = Host::new(4);
    let node = host.with_pool(1).await;
    let no_good = || "its first VM does not answer".to_owned();
    assert!(!node.roll_back_canary(&default(), 1, no_good()).await, "there is none before");
    assert_eq!(states(&node), [(1, 'R')]);
    node.rebuild("default").await;
    let id = default();
    let told = || node.roll_back_canary(&id, 2, no_good());
    let (first, second) = tokio::join!(told(), told());
    assert!(first && second);
    assert_eq!(states(&node), [(3, 'R'), (2, 'F'), (1, 'R')]);
    let failed = node.generation(&default(), 2).unwrap();
    assert_eq!(failed.state, TemplateState::Failed(no_good()));
    assert_pinned(&host, &node);
    // What is gone back to is of the same make as the first: there is nothing before that.
    assert!(!node.roll_back_canary(&default(), 3, no_good()).await);
    assert!(node.roll_back_canary(&default(), 2, no_good()).await, "that one is not current");
    let before = kept(&node);
    node.crash().await;
    let node = host.start().await;
    assert_eq!(kept(&node), before);
    node.settle("default").await;
    assert_eq!(generation_of_a_cold_one(&node).await, 3);
}

#[tokio::test(start_paused = true)]
async fn one_build_at_a_time_and_a_rollback_beside_it_is_overtaken() {
    let host = Host::new(5);
    let node = host.with_pool(0).await;
    node.rebuild("default").await;
    let building = node.create_template(template("default"), true).await.unwrap();
    assert_eq!(states(&node), [(3, 'B'), (2, 'R'), (1, 'R')]);
    let again = node.create_template(template("default"), true).await.unwrap_err();
    assert!(matches!(again, Error::TemplateNotReady { retry_after: Some(_), .. }), "{again:?}");
    assert_eq!(reason(node.roll_back_template(&default(), 3, "").await), "template_not_ready");
    assert_eq!(node.roll_back_template(&default(), 0, "").await.unwrap().generation, 4);
    let ended = node.operations().wait(&building, PATIENCE).await.unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Done)), "{ended:?}");
    // What was asked for is current, under a number that says so.
    assert_eq!(node.template(&default()).unwrap().generation, 5);
    assert_eq!(states(&node), [(5, 'R'), (4, 'R'), (2, 'R'), (1, 'R')]);
    assert_pinned(&host, &node);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_leaves_of_a_change_is_let_go_and_nothing_else() {
    let host = Host::new(6);
    let node = host.with_pool(1).await;
    node.rebuild("default").await;
    node.crash().await;
    // Between the pin of a rollback and its record, and between a record and its unpin.
    let runtime = &host.provider.runtime;
    let snapshots = runtime.all_snapshots();
    for (snapshot, pin) in snapshots.iter().zip(["template:default@3", "template:gone@1"]) {
        let reference = hearth_providers::SnapshotRef {
            source: hearth_providers::model::SnapshotSource::VmUid(snapshot.vm_uid),
            snapshot_id: snapshot.snapshot_id.clone(),
            resume_immediately: false,
            network_overrides: Vec::new(),
        };
        runtime.pin_snapshot(&reference, pin).unwrap();
        runtime.pin_snapshot(&reference, "artifact-of-somebody").unwrap();
    }
    assert_eq!(pins(&host).len(), 4);
    let node = host.start().await;
    assert_pinned(&host, &node);
    let others = runtime.all_snapshots().into_iter().flat_map(|it| it.pinned_by);
    assert_eq!(others.filter(|pin| pin == "artifact-of-somebody").count(), 2);
    node.settle("default").await;
}

#[tokio::test(start_paused = true)]
async fn warm_vms_of_the_make_that_was_gone_back_to_are_adopted() {
    let host = Host::new(7);
    let node = host.with_pool(2).await;
    node.crash().await;
    // As a crash right after the record of a rollback from 2 to 1 leaves it: what is warm is of 1.
    let journal = Journal::open(&host.dir.path().join("journal"), &*host.env).unwrap();
    let mut records = journal.control::<serde_json::Value>(Control::Template).unwrap();
    let mut now = records.remove(0);
    now["former"] = serde_json::json!([now.clone()]);
    now["generation"] = 3.into();
    journal.write_control(Control::Template, "default", &now).unwrap();
    drop(journal);
    let before = host.faults.count(Call::Restore);
    let node = host.start().await;
    node.settle("default").await;
    assert_eq!((host.live(), host.faults.count(Call::Restore)), (2, before));
    assert_eq!(node.template(&default()).unwrap().generation, 3);
}
