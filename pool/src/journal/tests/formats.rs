//! Journals of other versions.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::format::Step;
use super::damage::copy_into;
use super::*;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-format-1")
}

#[test]
fn a_directory_of_format_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    copy_into(&fixture(), dir.path());
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    assert!(!journal.is_new());
    assert_eq!(journal.state_uuid(), Uid::from_random([0xF1; 16]));
    let mut found = journal.leases().unwrap();
    found.sort_by_key(|record| record.uid);
    assert_eq!(found, written());
    assert_eq!(journal.control::<String>(Control::Template).unwrap(), ["a template"]);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
    assert_eq!(journal.control::<bool>(Control::Node).unwrap(), [true]);
    journal.write_lease(&record(9)).unwrap();
}

/// The leases of the fixture: in tables, in the log, in every state.
fn written() -> Vec<LeaseRecord> {
    let states = [
        RecordState::Resuming,
        RecordState::Leased,
        RecordState::Aborted,
        RecordState::Releasing,
        RecordState::Gone,
    ];
    let labels = || BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let of = |(byte, state)| LeaseRecord { state, labels: labels(), ..record(byte) };
    let mut records: Vec<_> = (1..).zip(states).map(of).collect();
    let unnamed = LeaseRecord { pool: None, template: None, request_id: None, ..record(6) };
    records.push(LeaseRecord { source: Source::Cold, ..unnamed });
    records.sort_by_key(|record| record.uid);
    records
}

/// Writes the fixture anew: only when a format is new, and under its number.
#[test]
#[ignore = "it writes into the source tree"]
fn write_the_fixture() {
    std::fs::create_dir_all(fixture()).unwrap();
    let env = SeededEnv::new(1);
    let journal = Journal::open(&fixture(), &env).unwrap();
    let meta = Meta { format: FORMAT, state_uuid: Uid::from_random([0xF1; 16]) };
    journal.write(|store| store.meta.insert("meta", encode(&meta).unwrap())).unwrap();
    journal.write_control(Control::Template, "t", &"a template").unwrap();
    let (in_tables, in_log): (Vec<_>, Vec<_>) =
        written().into_iter().partition(|record| record.state != RecordState::Leased);
    in_tables.iter().for_each(|record| journal.write_lease(record).unwrap());
    {
        let opened = journal.opened.read();
        let store = opened.store.as_ref().unwrap();
        // Of an empty table directory nothing would be kept with the source.
        for keyspace in [&store.meta, &store.leases, &store.control] {
            keyspace.rotate_memtable_and_wait().unwrap();
        }
    }
    in_log.iter().for_each(|record| journal.write_lease(record).unwrap());
    journal.write_control(Control::Pool, "p", &7).unwrap();
    journal.write_control(Control::Node, "drains", &true).unwrap();
    drop(journal);
    drop(Journal::open(&fixture(), &env).unwrap());
    for ours in ["owner", "reserve"] {
        std::fs::remove_file(fixture().join(ours)).unwrap();
    }
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    let newer = Meta { format: FORMAT + 1, state_uuid: journal.state_uuid() };
    journal.write(|store| store.meta.insert("meta", encode(&newer).unwrap())).unwrap();
    drop(journal);
    let error = Journal::open(dir.path(), &SystemEnv).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("a newer hearth wrote this"), "{why}");
}

static FAILURES: AtomicU32 = AtomicU32::new(1);

#[test]
fn former_formats_are_led_on_step_by_step_and_a_step_cut_short_begins_anew() {
    const RENAME: Step = |store| {
        if let Some(pools) = store.control.get("pool/old").map_err(storage)? {
            store.control.insert("pool/new", pools).map_err(storage)?;
        }
        if FAILURES.swap(0, Ordering::Relaxed) > 0 {
            return Err(storage("cut short"));
        }
        store.control.remove("pool/old").map_err(storage)
    };
    const COUNT: Step = |store| store.control.insert("pool/count", "2").map_err(storage);
    let steps = [(FORMAT, RENAME), (FORMAT + 1, COUNT)];
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    journal.write_control(Control::Pool, "old", &7).unwrap();
    let opened = journal.opened.read();
    let store = opened.store.as_ref().unwrap();
    let mut meta = Meta::read(store).unwrap().unwrap();
    meta.migrate(store, &steps, FORMAT + 2).unwrap_err();
    let mut meta = Meta::read(store).unwrap().unwrap();
    assert_eq!(meta.format, FORMAT);
    meta.migrate(store, &steps, FORMAT + 2).unwrap();
    assert_eq!(Meta::read(store).unwrap().unwrap(), meta);
    assert_eq!(meta.format, FORMAT + 2);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [2, 7]);
    let error = meta.migrate(store, &steps, FORMAT + 3).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("start a version between"), "{why}");
}
