//! A host that changed between two starts: what no longer fits is built again, and nobody waits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use hearth_pool::error::Error;
use hearth_pool::ids::TemplateId;
use hearth_pool::journal::{Control, Journal};
use hearth_pool::operations::{Operation, Outcome};
use hearth_pool::templates::{Template, TemplateState};
use hearth_providers::faulty::{Call, Fault, When};
use hearth_providers::model::VmSpec;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const UNFIT: Fault = Fault::Fail("snapshot_incompatible");

fn default() -> TemplateId {
    TemplateId::parse("default").unwrap()
}

fn current(node: &Node) -> Arc<Template> {
    node.template(&default()).unwrap()
}

fn why(node: &Node) -> String {
    match &current(node).state {
        TemplateState::Failed(reason) => reason.clone(),
        state => panic!("{state:?}"),
    }
}

/// Ends a life whose host then changes for one template.
async fn change_host(host: &Host, node: Node) {
    node.crash().await;
    host.faults.add(Call::Fits, When::Next(1), UNFIT);
}

fn rebuild_of(node: &Node) -> Operation {
    let mut all = node.operations().list().into_iter();
    all.find(|it| it.verb == "RebuildTemplate" && it.outcome.is_none()).unwrap()
}

async fn end_of(node: &Node, operation: &Operation) -> Outcome {
    node.operations().wait(&operation.id, PATIENCE).await.unwrap().outcome.unwrap()
}

/// Makes a template of a snapshot that somebody took of a VM of theirs.
async fn import(host: &Host, node: &Node, spec: VmSpec) {
    let runtime = &host.provider.runtime;
    runtime.create_vm(&id("golden")).unwrap();
    runtime.start_vm(&id("golden")).unwrap();
    let snapshot_id = hearth_providers::SnapshotId::parse("sealed").unwrap();
    runtime.snapshot_vm(&id("golden"), &snapshot_id).unwrap();
    let source = hearth_providers::SnapshotRef {
        source: hearth_providers::model::SnapshotSource::Name(id("golden")),
        snapshot_id,
        resume_immediately: false,
        network_overrides: Vec::new(),
    };
    let template = Template::new(default(), "memory", spec);
    host.faults.add(Call::Fits, When::Next(1), UNFIT);
    let refused = node.import_template(template.clone(), source.clone()).await;
    assert_eq!(reason(refused), "snapshot_incompatible");
    node.import_template(template, source).await.unwrap();
    runtime.destroy_vm(&id("golden")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_template_that_no_longer_fits_is_built_again_while_callers_are_told_to_come_back() {
    let host = Host::new(1);
    let node = host.with_pool(0).await;
    let before = current(&node);
    change_host(&host, node).await;
    // The start has ended, and the build goes on.
    let node = host.start().await;
    let rebuild = rebuild_of(&node);
    assert_eq!((current(&node).generation, &current(&node).state), (1, &TemplateState::Building));
    let refused = node.take(request()).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNotReady { retry_after: Some(_), .. }), "{refused:?}");
    assert_eq!(reason(node.create_template(template("default"), true).await), "template_not_ready");
    assert!(matches!(end_of(&node, &rebuild).await, Outcome::Done));
    let now = current(&node);
    assert_eq!((now.generation, &now.state), (2, &TemplateState::Ready));
    assert_eq!((&now.warm_up, now.create_time), (&before.warm_up, before.create_time));
    assert!(now.snapshot != before.snapshot);
    node.take(request()).await.unwrap();
    // The former generation is kept, as on the former host it would do.
    assert_eq!(node.generation(&default(), 1).unwrap().state, TemplateState::Ready);
    node.crash().await;
    let node = host.start().await;
    assert_eq!(current(&node).generation, 2);
    assert!(current(&node).is_same_make(&now));
}

#[tokio::test(start_paused = true)]
async fn warm_vms_of_a_snapshot_that_no_longer_fits_serve_until_there_are_new_ones() {
    let host = Host::new(2);
    let node = host.with_pool(2).await;
    change_host(&host, node).await;
    let before = host.provider.runtime.list_vms();
    let node = host.start().await;
    let rebuild = rebuild_of(&node);
    let got = node.take(request()).await.unwrap();
    assert!(before.iter().any(|vm| vm.uid == got.lease.uid), "it lives, and answers");
    assert!(matches!(end_of(&node, &rebuild).await, Outcome::Done));
    node.settle("default").await;
    let got = node.take(request()).await.unwrap();
    assert!(before.iter().all(|vm| vm.uid != got.lease.uid));
    assert_eq!(got.lease.template, Some((default(), 2)));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_fails_says_why_until_the_host_or_the_recipe_is_mended() {
    let host = Host::new(3);
    let node = host.with_pool(0).await;
    change_host(&host, node).await;
    let node = host.start().await;
    let rebuild = rebuild_of(&node);
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    assert!(matches!(end_of(&node, &rebuild).await, Outcome::Failed(_)));
    assert!(why(&node).contains("exhausted"), "{}", why(&node));
    assert_eq!(reason(node.take(request()).await), "template_not_ready");
    assert!(node.generation(&default(), 2).unwrap().has_failed());
    node.crash().await;
    // On the former host it is as it was.
    let node = host.start().await;
    assert_eq!((current(&node).generation, &current(&node).state), (1, &TemplateState::Ready));
    node.take(request()).await.unwrap();
    change_host(&host, node).await;
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    let node = host.start().await;
    let rebuild = rebuild_of(&node);
    assert!(matches!(end_of(&node, &rebuild).await, Outcome::Failed(_)));
    node.rebuild("default").await;
    assert_eq!((current(&node).generation, &current(&node).state), (4, &TemplateState::Ready));
    node.take(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_a_crash_cuts_short_is_begun_again() {
    let host = Host::new(4);
    let node = host.with_pool(0).await;
    change_host(&host, node).await;
    let open = || Journal::open(&host.dir.path().join("journal"), &*host.env).unwrap();
    let before = open().control::<Value>(Control::Template).unwrap().remove(0);
    let node = host.start().await;
    let cut_short = rebuild_of(&node);
    assert!(matches!(end_of(&node, &cut_short).await, Outcome::Done));
    change_host(&host, node).await;
    // As a crash leaves it whose last write was the pin of what was built.
    let journal = open();
    journal.write_control(Control::Template, "default", &before).unwrap();
    for mut record in journal.operations::<Value>().unwrap() {
        if record["id"] == cut_short.id.as_str() {
            record["ended"] = Value::Null;
            journal.write_operation(&cut_short.id, &record).unwrap();
        }
    }
    drop(journal);
    let node = host.start().await;
    let ended = node.operations().get(&cut_short.id).unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Failed(_))), "{ended:?}");
    let again = rebuild_of(&node);
    assert!(matches!(end_of(&node, &again).await, Outcome::Done));
    assert_eq!((current(&node).generation, &current(&node).state), (2, &TemplateState::Ready));
    node.until("the builds have left no VM", || host.live() == 0).await;
    // What the first build had made is gone: there are the two generations' own.
    assert_eq!(host.provider.runtime.all_snapshots().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_imported_template_says_how_to_mend_it_unless_its_spec_was_told() {
    let told = VmSpec { mem_size_mib: 64, ..VmSpec::default() };
    for (seed, spec, is_rebuilt) in [(5, VmSpec::default(), false), (6, told, true)] {
        let host = Host::new(seed);
        let node = host.start().await;
        import(&host, &node, spec).await;
        node.create_pool(pool("default", 0), false).await.unwrap();
        change_host(&host, node).await;
        let node = host.start().await;
        if is_rebuilt {
            assert!(matches!(end_of(&node, &rebuild_of(&node)).await, Outcome::Done));
            assert!(!current(&node).imported);
            node.take(request()).await.unwrap();
            continue;
        }
        assert!(why(&node).contains("import a snapshot that was made on this host"));
        assert!(why(&node).contains("does not fit this host"), "{}", why(&node));
        assert_eq!(reason(node.take(request()).await), "template_not_ready");
        assert!(node.operations().list().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_no_reason_to_build() {
    let host = Host::new(7);
    let node = host.with_pool(0).await;
    node.crash().await;
    host.faults.add(Call::Fits, When::Next(1), Fault::Fail("unavailable"));
    let node = host.start().await;
    assert_eq!((current(&node).generation, &current(&node).state), (1, &TemplateState::Ready));
    node.take(request()).await.unwrap();
}
