//! What the conformance suite cannot reach: time, restarts, and what lies on disk.

mod kept_snapshots;
mod quarantine;
mod restarts;
mod tombs;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::directory::Paths;
use crate::env::SeededEnv;
use crate::id::SnapshotId;
use crate::memory::{MemoryBackend, MemoryProvider};
use crate::model::{SnapshotRef, SnapshotSource, VmSpec};
use crate::provider::{VmProvider as _, VmQuery as _};

fn id(text: &str) -> VmId {
    VmId::parse(text).unwrap()
}

fn snapshot_id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).unwrap()
}

fn reference(vm_uid: Uid, snapshot: &str) -> SnapshotRef {
    SnapshotRef {
        source: SnapshotSource::VmUid(vm_uid),
        snapshot_id: snapshot_id(snapshot),
        resume_immediately: true,
        network_overrides: Vec::new(),
    }
}

fn seeded() -> Arc<SeededEnv> {
    Arc::new(SeededEnv::new(1))
}

fn paths(dir: &Path) -> Paths {
    Paths { state: dir.join("state"), runtime: dir.join("run") }
}

/// The provider `name` in `dir`, as a new process would open it.
fn open(name: &str, dir: &Path) -> (MemoryProvider, OpenReport) {
    let env: Arc<dyn Env> = Arc::new(crate::env::SystemEnv);
    Engine::open(name, MemoryBackend::new(Arc::clone(&env)), env, paths(dir)).unwrap()
}

fn uid_of(provider: &MemoryProvider, vm_id: &str) -> Uid {
    provider.get_vm(&id(vm_id)).unwrap().uid
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_create_that_the_disk_refuses_leaves_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, _) = open("memory", dir.path());
    let instances = dir.path().join("state/instances");
    std::fs::remove_dir(&instances).unwrap();
    std::fs::write(&instances, "not a directory").unwrap();
    assert_eq!(provider.create_vm(&id("vm")).unwrap_err().kind(), "backend");
    assert_eq!(provider.get_vm(&id("vm")), None);
    assert_eq!(entries(&dir.path().join("run/names")), 0);
    std::fs::remove_file(&instances).unwrap();
    std::fs::create_dir(&instances).unwrap();
    provider.create_vm(&id("vm")).unwrap();
}

#[cfg(feature = "conformance")]
#[test]
fn a_death_during_a_verb_is_not_written_over() {
    use crate::conformance::{Gate, Held, Holder as _};
    let env: Arc<dyn Env> = seeded();
    let (gate, inner) = (Gate::default(), MemoryBackend::new(Arc::clone(&env)));
    let provider = Engine::in_memory("memory", Held::new(inner, gate.clone()), env);
    provider.create_vm(&id("vm")).unwrap();
    provider.start_vm(&id("vm")).unwrap();
    let vm = provider.get_vm(&id("vm")).unwrap();
    let hold = gate.hold(&vm, Duration::from_secs(60));
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| provider.stop_vm(&id("vm")));
        assert!(hold.wait_for_a_call());
        let failure = Failure {
            reason: "it died".to_owned(),
            time: std::time::SystemTime::UNIX_EPOCH,
            exit_status: None,
            console_tail: String::new(),
        };
        (provider.place(vm.uid).ended)(failure);
        assert!(hold.release());
        stopped.join().unwrap().unwrap();
    });
    assert_eq!(provider.status(&id("vm")), Some(VmStatus::Failed));
}

#[test]
fn a_death_is_reported_once_and_not_after_a_destroy() {
    let provider = MemoryBackend::provider("memory", seeded());
    let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    provider.observe_exits(Arc::new(move |uid| hears.lock().push(uid)));
    for vm in ["dies", "ends"] {
        provider.create_vm(&id(vm)).unwrap();
        provider.start_vm(&id(vm)).unwrap();
    }
    let dies = uid_of(&provider, "dies");
    let ends = Arc::clone(provider.instances.get(&uid_of(&provider, "ends")).unwrap().value());
    let instance = Arc::clone(provider.instances.get(&dies).unwrap().value());
    instance.machine().fail("it died");
    instance.machine().fail("it died again");
    provider.destroy_vm(&id("ends")).unwrap();
    ends.machine().fail("killed");
    assert_eq!(*heard.lock(), [dies]);
    assert_eq!(provider.get_vm(&id("dies")).unwrap().failure.unwrap().reason, "it died");
}
