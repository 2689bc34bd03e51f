//! The fake in a directory: scripts to start it, its settings, and what its processes share.
//!
//! A process of the fake holds the directory open, because a jail may hide its path later.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::settings::{Fault, Settings};

const SETTINGS: &str = "settings.json";
const CLAIMS: &str = "claims";
const TAPS: &str = "taps";

/// The fake as a test sees it.
#[derive(Debug)]
pub(crate) struct Installed {
    /// The program to run as Firecracker.
    pub(crate) firecracker: PathBuf,
    /// The program to run as the jailer.
    pub(crate) jailer: PathBuf,
    dir: PathBuf,
}

/// Installs the fake into `dir`, which is there; two installations share nothing. Everybody may
/// enter it then: a jailed process goes on reading its settings.
pub(crate) fn install(dir: &Path, settings: &Settings) -> Installed {
    let test = std::env::current_exe().expect("a process knows its program");
    let file = dir.join(SETTINGS);
    let script = |name: &str, role: &str| {
        let path = dir.join(name);
        let (test, file) = (quoted(&test), quoted(&file));
        let text = format!("#!/bin/sh\nexec {test} {role} {file} \"$@\"\n");
        write_program(&path, &text);
        path
    };
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("its mode is set");
    for shared in [CLAIMS, TAPS] {
        let path = dir.join(shared);
        std::fs::create_dir_all(&path).expect("a directory is made");
        // Processes that a jailer gave another user write here, too.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("its mode is set");
    }
    let installed = Installed {
        firecracker: script("firecracker", super::AS_FIRECRACKER),
        jailer: script("jailer", super::AS_JAILER),
        dir: dir.to_owned(),
    };
    installed.set(settings);
    installed
}

/// Writes the text of a program that can be run at once. Another process does it, for a child that
/// another thread forks meanwhile would hold what we have open for writing, and what anybody has
/// open for writing cannot be run.
pub(crate) fn write_program(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("a script is written");
    let copied = std::process::Command::new("cp").arg("--").args([&draft, path]).status();
    assert!(copied.expect("there is a cp").success(), "a script is copied");
    std::fs::remove_file(&draft).expect("it is ours");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode is set");
}

impl Installed {
    /// Changes the settings; requests from now on go by them. Faults count from 0 again.
    pub(crate) fn set(&self, settings: &Settings) {
        let path = self.dir.join(SETTINGS);
        let before = std::fs::read(&path).ok();
        let before = before.and_then(|text| serde_json::from_slice::<Settings>(&text).ok());
        let generation = before.map_or(0, |before| before.generation + 1);
        let settings = Settings { generation, ..settings.clone() };
        let text = serde_json::to_vec_pretty(&settings).expect("settings are JSON");
        let fresh = self.dir.join("settings.fresh");
        std::fs::write(&fresh, text).expect("settings are written");
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o644))
            .expect("its mode is set");
        std::fs::rename(&fresh, &path).expect("settings are put in place");
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// The directory as a process of the fake sees it.
#[derive(Debug)]
pub(super) struct Installation {
    dir: OwnedFd,
    /// The settings file's path, good outside of a jail alone.
    pub(super) settings_file: PathBuf,
}

impl Installation {
    pub(super) fn open(settings_file: &Path) -> Self {
        let dir = settings_file.parent().expect("the settings lie in a directory");
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let dir = rustix::fs::open(dir, flags, Mode::empty()).expect("the directory opens");
        Self { dir, settings_file: settings_file.to_owned() }
    }

    /// The settings as they are now.
    pub(super) fn settings(&self) -> Settings {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, SETTINGS, flags, Mode::empty());
        let mut text = Vec::new();
        let mut file = std::fs::File::from(file.expect("there are settings"));
        file.read_to_end(&mut text).expect("settings are read");
        serde_json::from_slice(&text).expect("settings make sense")
    }

    /// The fault that befalls this request; it counts as used.
    pub(super) fn fault(&self, settings: &Settings, method: &str, path: &str) -> Option<Fault> {
        let fits = |fault: &Fault| fault.method == method && fault.path == path;
        let mut fitting = settings.faults.iter().enumerate().filter(|(_, fault)| fits(fault));
        let found = fitting.find(|(index, fault)| match fault.times {
            None => true,
            Some(times) => {
                let generation = settings.generation;
                (0..times).any(|use_| self.claim(&format!("{generation}-{index}-{use_}")))
            }
        });
        found.map(|(_, fault)| fault.clone())
    }

    /// Whoever makes the file first has it.
    fn claim(&self, name: &str) -> bool {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let path = format!("{CLAIMS}/{name}");
        rustix::fs::openat(&self.dir, path, flags, Mode::from_raw_mode(0o666)).is_ok()
    }

    /// Opens a TAP's stand-in; `None` when another process has it.
    pub(super) fn open_tap(&self, name: &str) -> Option<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let path = format!("{TAPS}/{name}");
        let tap = rustix::fs::openat(&self.dir, path, flags, Mode::from_raw_mode(0o666)).ok()?;
        let locked = rustix::fs::flock(&tap, FlockOperation::NonBlockingLockExclusive);
        locked.is_ok().then_some(tap)
    }
}
