//! What a fake tool keeps: settings, and one file for each machine, under one lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Which tool the fake is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[default]
    Smolvm,
    Apple,
}

/// How the fake behaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) kind: Kind,
    /// The version that it says it is.
    pub(crate) version: String,
    /// Apple's answers are in the shape before 1.0.
    pub(crate) old_shape: bool,
    /// Removals are answered with "Cancelled" and a good exit code, and not made.
    pub(crate) cancels_removals: bool,
    /// What befalls commands, by their first two words.
    pub(crate) faults: BTreeMap<String, Fault>,
}

/// What befalls a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// It never ends.
    Hangs,
    /// It writes without end.
    Floods,
    /// It writes what is no answer, and ends well.
    Raves,
    /// It has done what it was asked to and fails then.
    FailsAfterwards,
    /// It fails for want of space.
    DiskFull,
    /// Its database is opened for the first time by another process, and this once it fails for that.
    NotOpen,
}

/// A machine that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) name: String,
    /// In the tool's own words.
    pub(crate) state: String,
    pub(crate) image: String,
    pub(crate) vcpu_count: u32,
    pub(crate) mem_size_mib: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) command: Vec<String>,
    /// It was started once.
    pub(crate) was_started: bool,
    /// How often it is listed as it is before it is what it becomes.
    pub(crate) looks: u32,
    /// What is on its disk.
    pub(crate) disk: String,
    /// What is in its /tmp, which lies there, too.
    #[serde(default)]
    pub(crate) temporary: String,
    /// What its command wrote.
    pub(crate) output: String,
}

/// A fake's directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn make(&self, settings: &Settings) {
        std::fs::create_dir_all(self.dir.join("machines")).expect("a directory is made");
        self.set(settings);
    }

    /// Changes the settings, for commands from now on.
    pub(crate) fn set(&self, settings: &Settings) {
        write(&self.dir.join("settings.json"), settings);
    }

    pub(super) fn settings(&self) -> Settings {
        read(&self.dir.join("settings.json")).expect("there are settings")
    }

    /// Nobody else changes anything while this is there.
    pub(super) fn lock(&self) -> File {
        let file = File::create(self.dir.join("lock")).expect("there is a lock");
        file.lock().expect("it can be locked");
        file
    }

    /// A fault that befalls a command before it does anything.
    pub(super) fn suffer(&self, words: &[String]) {
        match self.fault(words) {
            Some(Fault::Hangs) => loop {
                std::thread::park();
            },
            Some(Fault::Floods) => loop {
                print!("{}", "flood ".repeat(4096));
            },
            _ => {}
        }
    }

    pub(super) fn fault(&self, words: &[String]) -> Option<Fault> {
        let key = words.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
        self.settings().faults.get(&key).copied()
    }

    /// The next command of these words goes well.
    pub(super) fn forget_fault(&self, words: &[String]) {
        let mut settings = self.settings();
        settings.faults.remove(&words.iter().take(2).cloned().collect::<Vec<_>>().join(" "));
        self.set(&settings);
    }

    /// A machine by its name.
    pub(crate) fn machine(&self, name: &str) -> Option<Machine> {
        read(&self.path(name))
    }

    /// All machines, sorted by name.
    pub(crate) fn machines(&self) -> Vec<Machine> {
        let entries = std::fs::read_dir(self.dir.join("machines")).expect("there is a directory");
        let paths = entries.flatten().map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        // One may go while others are read.
        let mut machines: Vec<Machine> = paths.filter_map(|path| read(&path)).collect();
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        machines
    }

    /// Writes a machine down, as it is now.
    pub(crate) fn put(&self, machine: &Machine) {
        write(&self.path(&machine.name), machine);
    }

    /// Changes a machine behind its owner's back.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Machine)) {
        let _lock = self.lock();
        let mut machine = self.machine(name).expect("there is such a machine");
        change(&mut machine);
        self.put(&machine);
    }

    pub(crate) fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.path(name));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("machines").join(format!("{name}.json"))
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let text = std::fs::read(path).ok()?;
    Some(serde_json::from_slice(&text).expect("what was written can be read"))
}

fn write<T: Serialize>(path: &Path, value: &T) {
    let text = serde_json::to_vec(value).expect("it is plain data");
    let fresh = path.with_extension(format!("fresh-{}", std::process::id()));
    std::fs::write(&fresh, text).expect("state is written");
    std::fs::rename(&fresh, path).expect("state is put in place");
}
