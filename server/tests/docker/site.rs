//! A state directory of a case's own, and what of it is on the engine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use hearth_proto::v1::vm::State;
use hearth_proto::v1::{GetNodeRequest, GetTemplateRequest, Vm, template};
use hearth_proto::{HearthClient, StatusDetails};
use hearth_providers::env::Deadline;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::containers;
use crate::docker_engine::{BASE, EngineHost, LONG};
use crate::hearth::{Hearth, program_by};

/// What a case is called, what it does on an engine, and on which ones.
pub(crate) type Case = (&'static str, fn(&EngineHost), &'static [&'static str]);
pub(crate) const BOTH: &[&str] = &["docker", "podman"];
pub(crate) const DOCKER: &[&str] = &["docker"];

/// What every container runs. It is ready after a while, and leaves a trace of that in what no snapshot
/// has.
const COMMAND: &str =
    "[\"sh\", \"-c\", \"sleep 0.3; echo > /tmp/ready; echo READY; exec sleep 1000000\"]";

/// What outlives a hearth. What a case left on the engine goes with it.
pub(crate) struct Site<'a> {
    pub(crate) engine: &'a EngineHost,
    depth: i32,
    state_uuid: OnceLock<String>,
    /// What becomes hearth, if it is not hearth that is started.
    starter: Vec<OsString>,
    dir: TempDir,
}

impl<'a> Site<'a> {
    /// A site whose default pool has `depth` VMs.
    pub(crate) fn new(engine: &'a EngineHost, depth: i32) -> Self {
        Self::with(engine, depth, &engine.socket(), "")
    }

    /// One that talks to the engine by `socket`; `pool` is more of the default pool's settings.
    pub(crate) fn with(engine: &'a EngineHost, depth: i32, socket: &Path, pool: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[providers.engine]\nkind = \"docker\"\nsocket = {socket:?}\ncommand = {COMMAND}\n\
             [default_template]\nimage = \"{BASE}\"\nready_marker = \"READY\"\n\
             [default_pool]\ndepth = {depth}\n{pool}\n"
        );
        std::fs::write(dir.path().join("hearth.toml"), config).unwrap();
        Self { engine, depth, state_uuid: OnceLock::new(), starter: Vec::new(), dir }
    }

    /// From now on hearth is started by another program, which gets it as its last arguments.
    pub(crate) fn run_by(&mut self, starter: Vec<OsString>) {
        self.starter = starter;
    }

    /// Everything of it lies below.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts hearth and waits until its pool is full.
    pub(crate) fn start(&self) -> Hearth {
        let log = self.dir.path().join("log");
        let mut child = program_by(&self.starter)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
            .arg(self.dir.path().join("hearth.toml"))
            .arg("--state")
            .arg(self.state())
            .arg("--runtime")
            .arg(self.dir.path().join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut address = |prefix: &str| {
            let found = lines.find_map(|line| Some(line.strip_prefix(prefix)?.trim().to_owned()));
            found.unwrap_or_else(|| panic!("hearth has ended: {}", self.log()))
        };
        let (address, admin) = (address("listening on grpc://"), address("admin on http://"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(HearthClient::connect(&address)).unwrap();
        let mut hearth = Hearth { child, client, address, admin, runtime };
        wait_until("it serves", || {
            let ended = hearth.child.try_wait().unwrap();
            assert!(ended.is_none(), "hearth has ended: {}", self.log());
            self.is_full(&hearth)
        });
        let node = hearth.call(hearth.client.node.clone().get_node(GetNodeRequest::default()));
        let uuid = node.unwrap().state_uuid;
        assert_eq!(*self.state_uuid.get_or_init(|| uuid.clone()), uuid, "another state");
        hearth
    }

    fn is_full(&self, hearth: &Hearth) -> bool {
        let request = GetTemplateRequest { name: "templates/default".to_owned() };
        let found = hearth.call(hearth.client.templates.clone().get_template(request));
        match found.map(|template| template.state()) {
            Ok(template::State::Ready) => hearth.warm() >= self.depth,
            Ok(template::State::Failed) => panic!("no template: {}", self.log()),
            Ok(_) | Err(_) => false,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The directory of a VM.
    pub(crate) fn instance(&self, uid: &str) -> PathBuf {
        self.state().join("instances").join(uid)
    }

    /// The directories of all snapshots.
    pub(crate) fn snapshots(&self) -> BTreeSet<PathBuf> {
        let all = std::fs::read_dir(self.state().join("snapshots")).into_iter().flatten();
        all.flatten().map(|entry| entry.path()).collect()
    }

    /// The end of what hearth has logged.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// What everything of it carries.
    pub(crate) fn uuid(&self) -> &str {
        self.state_uuid.get().expect("it was started")
    }

    /// The containers on the engine that are ours.
    pub(crate) fn containers(&self) -> BTreeSet<String> {
        containers::of_state(self.engine, self.uuid())
    }

    /// The images on the engine that are ours.
    pub(crate) fn images(&self) -> BTreeSet<String> {
        containers::images_of_state(self.engine, self.uuid())
    }

    /// Runs a command in the container of a VM and answers what it wrote.
    pub(crate) fn exec(&self, vm: &Vm, command: &str) -> String {
        containers::exec(self.engine, &vm.uid, command)
    }

    /// The image that was made since there were `before`.
    pub(crate) fn new_image(&self, before: &BTreeSet<String>) -> String {
        let now = self.images();
        let new: Vec<_> = now.difference(before).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        new[0].clone()
    }

    /// Waits until nothing is there but what the template is made from.
    pub(crate) fn assert_nothing_left(&self, hearth: &Hearth) {
        assert!(hearth.artifacts().is_empty(), "artifacts");
        hearth.ok(&["pools", "update", "default", "--depth", "0"]);
        wait_until("only the template's image is left", || {
            self.containers().is_empty() && self.images().len() == 1
        });
        wait_until("only the template's directory is left", || {
            let instances = std::fs::read_dir(self.state().join("instances")).unwrap();
            instances.count() == 0 && self.snapshots().len() == 1
        });
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // The other cases are not to suffer from one that failed.
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let Some(state) = self.state_uuid.get() else { return };
        for container in containers::of_state(self.engine, state) {
            containers::remove(self.engine, &container);
        }
        for image in containers::images_of_state(self.engine, state) {
            containers::remove_image(self.engine, &image);
        }
    }
}

/// What a refusal says to programs.
pub(crate) fn refusal<T: std::fmt::Debug>(refused: Result<T, Status>) -> (Code, String) {
    let status = refused.unwrap_err();
    (status.code(), StatusDetails::of(&status).reason.unwrap_or_default())
}

/// It is refused because the engine is not there, and says when to come back.
pub(crate) fn assert_unavailable<T: std::fmt::Debug>(refused: Result<T, Status>, reason: &str) {
    let status = refused.unwrap_err();
    let details = StatusDetails::of(&status);
    let said = (status.code(), details.reason.as_deref(), details.retry_after.is_some());
    assert_eq!(said, (Code::Unavailable, Some(reason), true), "{status:?}");
}

/// It runs, as hearth and as the engine see it.
pub(crate) fn assert_runs(site: &Site<'_>, vm: &Vm) {
    assert_eq!(vm.state(), State::Running, "{vm:?}");
    assert_eq!(site.exec(vm, "echo on"), "on\n");
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(LONG);
    while !condition() {
        assert!(deadline.left().is_some(), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
