//! The table as tests: each row on the fake, and one test that runs all on the real programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use parking_lot::Mutex;

use crate::driver::{self, Programs};
use crate::firecracker_fake::{Settings, install};
use crate::outcome::Outcome;
use crate::recording::{self, Recording, difference};
use crate::row::Row;
use crate::{fake_alone, firecracker_guest, rows_command, rows_snapshot, rows_state, rows_wire};

const FIRECRACKER: &str = "HEARTH_FIRECRACKER";
const JAILER: &str = "HEARTH_JAILER";
const WANTED: &str = "give the path of a real 1.16.1, static";
/// How many rows are run on the real programs at once.
const AT_ONCE: usize = 4;

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let table = Arc::new(Table::new());
    let mut trials: Vec<Trial> = (0..table.rows.len()).map(|index| of_row(&table, index)).collect();
    trials.extend(fake_alone::ALL.iter().map(|(name, test)| {
        Trial::test(format!("fake: {name}"), || {
            test();
            Ok(())
        })
    }));
    let real = Arc::clone(&table);
    trials.push(Trial::ignorable_test("real binary", move || real.compare()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Table {
    rows: Vec<Row>,
    recording: Recording,
}

fn of_row(table: &Arc<Table>, index: usize) -> Trial {
    let table = Arc::clone(table);
    let name = table.rows[index].name;
    Trial::ignorable_test(name, move || table.check(index))
}

impl Table {
    fn new() -> Self {
        let rows =
            [rows_state::rows(), rows_snapshot::rows(), rows_wire::rows(), rows_command::rows()];
        Self { rows: rows.into_iter().flatten().collect(), recording: recording::read() }
    }

    /// Holds the fake against the recording.
    fn check(&self, index: usize) -> Result<Completion, Failed> {
        let row = &self.rows[index];
        if row.needs_root && !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("it needs root"));
        }
        if row.is_of_this_host {
            return Ok(Completion::ignored_with("it depends on the host: see the real binary"));
        }
        let seen = run_on_fake(row)?;
        let recorded = self.recording.get(row.name).ok_or("it is not in the recording")?;
        match difference(("recorded", recorded), ("fake", &seen)) {
            same if same.is_empty() => Ok(Completion::Completed),
            differing => Err(differing.into()),
        }
    }

    /// Holds the fake against the real programs.
    fn compare(&self) -> Result<Completion, Failed> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let Some(firecracker) = named(FIRECRACKER) else {
            return Ok(Completion::ignored_with(format!("{FIRECRACKER} is not set: {WANTED}")));
        };
        let Some(jailer) = named(JAILER) else {
            return Ok(Completion::ignored_with(format!("{JAILER} is not set: {WANTED}")));
        };
        if !rustix::process::geteuid().is_root() {
            return Err(Failed::from("the real programs need root"));
        }
        let dir = tempfile::tempdir()?;
        let guest = firecracker_guest::build(dir.path())?;
        let real = Programs { firecracker, jailer, guest, are_real: true };
        let seen = self.run_all(&real);
        let blesses = std::env::var_os("HEARTH_BLESS").is_some_and(|bless| bless == "1");
        if blesses {
            self.bless(&seen);
        }
        let mut differing = Vec::new();
        for row in &self.rows {
            let outcome = match &seen[row.name] {
                Ok(outcome) => outcome,
                Err(error) => {
                    differing.push(format!("{}: real: {error}\n", row.name));
                    continue;
                }
            };
            let difference = match run_on_fake(row) {
                Ok(fake) => difference(("real", outcome), ("fake", &fake)),
                Err(error) => format!("fake: {error}\n"),
            };
            if !difference.is_empty() {
                differing.push(format!("{}:\n{difference}", row.name));
            }
        }
        let (differ, rows) = (differing.len(), self.rows.len());
        println!("fake and real differ in {differ} of {rows} rows");
        match differ {
            0 => Ok(Completion::Completed),
            _ => Err(differing.concat().into()),
        }
    }

    fn run_all(&self, real: &Programs) -> BTreeMap<&'static str, Result<Outcome, String>> {
        let left = Mutex::new(self.rows.iter());
        let seen = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let Some(row) = left.lock().next() else { return };
                        let outcome = run_apart(row, real);
                        seen.lock().insert(row.name, outcome);
                    }
                });
            }
        });
        seen.into_inner()
    }

    fn bless(&self, seen: &BTreeMap<&'static str, Result<Outcome, String>>) {
        let kept = self.rows.iter().filter(|row| !row.is_of_this_host);
        let kept = kept.filter_map(|row| {
            let outcome = seen[row.name].as_ref().ok()?;
            Some((row.name.to_owned(), outcome.clone()))
        });
        recording::write(&kept.collect());
    }
}

/// Runs a row on a fake that it has for itself, TAPs and all.
fn run_on_fake(row: &Row) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    // Anything with the right first bytes is a kernel to the fake.
    let guest = dir.path().join("kernel");
    std::fs::write(&guest, b"\x7fELF").map_err(|error| error.to_string())?;
    let settings = Settings { taps_are_exclusive: true, ..Settings::default() };
    let installed = install(dir.path(), &settings);
    let (firecracker, jailer) = (installed.firecracker, installed.jailer);
    run_apart(row, &Programs { firecracker, jailer, guest, are_real: false })
}

/// Runs a row in a thread that ends with it, because a row may change its namespaces.
fn run_apart(row: &Row, programs: &Programs) -> Result<Outcome, String> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| driver::run(row, programs)).join();
        run.unwrap_or_else(|_| Err("the row's thread panicked".to_owned()))
    })
}
