//! What was written is read again, however the last life ended.

mod damage;
mod formats;
mod model;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hearth_providers::VmId;
use hearth_providers::env::{SeededEnv, SystemEnv};

use super::*;
use crate::ids::{PoolId, RequestId, TemplateId, Tenant};

pub(crate) fn record(byte: u8) -> LeaseRecord {
    let uid = Uid::from_random([byte; 16]);
    LeaseRecord {
        uid,
        state: RecordState::Leased,
        vm_id: VmId::parse("a").unwrap(),
        pool_vm_id: VmId::warm(uid),
        provider: "memory".into(),
        pool: Some(PoolId::parse("default").unwrap()),
        template: Some(TemplateId::parse("default").unwrap()),
        generation: 1,
        tenant: Tenant::anonymous(),
        labels: BTreeMap::new(),
        request_id: Some(RequestId::new("r")),
        fingerprint: 7,
        fence: 1,
        source: Source::Warm,
        boot_id: "b".into(),
        deadline: Duration::from_millis(1500),
        expire_time: SystemTime::UNIX_EPOCH,
        acquire_time: SystemTime::UNIX_EPOCH,
    }
}

#[test]
fn what_was_written_is_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = {
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        assert!(journal.is_new());
        journal.write_lease(&record(1)).unwrap();
        journal.write_lease(&LeaseRecord { state: RecordState::Gone, ..record(1) }).unwrap();
        journal.write_lease(&record(2)).unwrap();
        journal.write_lease(&record(3)).unwrap();
        journal.forget_lease(record(3).uid).unwrap();
        journal.write_control(Control::Pool, "p", &7).unwrap();
        journal.state_uuid()
    };
    let journal = Journal::open(dir.path(), &SeededEnv::new(1)).unwrap();
    assert!(!journal.is_new());
    assert_eq!(journal.state_uuid(), uuid);
    let states: Vec<_> = journal.leases().unwrap().iter().map(|it| it.state).collect();
    assert_eq!(states, [RecordState::Gone, RecordState::Leased]);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
    assert!(journal.control::<u32>(Control::Template).unwrap().is_empty());
}

#[test]
fn a_second_hearth_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path(), &SystemEnv).unwrap();
    let second = Journal::open(dir.path(), &SystemEnv).unwrap_err();
    let source = std::error::Error::source(&second).unwrap().to_string();
    assert_eq!(source, "another hearth runs on this state directory");
}

#[test]
fn what_is_written_while_the_log_is_tended_is_found_and_the_log_stays_short() {
    const WRITERS: u8 = 4;
    const ROUNDS: i64 = 200;
    const SEGMENT_BYTES: u64 = 16 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SEGMENT_BYTES).unwrap();
    journal.write_control(Control::Pool, "p", &7).unwrap();
    let left = std::sync::atomic::AtomicU8::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (journal, left) = (&journal, &left);
            scope.spawn(move || {
                for fence in 1..=ROUNDS {
                    journal.write_lease(&LeaseRecord { fence, ..record(writer) }).unwrap();
                    journal.write_lease(&LeaseRecord { fence, ..record(100 + writer) }).unwrap();
                    journal.forget_lease(record(100 + writer).uid).unwrap();
                }
                left.fetch_sub(1, Ordering::Release);
            });
        }
        while left.load(Ordering::Acquire) > 0 {
            journal.tend().unwrap();
            for lease in journal.leases().unwrap() {
                assert!((1..=ROUNDS).contains(&lease.fence), "a record is whole at any time");
            }
        }
    });
    journal.tend().unwrap();
    let total = |dir: &Path| -> u64 {
        let files = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap());
        let logs = files.filter(|it| it.path().extension().is_some_and(|it| it == "log"));
        logs.map(|it| it.metadata().unwrap().len()).sum()
    };
    let len = total(dir.path());
    assert!(len <= 4 * SEGMENT_BYTES, "{len} bytes");
    drop(journal);
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    let found: Vec<_> = journal.leases().unwrap().iter().map(|it| (it.uid, it.fence)).collect();
    let mut wanted: Vec<_> = (1..=WRITERS).map(|byte| (record(byte).uid, ROUNDS)).collect();
    wanted.sort_by_key(|(uid, _)| *uid.as_bytes());
    assert_eq!(found, wanted);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
}
