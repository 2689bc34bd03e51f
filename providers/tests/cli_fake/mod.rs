//! Command line tools of our own for tests: processes that keep their state in a directory and
//! answer as the real ones do.
//!
//! A test binary calls [`run_if_asked`] first thing in `main` and [`install`]s a fake into a
//! directory: a script that starts the test binary again in the fake's role. Machines are only
//! remembered: each has a disk of one line and the output of its boots. What the real tools refuse
//! the fake refuses with their words, and their quirks are its own.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

#[cfg(feature = "apple-container")]
mod apple;
mod arguments;
mod smolvm;
mod store;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[allow(unused_imports, reason = "each test binary uses the part that it needs")]
pub(crate) use store::{Fault, Kind, Machine, Settings, Store};

/// The first argument of a process that is to be a fake tool; its state directory follows.
const AS_TOOL: &str = "--fake-tool";

/// What the fake says: on its output, or on its error output with exit code 1.
type Said = Result<String, String>;

/// Becomes the fake when this process was started for that: then this is its exit code.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some(AS_TOOL) {
        return None;
    }
    let store = Store::at(Path::new(&words.next().unwrap_or_default()));
    let words: Vec<String> = words.collect();
    store.suffer(&words);
    let said = match store.settings().kind {
        Kind::Smolvm => smolvm::run(&store, &words),
        #[cfg(feature = "apple-container")]
        Kind::Apple => apple::run(&store, &words),
        #[cfg(not(feature = "apple-container"))]
        Kind::Apple => Err("this fake was built without it".to_owned()),
    };
    Some(match said {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(said) => {
            eprintln!("Error: {said}");
            ExitCode::FAILURE
        }
    })
}

/// Installs a fake with `settings` into `dir`, which is there. Answers the program to run, and the
/// fake's state for tests to look at and to change.
pub(crate) fn install(dir: &Path, settings: &Settings) -> (PathBuf, Store) {
    let test = std::env::current_exe().expect("a process knows its program");
    let (state, program) = (dir.join("fake-state"), dir.join("tool"));
    let store = Store::at(&state);
    store.make(settings);
    let text = format!("#!/bin/sh\nexec {} {AS_TOOL} {} \"$@\"\n", quoted(&test), quoted(&state));
    // Another process writes it: what a child of another thread's has open cannot be run.
    let draft = dir.join("tool.draft");
    std::fs::write(&draft, text).expect("a script is written");
    let copied = std::process::Command::new("cp").arg("--").args([&draft, &program]).status();
    assert!(copied.expect("there is a cp").success(), "a script is copied");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("its mode is set");
    (program, store)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
