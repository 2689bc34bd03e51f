//! A hearth whose VMs are a fake tool's, its command line, and what the tool knows of its VMs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hearth_providers::env::Deadline;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli_fake::{self, Kind, Machine, Settings, Store};

/// What a case is called, and what it does.
pub(crate) type Case = (&'static str, fn());

/// How long anything may take before a case fails. Never a claim of speed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What outlives a hearth: its directories, and a fake tool with its machines.
pub(crate) struct Site {
    pub(crate) fake: Store,
    /// The fake's program.
    pub(crate) program: PathBuf,
    dir: TempDir,
}

/// A hearth that runs; dropped, it is killed.
pub(crate) struct Hearth {
    child: Child,
    address: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A fake smolvm's settings.
pub(crate) fn smolvm() -> Settings {
    Settings { version: "1.32.2".to_owned(), ..Settings::default() }
}

/// Those of a fake of Apple's container of this version.
pub(crate) fn apple(version: &str) -> Settings {
    Settings { kind: Kind::Apple, version: version.to_owned(), ..Settings::default() }
}

impl Site {
    /// One whose provider is of `kind`, as a configuration calls it.
    pub(crate) fn new(kind: &str, settings: &Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (program, fake) = cli_fake::install(dir.path(), settings);
        let config = format!(
            "[providers.tool]\nkind = \"{kind}\"\nbinary = {program:?}\nwatch_period = \"50ms\"\n\
             [default_template]\nimage = \"base\"\nready_marker = \"READY\"\n\
             [default_pool]\ndepth = 1\n"
        );
        std::fs::write(dir.path().join("hearth.toml"), config).unwrap();
        Self { fake, program, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts hearth as it is configured, and waits until its pool is full.
    pub(crate) fn start(&self) -> Hearth {
        let config = self.path().join("hearth.toml");
        self.start_with(&["--config".as_ref(), config.as_os_str()], &[])
    }

    /// The same with these flags and variables.
    pub(crate) fn start_with(&self, flags: &[&OsStr], variables: &[(&str, &str)]) -> Hearth {
        let log = self.path().join("log");
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state"])
            .arg(self.path().join("state"))
            .arg("--runtime")
            .arg(self.path().join("run"))
            .args(flags)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = |what: &str| {
            let found = lines.find_map(|line| line.strip_prefix(what).map(str::to_owned));
            found.unwrap_or_else(|| panic!("hearth does not say {what:?}: {}", self.log()))
        };
        let address = said("listening on ");
        said("admin on ");
        let hearth = Hearth { child, address };
        wait_until("its pool is full", || self.is_full(&hearth));
        hearth
    }

    fn is_full(&self, hearth: &Hearth) -> bool {
        if hearth.run(&["pools", "wait", "default", "--warm", "1", "--timeout", "2s"]).code == 0 {
            return true;
        }
        // It may not be there yet.
        let template = hearth.run(&["templates", "get", "default", "--output", "json"]);
        let failed = template.code == 0 && json(&template.out)["state"] == "FAILED";
        assert!(!failed, "its template was not built: {template:?}");
        false
    }

    /// What hearth has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// The tool's side of a VM.
    pub(crate) fn machine(&self, vm: &Value) -> Option<Machine> {
        self.fake.machine(&name_of(vm))
    }

    /// What hearth never does: the guest of a VM writes to its disk.
    pub(crate) fn write(&self, vm: &Value, text: &str) {
        self.fake.change(&name_of(vm), |machine| machine.disk = text.to_owned());
    }

    /// The VM runs, and has not been stopped since it was begun.
    pub(crate) fn assert_untouched(&self, vm: &Value) {
        let machine = self.machine(vm).expect("its machine is there");
        assert_eq!((machine.state.as_str(), machine.output.as_str()), ("running", "READY\n"));
    }

    /// The directories of all snapshots.
    pub(crate) fn snapshots(&self) -> BTreeSet<PathBuf> {
        let all = std::fs::read_dir(self.path().join("state/snapshots")).into_iter().flatten();
        all.flatten().map(|entry| entry.path()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

impl Hearth {
    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A command for this hearth, not run yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).env("HEARTH_ADDRESS", &self.address).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command that has to succeed, and answers what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "hearth {arguments:?}: {ended:?}");
        ended.out
    }

    /// The same, printed as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        json(&self.ok(&[arguments, &["--output", "json"]].concat()))
    }

    /// Acquires a VM, which has to be a warm one.
    pub(crate) fn acquire(&self, name: &str) -> Value {
        let acquired = self.json(&["acquire", "--name", name, "--ttl", "1h"]);
        assert_eq!(acquired["source"], "WARM");
        acquired["vm"].clone()
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        self.json(&["vms", "get", name])
    }

    /// The names of all artifacts.
    pub(crate) fn artifacts(&self) -> Vec<String> {
        let names = self.ok(&["artifacts", "list", "--output", "name"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Freezes a VM as `artifact`, and waits until it is released.
    pub(crate) fn freeze_and_release(&self, site: &Site, vm: &Value, artifact: &str) {
        let name = vm["name"].as_str().unwrap();
        self.ok(&["freeze", name, "--artifact", artifact, "--yes"]);
        self.ok(&["release", name]);
        wait_until("it is gone", || site.machine(vm).is_none());
    }
}

impl Drop for Hearth {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn name_of(vm: &Value) -> String {
    format!("hearth-{}", vm["uid"].as_str().unwrap())
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The program, without what the environment of the test run says to it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(LONG);
    while !condition() {
        assert!(deadline.left().is_some(), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
