//! Ends of hearth by `kill -9` around a freeze: there is a whole artifact or none, and the VM goes
//! on.
//!
//! A freeze commits, writes down which image it got and that there is a snapshot, pins that, marks
//! the VM's directory, and journals the artifact. hearth is held between two of these: at the
//! commit by a socket between it and the engine, later by strace, which has the renaming of a file that
//! was written take long, and at the journal by a deletion that has the turn and hangs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bollard::models::ContainerStateStatusEnum as Stands;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{DeleteArtifactRequest, GetArtifactRequest, Vm};
use rustix::process::{Pid, Signal, kill_process};

use crate::containers::{name, pause, stands};
use crate::docker_engine::{EngineHost, LONG};
use crate::hearth::Hearth;
use crate::proxy::{At, Proxy};
use crate::site::{Case, DOCKER, Site, assert_runs, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("a_freeze_cut_short_leaves_all_or_nothing", a_freeze_cut_short, DOCKER),
    ("a_commit_that_outlives_hearth_leaves_no_image", a_commit_that_outlives_hearth, DOCKER),
    ("a_restart_during_a_commit_finds_the_vm_running", a_restart_during_a_commit, DOCKER),
    ("an_engine_lost_during_a_commit_goes_on_later", an_engine_lost_during_a_commit, DOCKER),
];

/// Those of them that take strace.
pub(crate) const TAKE_STRACE: &[&str] = &["a_freeze_cut_short_leaves_all_or_nothing"];

/// What was done when hearth was killed, and nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Committed,
    ImageWritten,
    SnapshotWritten,
    Pinned,
    Preserved,
    Journaled,
}

const STEPS: [Done; 7] = [
    Done::Nothing,
    Done::Committed,
    Done::ImageWritten,
    Done::SnapshotWritten,
    Done::Pinned,
    Done::Preserved,
    Done::Journaled,
];

fn a_freeze_cut_short(engine: &EngineHost) {
    let proxy = Proxy::new(&engine.socket());
    let site = Site::with(engine, 0, &proxy.socket(), "");
    let mut hearth = site.start();
    let (vm, other) = (hearth.acquire("mine"), hearth.acquire("other"));
    site.exec(&vm, "echo kept > /etc/note");
    let (template, process) = (site.images(), stands(engine, &name(&vm.uid)));
    for done in STEPS {
        println!("killed when done was: {done:?}");
        cut_short(&site, &proxy, hearth, (&vm, &other), done);
        hearth = site.start();
        let expected: &[&str] = if done == Done::Journaled { &["artifacts/cut"] } else { &[] };
        let artifacts: Vec<_> = hearth.artifacts().into_iter().map(|it| it.name).collect();
        assert_eq!(artifacts, expected, "{done:?}");
        assert_runs(&site, &hearth.get(&vm.name).unwrap());
        assert_eq!(stands(engine, &name(&vm.uid)), process, "{done:?}: it went on");
        if done == Done::Journaled {
            let resumed = hearth.resume("artifacts/cut").unwrap();
            assert_eq!(site.exec(&resumed, "cat /etc/note"), "kept\n");
            hearth.release(&resumed);
            hearth.delete_when_unused("cut");
        }
        wait_until(&format!("{done:?}: no image is left"), || site.images() == template);
        wait_until(&format!("{done:?}: no files are left"), || site.snapshots().len() == 1);
        let mark = std::fs::read_to_string(mark_of(&site, &vm)).unwrap_or_default();
        assert!(!mark.contains("cut"), "{done:?}: {mark}");
    }
    assert_eq!(site.exec(&vm, "cat /etc/note"), "kept\n");
    hearth.release(&vm);
    hearth.release(&other);
    site.assert_nothing_left(&hearth);
}

/// Freezes `vm` and kills hearth at that step.
fn cut_short(site: &Site<'_>, proxy: &Proxy, hearth: Hearth, (vm, other): (&Vm, &Vm), done: Done) {
    if done == Done::Preserved {
        hearth.freeze(&other.name, "other").unwrap();
    }
    let before = site.snapshots();
    proxy.hold(if done == Done::Nothing { At::Request } else { At::Answer });
    let operation = hearth.begin_freeze(&vm.name, "cut").unwrap();
    proxy.wait_held();
    let new: BTreeSet<PathBuf> = site.snapshots().difference(&before).cloned().collect();
    let snapshot = new.first().expect("the snapshot's directory is made first");
    let record = || std::fs::read_to_string(snapshot.join("snapshot.json")).unwrap_or_default();
    let blocked = match done {
        Done::Nothing => None,
        Done::Committed => Some(snapshot.join("image.new")),
        Done::ImageWritten => Some(snapshot.join("snapshot.new")),
        Done::SnapshotWritten | Done::Pinned => Some(site.instance(&vm.uid).join("preserved.new")),
        Done::Preserved => Some(site.instance(&other.uid).join("preserved.new")),
        Done::Journaled => None,
    };
    let slow = blocked.as_ref().map(|path| Slow::renaming(&hearth, path));
    if done == Done::Preserved {
        // It has the turn until it has written the mark.
        let mut artifacts = hearth.client.artifacts.clone();
        let delete =
            DeleteArtifactRequest { name: "artifacts/other".to_owned(), ..Default::default() };
        hearth.runtime.spawn(async move { artifacts.delete_artifact(delete).await });
        let get = GetArtifactRequest { name: "artifacts/other".to_owned() };
        wait_until("the deletion has the turn", || {
            hearth.call(hearth.client.artifacts.clone().get_artifact(get.clone())).is_err()
        });
    }
    let asked = proxy.asked("/images/");
    if done != Done::Nothing {
        proxy.go_on();
    }
    wait_until(&format!("{done:?}"), || match done {
        Done::Nothing => true,
        Done::Committed => proxy.asked("/images/") > asked,
        Done::ImageWritten => snapshot.join("image.json").exists(),
        Done::SnapshotWritten | Done::Pinned => record().contains("artifact:cut"),
        Done::Preserved => {
            std::fs::read_to_string(mark_of(site, vm)).is_ok_and(|mark| mark.contains("cut"))
        }
        Done::Journaled => {
            let wait = hearth.client.wait_operation(&operation, crate::docker_engine::LONG);
            hearth.runtime.block_on(wait).unwrap().done
        }
    });
    // With its strace, in this order: the call that is held is not made any more, and an end that strace
    // would have to see is not waited for.
    let pid = Pid::from_raw(i32::try_from(hearth.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    drop(slow);
    hearth.kill();
    proxy.lose();
    if done == Done::SnapshotWritten {
        // The record is written twice: without the pin first.
        let mut record: serde_json::Value = serde_json::from_str(&record()).unwrap();
        record["pins"] = serde_json::json!([]);
        std::fs::write(snapshot.join("snapshot.json"), record.to_string()).unwrap();
    }
}

fn mark_of(site: &Site<'_>, vm: &Vm) -> PathBuf {
    site.instance(&vm.uid).join("preserved.json")
}

/// A strace that holds hearth; dropped, it ends.
struct Slow(Child);

impl Slow {
    /// One by which `path` gets its other name after longer than any test takes.
    fn renaming(hearth: &Hearth, path: &Path) -> Self {
        let calls = "rename,renameat,renameat2";
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", &format!("trace={calls}"), "-e"]);
        strace.arg(format!("inject={calls}:delay_enter=600000000")).arg("-P").arg(path);
        strace.args(["-p", &hearth.pid().to_string()]).stdin(Stdio::null());
        let mut child = strace.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It has each thread before it says so.
        lines.find(|line| line.as_ref().unwrap().contains("attached")).unwrap().unwrap();
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The engine goes on with what nobody waits for any longer, and is done after the next start.
fn a_commit_that_outlives_hearth(engine: &EngineHost) {
    let proxy = Proxy::new(&engine.socket());
    let site = Site::with(engine, 0, &proxy.socket(), "");
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    let template = site.images();
    proxy.hold(At::Request);
    hearth.begin_freeze(&vm.name, "late").unwrap();
    proxy.wait_held();
    hearth.kill();
    let hearth = site.start();
    assert_eq!(site.images(), template);
    proxy.go_on();
    proxy.wait_answered();
    wait_until("its image is gone", || site.images() == template);
    assert!(hearth.artifacts().is_empty());
    assert_runs(&site, &hearth.get(&vm.name).unwrap());
    hearth.release(&vm);
    site.assert_nothing_left(&hearth);
}

/// The engine pauses a container while it commits it: that is not how the VM stands.
fn a_restart_during_a_commit(engine: &EngineHost) {
    let proxy = Proxy::new(&engine.socket());
    let site = Site::with(engine, 0, &proxy.socket(), "");
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.exec(&vm, "echo kept > /etc/note");
    proxy.hold(At::Request);
    hearth.begin_freeze(&vm.name, "cut").unwrap();
    proxy.wait_held();
    hearth.kill();
    pause(engine, &vm.uid);
    proxy.lose();
    let hearth = site.start();
    wait_until("it goes on", || {
        stands(engine, &name(&vm.uid)).is_some_and(|it| it.0 == Stands::RUNNING)
    });
    assert_runs(&site, &hearth.get(&vm.name).unwrap());
    assert_eq!(site.exec(&vm, "cat /etc/note"), "kept\n");
    hearth.release(&vm);
    site.assert_nothing_left(&hearth);
}

/// An engine that is killed while it commits leaves the container paused: it goes on when the engine
/// is back.
fn an_engine_lost_during_a_commit(engine: &EngineHost) {
    // On an engine of its own: the other cases need theirs.
    let engine = EngineHost::start(engine.kind).unwrap();
    let proxy = Proxy::new(&engine.socket());
    let site = Site::with(&engine, 0, &proxy.socket(), "");
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    proxy.hold(At::Request);
    let operation = hearth.begin_freeze(&vm.name, "cut").unwrap();
    proxy.wait_held();
    pause(&engine, &vm.uid);
    engine.end(Signal::KILL);
    proxy.lose();
    let ended = hearth.runtime.block_on(hearth.client.wait_operation(&operation, LONG)).unwrap();
    assert!(matches!(ended.result, Some(Ended::Error(_))), "{ended:?}");
    assert_eq!(hearth.get(&vm.name).unwrap().state(), State::Running);
    engine.go_on().unwrap();
    wait_until("it goes on", || {
        stands(&engine, &name(&vm.uid)).is_some_and(|it| it.0 == Stands::RUNNING)
    });
    assert_runs(&site, &hearth.get(&vm.name).unwrap());
    assert!(hearth.artifacts().is_empty());
    hearth.release(&vm);
    site.assert_nothing_left(&hearth);
}
