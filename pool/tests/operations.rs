//! What takes longer than a call, and a restart in its midst: whoever began it learns what came of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::*;
use hearth_pool::error::Error;
use hearth_pool::journal::Journal;
use hearth_pool::operations::{Operation, Outcome};
use hearth_providers::faulty::{Call, Fault, When};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn failure(operation: &Operation) -> &'static str {
    match &operation.outcome {
        Some(Outcome::Failed(error)) => error.reason(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_had_ended_is_found_after_a_restart() {
    let host = Host::new(1);
    let node = host.start().await;
    let done = node.create_template(template("good"), false).await.unwrap();
    let before = node.operations().wait(&done, PATIENCE).await.unwrap();
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    let failed = node.create_template(template("bad"), false).await.unwrap();
    let why = match node.operations().wait(&failed, PATIENCE).await.unwrap().outcome {
        Some(Outcome::Failed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    node.crash().await;
    let node = host.start().await;
    let after = node.operations().get(&done).unwrap();
    assert!(matches!(after.outcome, Some(Outcome::Done)), "{after:?}");
    let times = |it: &Operation| (it.create_time, it.update_time);
    assert_eq!((times(&after), after.verb), (times(&before), before.verb));
    let after = node.operations().get(&failed).unwrap();
    assert_eq!(failure(&after), "operation_failed");
    assert!(matches!(after.outcome, Some(Outcome::Failed(error)) if error.to_string() == why));
    node.operations().delete(&failed).unwrap();
    node.crash().await;
    let node = host.start().await;
    assert!(matches!(node.operations().get(&failed), Err(Error::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_under_way_is_done_when_what_it_makes_is_there() {
    let host = Host::new(2);
    let node = host.start().await;
    node.build_template("default").await;
    node.rebuild("default").await;
    host.faults.add(Call::Snapshot, When::Next(1), Fault::Fail("exhausted"));
    let failed = node.create_template(template("default"), true).await.unwrap();
    node.operations().wait(&failed, PATIENCE).await.unwrap();
    node.crash().await;
    assert_eq!(reopen_all(&host), 3);
    // The second start reads what the first has written.
    for _ in 0..2 {
        let node = host.start().await;
        for operation in node.operations().list() {
            match operation.id == failed {
                true => assert!(failure(&operation).starts_with("operation_"), "{operation:?}"),
                // Of the generation before, too: it is kept.
                false => assert!(matches!(operation.outcome, Some(Outcome::Done)), "{operation:?}"),
            }
        }
        node.crash().await;
    }
}

/// Has every operation of the journal be under way, as a crash in its midst would have left it.
fn reopen_all(host: &Host) -> usize {
    let journal = Journal::open(&host.dir.path().join("journal"), &*host.env).unwrap();
    let records = journal.operations::<Value>().unwrap();
    for record in &records {
        let id = record["id"].as_str().unwrap();
        let open = serde_json::json!({ "ended": null });
        let mut record = record.as_object().unwrap().clone();
        record.extend(open.as_object().unwrap().clone());
        journal.write_operation(id, &record).unwrap();
    }
    records.len()
}
