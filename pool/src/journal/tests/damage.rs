//! Torn tails, and damage wherever it may be.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::super::tail::{self, Broken};
use super::*;

const RECORDS: u8 = 6;

/// A closed journal of some leases and a pool; where each of its batches ends.
fn written() -> (tempfile::TempDir, PathBuf, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.jnl");
    drop(Journal::open(dir.path(), &SystemEnv).unwrap());
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    // From the second opening on the log's length is where it ends.
    let len = || std::fs::metadata(&log).unwrap().len();
    journal.write_control(Control::Pool, "p", &7).unwrap();
    let mut ends = vec![len()];
    for byte in 1..=RECORDS {
        journal.write_lease(&record(byte)).unwrap();
        ends.push(len());
    }
    drop(journal);
    assert_eq!(*ends.last().unwrap(), len());
    (dir, log, ends)
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_into(dir, copy.path());
    copy
}

pub(super) fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = {
            let it = entry.unwrap();
            (it.path(), to.join(it.file_name()))
        };
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_into(&path, &to);
        } else if path.file_name().is_none_or(|name| name != "reserve") {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

fn flip(file: &Path, at: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

fn why(error: &Error) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

/// Those that were whole before byte `cut`, each as it was written.
fn expect_before(journal: &Journal, ends: &[u64], cut: u64) {
    let whole = ends[1..].iter().filter(|end| **end <= cut).count();
    let mut found = journal.leases().unwrap();
    found.sort_by_key(|record| record.uid);
    let mut wanted: Vec<_> = (1..=RECORDS).take(whole).map(record).collect();
    wanted.sort_by_key(|record| record.uid);
    assert_eq!(found, wanted, "cut at {cut}");
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
}

#[test]
fn a_log_cut_at_any_byte_has_every_record_before() {
    let (dir, log, ends) = written();
    let (first, last) = (ends[usize::from(RECORDS) - 2], ends[usize::from(RECORDS)]);
    for cut in first..=last {
        let copy = copy_of(dir.path());
        let file = OpenOptions::new().write(true).open(copy.path().join("0.jnl")).unwrap();
        file.set_len(cut).unwrap();
        let torn = tail::cut_torn(copy.path()).unwrap();
        let whole = *ends.iter().rfind(|end| **end <= cut).unwrap();
        assert_eq!(
            torn.map(|it| (it.at, it.at + it.bytes <= cut)),
            (cut > whole).then_some((whole, true))
        );
        // Opening is slow here; a cut is a cut.
        if cut % 128 == 0 || ends.contains(&cut) {
            file.set_len(cut).unwrap();
            let journal = Journal::open(copy.path(), &SystemEnv).unwrap();
            expect_before(&journal, &ends, cut);
            journal.write_lease(&record(99)).unwrap();
            drop(journal);
            let journal = Journal::open(copy.path(), &SystemEnv).unwrap();
            assert!(journal.leases().unwrap().contains(&record(99)), "cut at {cut}");
        }
    }
    assert!(log.exists());
}

#[test]
fn a_bit_that_flipped_in_the_last_record_costs_that_record_at_most() {
    let (dir, _, ends) = written();
    let (begin, end) = (ends[usize::from(RECORDS) - 1], ends[usize::from(RECORDS)]);
    // The frame in every byte, the text here and there.
    for at in (begin..end).filter(|at| *at < begin + 64 || at + 20 > end || at % 29 == 0) {
        let copy = copy_of(dir.path());
        flip(&copy.path().join("0.jnl"), at, 1 << (at % 8));
        // Opening is slow here; some will do.
        if at % 5 != 0 {
            let cut = tail::cut_torn(copy.path()).unwrap();
            let is_number = (begin + 5..begin + 13).contains(&at);
            assert!(cut.map_or(is_number, |it| it.at == begin));
            continue;
        }
        let journal = Journal::open(copy.path(), &SystemEnv).unwrap();
        let leases = journal.leases().unwrap().len();
        // The change's number is in no checksum: the record is whole with another, too.
        let is_number = (begin + 5..begin + 13).contains(&at);
        assert!(leases == usize::from(RECORDS) - 1 || is_number, "flipped at {at}");
        expect_before(&journal, &ends, if leases == usize::from(RECORDS) { end } else { begin });
    }
}

#[test]
fn a_log_damaged_in_its_middle_is_refused_with_what_to_do() {
    let (dir, _, ends) = written();
    let (begin, end) = (ends[1], ends[2]);
    for at in (begin..end).filter(|at| *at < begin + 60 || at + 20 > end || at % 29 == 0) {
        if (begin + 5..begin + 13).contains(&at) {
            continue;
        }
        let copy = copy_of(dir.path());
        let log = copy.path().join("0.jnl");
        flip(&log, at, 1 << (at % 8));
        if at % 5 != 0 {
            let broken = tail::cut_torn(copy.path()).unwrap_err();
            assert!(matches!(broken, Broken::Body { at, .. } if at == begin), "{broken:?}");
            continue;
        }
        let before = std::fs::read(&log).unwrap();
        let text = why(&Journal::open(copy.path(), &SystemEnv).unwrap_err());
        assert!(text.contains(&format!("0.jnl is not whole at byte {begin}")), "{at}: {text}");
        assert!(text.contains("Put a copy of") && text.contains("--reap"), "{text}");
        assert!(before == std::fs::read(&log).unwrap(), "what is damaged is left as it was");
    }
}

#[test]
fn pages_that_were_never_written_are_a_torn_tail_unless_something_fsynced_follows() {
    for follows_control in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        for byte in 1..=60 {
            journal.write_lease(&record(byte)).unwrap();
        }
        if follows_control {
            journal.write_control(Control::Pool, "p", &7).unwrap();
        }
        drop(journal);
        let log = dir.path().join("0.jnl");
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.write_all_at(&[0; 4096], 8192).unwrap();
        match tail::cut_torn(dir.path()) {
            Ok(cut) => assert!(!follows_control && cut.unwrap().at <= 8192),
            Err(Broken::Body { at, .. }) => assert!(follows_control && at <= 8192),
            Err(broken) => panic!("{broken:?}"),
        }
    }
}

/// A closed journal whose records are in tables.
fn in_tables() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    for byte in 1..=60 {
        journal.write_lease(&record(byte)).unwrap();
    }
    journal.write_control(Control::Pool, "p", &7).unwrap();
    let opened = journal.opened.read();
    let store = opened.store.as_ref().unwrap();
    for keyspace in [&store.meta, &store.leases, &store.control] {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    drop(opened);
    drop(journal);
    dir
}

/// Opens and reads everything, as a start does.
fn read_all(dir: &Path) -> Result<(usize, usize)> {
    let journal = Journal::open(dir, &SystemEnv)?;
    Ok((journal.leases()?.len(), journal.control::<u32>(Control::Pool)?.len()))
}

#[test]
fn damaged_tables_and_manifests_are_refused_with_what_to_do_and_never_panic() {
    let dir = in_tables();
    assert_eq!(read_all(copy_of(dir.path()).path()).unwrap(), (60, 1));
    let mut files = Vec::new();
    list(dir.path(), Path::new(""), &mut files);
    let mut refused = 0;
    for lost in ["0.jnl", "version", "keyspaces/2", "keyspaces"] {
        let copy = copy_of(dir.path());
        let lost = copy.path().join(lost);
        if lost.is_dir() {
            std::fs::remove_dir_all(&lost).unwrap();
        } else {
            std::fs::remove_file(&lost).unwrap();
        }
        let text = why(&read_all(copy.path()).unwrap_err());
        assert!(text.contains("--reap"), "{}: {text}", lost.display());
    }
    for file in files.iter().filter(|file| file.starts_with("keyspaces")) {
        let len = std::fs::metadata(dir.path().join(file)).unwrap().len();
        for at in (0..len).step_by(usize::try_from(len / 5).unwrap().max(1)) {
            let copy = copy_of(dir.path());
            flip(&copy.path().join(file), at, 0x40);
            match read_all(copy.path()) {
                // What no reader needs is damaged without harm.
                Ok(found) => {
                    assert_eq!(found, (60, 1), "{} at {at}", file.display());
                }
                Err(error) => {
                    let text = why(&error);
                    assert!(text.contains("damaged") && text.contains("--reap"), "{text}");
                    refused += 1;
                }
            }
        }
        let copy = copy_of(dir.path());
        std::fs::remove_file(copy.path().join(file)).unwrap();
        match read_all(copy.path()) {
            // A manifest that a later one replaced.
            Ok(found) => assert_eq!(found, (60, 1), "without {}", file.display()),
            Err(error) => {
                assert!(why(&error).contains("--reap"), "{}: {}", file.display(), why(&error))
            }
        }
    }
    assert!(refused > 30, "{refused}");
}

fn list(root: &Path, below: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.path().is_dir() { list(root, &path, files) } else { files.push(path) }
    }
}

#[test]
fn a_journal_without_its_first_record_is_not_a_new_one() {
    let (dir, log, _) = written();
    OpenOptions::new().write(true).open(log).unwrap().set_len(0).unwrap();
    let text = why(&Journal::open(dir.path(), &SystemEnv).unwrap_err());
    assert!(text.contains("its first record is missing"), "{text}");
}

#[test]
fn a_record_that_does_not_parse_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    journal.write(|store| store.leases.insert(record(1).uid.as_bytes(), "{\"uid\":")).unwrap();
    journal.write(|store| store.control.insert("pool/p", "seven")).unwrap();
    let text = why(&journal.leases().unwrap_err());
    assert!(text.contains(&record(1).uid.to_string()) && text.contains("--reap"), "{text}");
    let text = why(&journal.control::<u32>(Control::Pool).unwrap_err());
    assert!(text.contains("pool/p"), "{text}");
}

#[test]
fn a_first_start_that_was_killed_is_begun_anew() {
    for has_marker in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        // As the store begins: a log of zeros, its directory, and a marker when all is there.
        File::create(dir.path().join("0.jnl")).unwrap().set_len(1 << 20).unwrap();
        std::fs::create_dir(dir.path().join("keyspaces")).unwrap();
        if has_marker {
            File::create(dir.path().join("version")).unwrap();
        }
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        assert!(journal.is_new());
        journal.write_lease(&record(1)).unwrap();
    }
}
