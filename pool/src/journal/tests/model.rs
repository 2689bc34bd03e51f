//! A journal against maps: what was written is found, and nothing else, however often it was
//! closed, wherever its log was cut, and whichever segments of it were left behind.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(Change),
    Reopen,
    /// The log is right up to any byte. What follows is nothing, zeros (it was made larger than it
    /// was written), or whatever the disk had there.
    Tear {
        at: Index,
        more: usize,
        byte: u8,
    },
    /// The last change is there in its length, and not as it was written.
    Garble {
        before_end: u64,
    },
    /// A full segment is ended, and old ones are left behind.
    Tend,
}

#[derive(Clone, Debug)]
enum Change {
    /// Promised, aborted, released, gone: each time the whole record.
    Lease {
        byte: u8,
        state: RecordState,
        labels: usize,
    },
    ForgetLease {
        byte: u8,
    },
    Control {
        kind: Control,
        id: &'static str,
        value: u32,
    },
    ForgetControl {
        kind: Control,
        id: &'static str,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let states = [
        RecordState::Resuming,
        RecordState::Leased,
        RecordState::Aborted,
        RecordState::Releasing,
        RecordState::Gone,
    ];
    let key = || (select(Control::ALL.to_vec()), select(vec!["p", "pool", "a-b", "0"]));
    let byte = || 1..8_u8;
    prop_oneof![
        8 => (byte(), select(states.to_vec()), 0..40_usize)
            .prop_map(|(byte, state, labels)| Change::Lease { byte, state, labels }),
        2 => byte().prop_map(|byte| Change::ForgetLease { byte }),
        2 => (key(), any::<u32>())
            .prop_map(|((kind, id), value)| Change::Control { kind, id, value }),
        1 => key().prop_map(|(kind, id)| Change::ForgetControl { kind, id }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => change().prop_map(Step::Write),
        1 => Just(Step::Reopen),
        2 => (any::<Index>(), select(vec![0, 0, 1, 200, 5000]), select(vec![0, 0xA5]))
            .prop_map(|(at, more, byte)| Step::Tear { at, more, byte }),
        1 => (5..15_u64).prop_map(|before_end| Step::Garble { before_end }),
        3 => Just(Step::Tend),
    ]
}

#[derive(Clone, Debug, Default)]
struct Found {
    leases: BTreeMap<Uid, LeaseRecord>,
    controls: BTreeMap<(&'static str, &'static str), u32>,
}

impl Found {
    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Lease { .. } => {
                let record = change.record();
                self.leases.insert(record.uid, record);
            }
            Change::ForgetLease { byte } => drop(self.leases.remove(&record(byte).uid)),
            Change::Control { kind, id, value } => {
                self.controls.insert((kind.prefix(), id), value);
            }
            Change::ForgetControl { kind, id } => drop(self.controls.remove(&(kind.prefix(), id))),
        }
    }
}

impl Change {
    fn record(&self) -> LeaseRecord {
        let Self::Lease { byte, state, labels } = *self else { unreachable!("it is no lease") };
        let labels = (0..labels).map(|number| (format!("label-{number}"), "x".to_owned()));
        // Ends with no zeros: zeros behind a cut would make it whole again.
        let acquire_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        LeaseRecord { state, labels: labels.collect(), acquire_time, ..record(byte) }
    }
}

struct World {
    journal: Option<Journal>,
    /// What is in the log before what can be cut.
    base: Found,
    base_len: u64,
    /// What was written since, and where each ends in the log.
    written: Vec<(u64, Change)>,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in_segments(dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
        let base = Found::default();
        let mut world = Self { journal: Some(journal), base, base_len: 0, written: vec![], dir };
        world.base_len = world.len();
        world
    }

    fn log(&self) -> PathBuf {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|it| it.unwrap().path());
        let number =
            |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().parse::<u32>().ok();
        let logs = files.filter(|it| it.extension().is_some_and(|it| it == "log"));
        logs.max_by_key(number).unwrap()
    }

    fn len(&self) -> u64 {
        std::fs::metadata(self.log()).unwrap().len()
    }

    fn expected(&self) -> Found {
        let mut expected = self.base.clone();
        self.written.iter().for_each(|(_, change)| expected.apply(change));
        expected
    }

    fn reopen(&mut self) -> Result<(), TestCaseError> {
        let state_uuid = self.journal.as_ref().map(Journal::state_uuid);
        self.journal = None;
        let journal = Journal::open_in_segments(self.dir.path(), &SystemEnv, SMALL_BYTES).unwrap();
        prop_assert!(!journal.is_new());
        prop_assert!(state_uuid.is_none_or(|it| it == journal.state_uuid()));
        self.journal = Some(journal);
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write(change) => {
                let journal = self.journal.as_ref().unwrap();
                match change {
                    Change::Lease { .. } => journal.write_lease(&change.record()).unwrap(),
                    Change::ForgetLease { byte } => {
                        journal.forget_lease(record(byte).uid).unwrap();
                    }
                    Change::Control { kind, id, value } => {
                        journal.write_control(kind, id, &value).unwrap();
                    }
                    Change::ForgetControl { kind, id } => journal.forget_control(kind, id).unwrap(),
                }
                self.written.push((self.len(), change));
            }
            Step::Reopen => self.reopen()?,
            Step::Tear { at, more, byte } => {
                self.journal = None;
                let len = self.len();
                let end = self.written.last().map_or(self.base_len, |(end, _)| *end);
                prop_assert_eq!(len, end, "the log ends where the last change does");
                let cut = self.base_len + at.index((len - self.base_len + 1) as usize) as u64;
                let log = OpenOptions::new().write(true).open(self.log()).unwrap();
                log.set_len(cut).unwrap();
                log.write_all_at(&vec![byte; more], cut).unwrap();
                self.written.retain(|(end, _)| *end <= cut);
                self.reopen()?;
                let end = self.written.last().map_or(self.base_len, |(end, _)| *end);
                prop_assert_eq!(self.len(), end, "cut at the last whole change");
            }
            Step::Garble { before_end } => {
                let Some((end, _)) = self.written.pop() else { return Ok(()) };
                self.journal = None;
                let log = OpenOptions::new().read(true).write(true).open(self.log()).unwrap();
                let mut byte = [0];
                log.read_exact_at(&mut byte, end - before_end).unwrap();
                log.write_all_at(&[byte[0] ^ 0x40], end - before_end).unwrap();
                self.reopen()?;
                let end = self.written.last().map_or(self.base_len, |(end, _)| *end);
                prop_assert_eq!(self.len(), end, "cut at the last whole change");
            }
            Step::Tend => {
                let journal = self.journal.as_ref().unwrap();
                journal.tend().unwrap();
                prop_assert!(!journal.wants_tending());
                self.base = self.expected();
                self.base_len = self.len();
                self.written.clear();
            }
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let (journal, expected) = (self.journal.as_ref().unwrap(), self.expected());
        let leases = journal.leases().unwrap().into_iter().map(|it| (it.uid, it));
        prop_assert_eq!(leases.collect::<BTreeMap<_, _>>(), expected.leases);
        for kind in Control::ALL {
            let its = expected.controls.iter().filter(|((prefix, _), _)| *prefix == kind.prefix());
            let values: Vec<u32> = its.map(|(_, value)| *value).collect();
            prop_assert_eq!(journal.control::<u32>(kind).unwrap(), values);
        }
        Ok(())
    }
}

/// Segments are this small here.
const SMALL_BYTES: u64 = 2048;

/// Opening is slow: far fewer cases than of others, and more where more are asked for.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.div_ceil(SLOWER), ..config }
}

const SLOWER: u32 = 20;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_written_is_found_and_nothing_else(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
            world.compare()?;
        }
        world.reopen()?;
        world.compare()?;
    }
}
