//! What every case needs: the template, a provider that has it, and looks at what is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hearth_providers::agent::{Agent, Pong};
use hearth_providers::directory::Paths;
use hearth_providers::engine::OpenReport;
use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::model::SnapshotSource;
use hearth_providers::qemu::{QemuBackend, QemuConfig, QemuProvider};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{
    SnapshotId, SnapshotRef, Uid, VmId, VmProvider as _, VmQuery as _, VmSpec, VmStatus,
};
use tempfile::TempDir;

/// Much longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn guest(file: &str) -> PathBuf {
    let dir = std::env::var_os("HEARTH_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest"),
        PathBuf::from,
    );
    dir.join(file)
}

/// Why the cases cannot run.
pub(crate) fn missing() -> Option<String> {
    for file in ["vmlinuz", "initrd.cpio.gz", "rootfs.ext4"] {
        if !guest(file).is_file() {
            return Some(format!("there is no {}", guest(file).display()));
        }
    }
    let backend = QemuBackend::new(QemuConfig::default(), Arc::new(SystemEnv));
    backend.err().map(|error| error.to_string())
}

pub(crate) fn id(id: &str) -> VmId {
    VmId::parse(id).unwrap()
}

pub(crate) fn snapshot_id(id: &str) -> SnapshotId {
    SnapshotId::parse(id).unwrap()
}

pub(crate) fn cold_spec() -> VmSpec {
    VmSpec {
        kernel: Some(guest("vmlinuz")),
        initrd: Some(guest("initrd.cpio.gz")),
        rootfs: Some(guest("rootfs.ext4")),
        mem_size_mib: 256,
        ..VmSpec::default()
    }
}

/// A VM that goes on from `snapshot` of the VM `source`.
pub(crate) fn restored(source: SnapshotSource, snapshot: &str, runs: bool) -> VmSpec {
    let restore_from = SnapshotRef {
        source,
        snapshot_id: snapshot_id(snapshot),
        resume_immediately: runs,
        network_overrides: Vec::new(),
    };
    VmSpec { restore_from: Some(restore_from), ..VmSpec::default() }
}

/// The captured template: a directory to be linked into the state of others.
struct Template {
    dir: TempDir,
    vm_uid: Uid,
    pong: Pong,
}

static TEMPLATE: OnceLock<Template> = OnceLock::new();

fn template() -> &'static Template {
    TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (provider, _) = open(dir.path(), QemuConfig::default());
        provider.create_vm_with_spec(&id("template"), &cold_spec()).unwrap();
        assert_eq!(provider.status(&id("template")), Some(VmStatus::Created));
        provider.start_vm(&id("template")).unwrap();
        let marker = Readiness::ConsoleMarker("READY".to_owned());
        wait_ready(&provider, &id("template"), &marker, LONG).unwrap();
        wait_ready(&provider, &id("template"), &Readiness::AgentAnswers, LONG).unwrap();
        assert_eq!(ask(&provider, "template", "write note template"), "ok bytes=8");
        let pong = ping(&provider, "template");
        provider.snapshot_vm(&id("template"), &snapshot_id("ready")).unwrap();
        assert!(ping(&provider, "template").counter >= pong.counter, "it goes on");
        let vm_uid = provider.get_vm(&id("template")).unwrap().uid;
        let wanted = restored(SnapshotSource::VmUid(vm_uid), "ready", true).restore_from.unwrap();
        provider.pin_snapshot(&wanted, "tests").unwrap();
        provider.destroy_vm(&id("template")).unwrap();
        assert_eq!(provider.all_snapshots().len(), 1, "the pin keeps it");
        Template { dir, vm_uid, pong }
    })
}

/// What the template said just before it was captured.
pub(crate) fn template_pong() -> Pong {
    template().pong.clone()
}

/// Statics are not dropped: the template's files would stay.
pub(crate) fn tear_down() {
    if let Some(template) = TEMPLATE.get() {
        let _ = fs::remove_dir_all(template.dir.path());
    }
}

pub(crate) fn open(state: &Path, config: QemuConfig) -> (QemuProvider, OpenReport) {
    let env = Arc::new(SystemEnv);
    let backend = QemuBackend::new(config, Arc::clone(&env) as _).unwrap();
    let paths = Paths { state: state.to_owned(), runtime: state.to_owned() };
    QemuProvider::open("qemu", backend, env, paths).unwrap()
}

/// A provider with the template's snapshot, on a state directory of its own.
pub(crate) struct Rig {
    // Dropped before its directory.
    pub(crate) provider: Option<Arc<QemuProvider>>,
    pub(crate) state: PathBuf,
    config: QemuConfig,
    _dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::below("state")
    }

    /// Whose QEMUs are run so.
    pub(crate) fn with(config: QemuConfig) -> Self {
        Self::made("state", config)
    }

    /// With its state directory at `path` below a temporary one.
    pub(crate) fn below(path: &str) -> Self {
        Self::made(path, QemuConfig::default())
    }

    fn made(path: &str, config: QemuConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join(path);
        let from = template().dir.path().join("snapshots");
        for snapshot in fs::read_dir(&from).unwrap() {
            let snapshot = snapshot.unwrap();
            let to = state.join("snapshots").join(snapshot.file_name());
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(snapshot.path()).unwrap() {
                let file = file.unwrap();
                fs::hard_link(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        let (provider, _) = open(&state, config.clone());
        Self { provider: Some(Arc::new(provider)), state, config, _dir: dir }
    }

    pub(crate) fn provider(&self) -> &QemuProvider {
        self.provider.as_ref().unwrap()
    }

    /// As if hearth ended and was started again.
    pub(crate) fn restart(&mut self) -> OpenReport {
        let last = self.provider.take().map(Arc::try_unwrap);
        assert!(last.is_some_and(|last| last.is_ok()), "nobody else holds the provider");
        let (provider, report) = open(&self.state, self.config.clone());
        self.provider = Some(Arc::new(provider));
        report
    }

    /// The same, with another configuration from now on.
    pub(crate) fn restart_with(&mut self, config: QemuConfig) -> OpenReport {
        self.config = config;
        self.restart()
    }

    /// A VM that goes on from the template.
    pub(crate) fn template(&self, runs: bool) -> VmSpec {
        restored(SnapshotSource::VmUid(template().vm_uid), "ready", runs)
    }

    /// Makes a running clone of the template.
    pub(crate) fn clone_as(&self, name: &str) {
        self.provider().create_vm_with_spec(&id(name), &self.template(true)).unwrap();
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.provider().get_vm(&id(name)).unwrap().process.expect("it has a process").pid
    }

    pub(crate) fn instance_dir(&self, name: &str) -> PathBuf {
        let uid = self.provider().get_vm(&id(name)).unwrap().uid;
        self.state.join("instances").join(uid.to_string())
    }

    /// Nothing is left of instances but the names of VMs that live.
    pub(crate) fn assert_instances(&self, count: usize) {
        let instances = fs::read_dir(self.state.join("instances")).unwrap().count();
        let names = fs::read_dir(self.state.join("names")).unwrap().count();
        assert_eq!((instances, names), (count, count), "instances and names");
        assert_eq!(processes_below(&self.state).len(), count, "processes");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A case that failed leaves VMs; the next ones are not to suffer from them.
        let Some(provider) = &self.provider else { return };
        for vm in provider.list_vms() {
            let _ = provider.destroy_vm(&vm.vm_id);
        }
    }
}

pub(crate) fn processes_below(dir: &Path) -> Vec<u32> {
    let dir = dir.canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir))
    })
    .collect()
}

pub(crate) fn agent(provider: &QemuProvider, name: &str) -> Agent {
    let channel = provider.guest_channel(&id(name)).unwrap();
    Agent::greet(channel, SystemEnv.uid(), LONG).unwrap()
}

pub(crate) fn ask(provider: &QemuProvider, name: &str, request: &str) -> String {
    agent(provider, name).ask(request, LONG).unwrap()
}

pub(crate) fn ping(provider: &QemuProvider, name: &str) -> Pong {
    agent(provider, name).ping(LONG).unwrap()
}

/// Waits until the guest's counter, which grows by itself, is past `counter`.
pub(crate) fn counts_past(provider: &QemuProvider, name: &str, counter: u64) {
    let mut agent = agent(provider, name);
    wait_until("the guest counts on", || agent.ping(LONG).unwrap().counter > counter);
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = SystemEnv.boot_time() + LONG;
    while !condition() {
        assert!(SystemEnv.boot_time() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
