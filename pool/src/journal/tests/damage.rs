//! Torn tails, and damage wherever it may be.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::super::frame::HEAD_BYTES;
use super::super::segments::{self, Broken, Cut};
use super::*;
use crate::error::Error;

const RECORDS: u8 = 6;

fn cut_torn(dir: &Path) -> std::result::Result<Option<Cut>, Broken> {
    segments::open(dir).map(|found| found.cut)
}

/// A closed journal of some leases and a pool; where each of its batches ends.
fn written() -> (tempfile::TempDir, PathBuf, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("1.log");
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
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
        let file = OpenOptions::new().write(true).open(copy.path().join("1.log")).unwrap();
        file.set_len(cut).unwrap();
        let torn = cut_torn(copy.path()).unwrap();
        let whole = *ends.iter().rfind(|end| **end <= cut).unwrap();
        assert_eq!(
            torn.map(|it| (it.at, it.at + it.bytes <= cut)),
            (cut > whole).then_some((whole, true))
        );
        // Opening writes much here; a cut is a cut.
        if cut % 32 == 0 || ends.contains(&cut) {
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
    for at in begin..end {
        let copy = copy_of(dir.path());
        flip(&copy.path().join("1.log"), at, 1 << (at % 8));
        // Opening writes much here; some will do.
        if at % 5 != 0 {
            let cut = cut_torn(copy.path()).unwrap().unwrap();
            assert!(cut.at == begin && cut.bytes == end - begin);
            continue;
        }
        let journal = Journal::open(copy.path(), &SystemEnv).unwrap();
        expect_before(&journal, &ends, begin);
    }
}

#[test]
fn a_log_damaged_in_its_middle_is_refused_with_what_to_do() {
    let (dir, _, ends) = written();
    let (begin, end) = (ends[1], ends[2]);
    for at in begin..end {
        let copy = copy_of(dir.path());
        let log = copy.path().join("1.log");
        flip(&log, at, 1 << (at % 8));
        if at % 5 != 0 {
            let broken = cut_torn(copy.path()).unwrap_err();
            assert!(matches!(broken, Broken::Body { at, .. } if at == begin), "{broken:?}");
            continue;
        }
        let before = std::fs::read(&log).unwrap();
        let text = why(&Journal::open(copy.path(), &SystemEnv).unwrap_err());
        assert!(text.contains(&format!("1.log is not whole at byte {begin}")), "{at}: {text}");
        assert!(text.contains("Put a copy of") && text.contains("--reap"), "{text}");
        assert!(before == std::fs::read(&log).unwrap(), "what is damaged is left as it was");
    }
}

#[test]
fn pages_that_were_never_written_are_a_torn_tail_unless_something_fsynced_follows() {
    for follows_control in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
        for byte in 1..=120 {
            journal.write_lease(&record(byte)).unwrap();
        }
        if follows_control {
            journal.write_control(Control::Pool, "p", &7).unwrap();
        }
        drop(journal);
        let log = dir.path().join("1.log");
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.write_all_at(&[0; 4096], 8192).unwrap();
        match cut_torn(dir.path()) {
            Ok(cut) => assert!(!follows_control && cut.unwrap().at <= 8192),
            Err(Broken::Body { at, .. }) => assert!(follows_control && at <= 8192),
            Err(broken) => panic!("{broken:?}"),
        }
    }
}

/// Opens and reads everything, as a start does.
fn read_all(dir: &Path) -> Result<(usize, usize)> {
    let journal = Journal::open(dir, &SystemEnv)?;
    Ok((journal.leases()?.len(), journal.control::<u32>(Control::Pool)?.len()))
}

/// Segments are this small here.
const SMALL_BYTES: u64 = 1024;

/// A closed journal of some segments, none of which was removed; 60 leases, and a pool in the first.
fn in_segments() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
    journal.write_control(Control::Pool, "p", &7).unwrap();
    for byte in 1..=60 {
        journal.write_lease(&record(byte)).unwrap();
        journal.tend().unwrap();
    }
    drop(journal);
    let files = (1..).map(|it| segments::path(dir.path(), it));
    let files: Vec<_> = files.take_while(|it| it.exists()).collect();
    assert!(files.len() > 5, "{}", files.len());
    (dir, files)
}

#[test]
fn a_segment_that_is_lost_is_noticed_whichever_it_is() {
    let (dir, files) = in_segments();
    assert_eq!(read_all(copy_of(dir.path()).path()).unwrap(), (60, 1));
    for file in &files {
        let copy = copy_of(dir.path());
        let name = file.file_name().unwrap();
        std::fs::remove_file(copy.path().join(name)).unwrap();
        let text = why(&read_all(copy.path()).unwrap_err());
        let missing = format!("{} is missing", name.to_string_lossy());
        assert!(text.contains(&missing) && text.contains("--reap"), "{text}");
    }
    let copy = copy_of(dir.path());
    files.iter().for_each(|it| {
        std::fs::remove_file(copy.path().join(it.file_name().unwrap())).unwrap();
    });
    let text = why(&read_all(copy.path()).unwrap_err());
    assert!(text.contains("1.log is missing") && text.contains("--reap"), "{text}");
}

#[test]
fn segments_damaged_anywhere_but_at_the_very_end_are_refused() {
    let (dir, files) = in_segments();
    let (last, full) = files.split_last().unwrap();
    for file in full {
        let len = std::fs::metadata(file).unwrap().len();
        for at in (0..len).step_by(97).chain(len - HEAD_BYTES as u64 - 4..len) {
            let copy = copy_of(dir.path());
            let name = file.file_name().unwrap();
            flip(&copy.path().join(name), at, 0x40);
            match cut_torn(copy.path()) {
                Err(Broken::Body { file, .. }) => assert_eq!(file.file_name(), Some(name)),
                other => panic!("{} at {at}: {other:?}", name.display()),
            }
        }
    }
    flip(last, std::fs::metadata(last).unwrap().len() - 1, 1);
    assert!(matches!(cut_torn(dir.path()), Ok(Some(_))));
}

#[test]
fn a_segment_whose_end_was_never_written_is_torn_unless_something_fsynced_follows() {
    for follows_control in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
        for byte in 1..=8 {
            journal.write_lease(&record(byte)).unwrap();
        }
        journal.tend().unwrap();
        journal.write_lease(&record(9)).unwrap();
        if follows_control {
            journal.write_control(Control::Pool, "p", &7).unwrap();
        }
        drop(journal);
        let (first, second) = (segments::path(dir.path(), 1), segments::path(dir.path(), 2));
        let len = std::fs::metadata(&first).unwrap().len();
        // In the middle of a record, and at the end of one: without what says where it goes on.
        for lost in [150, HEAD_BYTES as u64 + 11] {
            let copy = copy_of(dir.path());
            let (first, second) = (
                copy.path().join(first.file_name().unwrap()),
                copy.path().join(second.file_name().unwrap()),
            );
            OpenOptions::new().write(true).open(&first).unwrap().set_len(len - lost).unwrap();
            match cut_torn(copy.path()) {
                Ok(Some(cut)) => {
                    assert!(!follows_control && cut.file == first && cut.at <= len - lost);
                    assert!(!second.exists(), "what follows goes with it");
                    let leases = read_all(copy.path()).unwrap().0;
                    assert_eq!(leases, if lost == 150 { 7 } else { 8 });
                }
                Err(Broken::Body { .. }) => assert!(follows_control && second.exists()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_life_that_was_killed_between_two_steps_of_tending_left_nothing_wrong() {
    let (dir, files) = in_segments();
    // The next segment was made, and nothing written to it yet.
    let copy = copy_of(dir.path());
    let next = segments::path(copy.path(), u32::try_from(files.len()).unwrap() + 1);
    File::create(&next).unwrap();
    assert_eq!(read_all(copy.path()).unwrap(), (60, 1));
    // The oldest was copied and left behind, and not removed yet.
    let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
    for byte in 1..=60 {
        journal.write_lease(&LeaseRecord { state: RecordState::Gone, ..record(byte) }).unwrap();
    }
    files.iter().for_each(|it| std::fs::hard_link(it, it.with_extension("kept")).unwrap());
    journal.tend().unwrap();
    drop(journal);
    let oldest = || files.iter().position(|it| it.exists()).unwrap();
    let kept = oldest();
    assert!(kept > 0, "half of it was needed no more");
    let left = &files[kept - 1];
    std::fs::rename(left.with_extension("kept"), left).unwrap();
    let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
    assert!(journal.leases().unwrap().iter().all(|it| it.state == RecordState::Gone));
    assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
    assert_eq!(oldest(), kept);
}

#[test]
fn a_segment_whose_removal_failed_halfway_is_left_behind_by_the_next_try() {
    let (dir, files) = in_segments();
    let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
    for byte in 1..=60 {
        journal.write_lease(&LeaseRecord { state: RecordState::Gone, ..record(byte) }).unwrap();
    }
    // A try before this one removed it, and could not make that durable.
    std::fs::remove_file(&files[0]).unwrap();
    journal.tend().unwrap();
    drop(journal);
    let left: Vec<_> = files.iter().map(|it| it.exists()).collect();
    assert!(!left[0] && left.is_sorted(), "{left:?}");
    assert_eq!(read_all(dir.path()).unwrap(), (60, 1));
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
    journal.write_raw(Table::Leases, record(1).uid.as_bytes(), b"{\"uid\":").unwrap();
    journal.write_raw(Table::Control, b"pool/p", b"seven").unwrap();
    let text = why(&journal.leases().unwrap_err());
    assert!(text.contains(&record(1).uid.to_string()) && text.contains("--reap"), "{text}");
    let text = why(&journal.control::<u32>(Control::Pool).unwrap_err());
    assert!(text.contains("pool/p"), "{text}");
}

#[test]
fn a_first_start_that_was_killed_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("owner")).unwrap();
    File::create(dir.path().join("1.log")).unwrap();
    let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
    assert!(journal.is_new());
    journal.write_lease(&record(1)).unwrap();
}
