//! Journals of other versions.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::format::{KEY, Step};
use super::super::log::Log;
use super::damage::copy_into;
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A log of this format.
const LOG: &str = "journal-log-2";
/// One of the format before, in which leases are JSON.
const LOG_1: &str = "journal-log-1";
/// What version 0.1 wrote.
const TABLES: &str = "journal-format-1";

fn expect_the_fixture(journal: &Journal) {
    assert!(!journal.is_new());
    assert_eq!(journal.state_uuid(), Uid::from_random([0xF1; 16]));
    let mut found = journal.leases().unwrap();
    found.sort_by_key(|record| record.uid);
    assert_eq!(found, written());
    assert_eq!(journal.control::<String>(Control::Template).unwrap(), ["a template"]);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
    assert_eq!(journal.control::<bool>(Control::Node).unwrap(), [true]);
}

#[test]
fn a_directory_of_every_format_is_read_and_written_in_this_one() {
    for log in [LOG_1, LOG] {
        let dir = tempfile::tempdir().unwrap();
        copy_into(&fixture(log), dir.path());
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        expect_the_fixture(&journal);
        journal.write_lease(&record(9)).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        assert_eq!(journal.leases().unwrap().len(), written().len() + 1, "{log}");
        assert_eq!(Meta::read(&journal.log).unwrap().unwrap().format, FORMAT, "{log}");
    }
}

#[test]
fn the_tables_of_version_0_1_are_taken_over_also_when_that_was_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    copy_into(&fixture(TABLES), dir.path());
    // A try that was cut short has left a part.
    std::fs::write(dir.path().join("1.log.part"), "a part").unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    expect_the_fixture(&journal);
    journal.write_lease(&record(9)).unwrap();
    drop(journal);
    for gone in ["0.jnl", "keyspaces", "version", "lock", "1.log.part"] {
        assert!(!dir.path().join(gone).exists(), "{gone}");
    }
    // Cut short again, while it removed what it had taken over.
    let keyspaces = dir.path().join("keyspaces");
    std::fs::create_dir(&keyspaces).unwrap();
    copy_into(&fixture(TABLES).join("keyspaces"), &keyspaces);
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    assert_eq!(journal.leases().unwrap().len(), written().len() + 1);
    assert!(!dir.path().join("keyspaces").exists());
}

#[test]
fn tables_of_version_0_1_that_are_damaged_are_refused_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    copy_into(&fixture(TABLES), dir.path());
    std::fs::write(dir.path().join("keyspaces/2/current"), [0xA5; 64]).unwrap();
    let error = Journal::open(dir.path(), &SystemEnv).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("damaged") && why.contains("--reap"), "{why}");
    assert!(dir.path().join("0.jnl").exists() && !dir.path().join("1.log").exists());
}

/// The leases of the fixtures, in every state.
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
    let fixture = fixture(LOG);
    std::fs::create_dir_all(&fixture).unwrap();
    let journal = Journal::open(&fixture, &SeededEnv::new(1)).unwrap();
    let meta = Meta { format: FORMAT, state_uuid: Uid::from_random([0xF1; 16]) };
    write_meta(&journal, &meta);
    journal.write_control(Control::Template, "t", &"a template").unwrap();
    written().iter().for_each(|record| journal.write_lease(record).unwrap());
    journal.write_control(Control::Pool, "p", &7).unwrap();
    journal.write_control(Control::Node, "drains", &true).unwrap();
    drop(journal);
    for ours in ["owner", "reserve"] {
        std::fs::remove_file(fixture.join(ours)).unwrap();
    }
}

fn write_meta(journal: &Journal, meta: &Meta) {
    journal.write_raw(Table::Control, KEY, &serde_json::to_vec(meta).unwrap()).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    let newer = Meta { format: FORMAT + 1, state_uuid: journal.state_uuid() };
    write_meta(&journal, &newer);
    drop(journal);
    let error = Journal::open(dir.path(), &SystemEnv).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("a newer hearth wrote this"), "{why}");
}

static FAILURES: AtomicU32 = AtomicU32::new(1);

#[test]
fn former_formats_are_led_on_step_by_step_and_a_step_cut_short_begins_anew() {
    const RENAME: Step = |log| {
        if let Some(pools) = log.get(b"pool/old").map_err(storage)? {
            write(log, b"pool/new", &pools)?;
        }
        if FAILURES.swap(0, Ordering::Relaxed) > 0 {
            return Err(storage("cut short"));
        }
        log.append(&mut removal(Frame::new(), Table::Control, b"pool/old")?).map_err(storage)
    };
    const COUNT: Step = |log| write(log, b"pool/count", b"2");
    fn write(log: &Log, key: &[u8], text: &[u8]) -> Result<()> {
        let mut frame = Frame::new();
        frame.put(Table::Control, key, |bytes| bytes.write_all(text)).map_err(storage)?;
        log.append(&mut frame).map_err(storage)
    }
    let steps = [(FORMAT, RENAME), (FORMAT + 1, COUNT)];
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    journal.write_control(Control::Pool, "old", &7).unwrap();
    let log = &journal.log;
    let mut meta = Meta::read(log).unwrap().unwrap();
    meta.migrate(log, &steps, FORMAT + 2).unwrap_err();
    let mut meta = Meta::read(log).unwrap().unwrap();
    assert_eq!(meta.format, FORMAT);
    meta.migrate(log, &steps, FORMAT + 2).unwrap();
    assert_eq!(Meta::read(log).unwrap().unwrap(), meta);
    assert_eq!(meta.format, FORMAT + 2);
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [2, 7]);
    let error = meta.migrate(log, &steps, FORMAT + 3).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("start a version between"), "{why}");
}
