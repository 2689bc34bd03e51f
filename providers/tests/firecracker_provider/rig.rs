//! What every case needs: a provider on a Firecracker, ours or the real one, and looks at what
//! its guests count and at what is left.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::directory::Paths;
use hearth_providers::engine::OpenReport;
use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::firecracker::{
    FirecrackerBackend, FirecrackerConfig, FirecrackerProvider, JailerConfig,
};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::supervise::ProcessRecord;
use hearth_providers::{SnapshotId, VmId, VmProvider as _, VmQuery as _, VmSpec, VmStatus};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::firecracker_fake::{self, Installed, Settings};
use crate::firecracker_guest;

/// Much longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// On what the cases run.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    /// The real binary; without it our fake.
    pub(crate) firecracker: Option<PathBuf>,
    /// The real jailer.
    pub(crate) jailer: Option<PathBuf>,
    pub(crate) jailed: bool,
}

/// A provider on a state directory of its own.
pub(crate) struct Rig {
    // Dropped before its directory.
    provider: Option<Arc<FirecrackerProvider>>,
    pub(crate) host: Host,
    pub(crate) config: FirecrackerConfig,
    pub(crate) fake: Option<Installed>,
    pub(crate) state: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) dir: TempDir,
}

pub(crate) fn id(id: &str) -> VmId {
    VmId::parse(id).unwrap()
}

pub(crate) fn snapshot_id(id: &str) -> SnapshotId {
    SnapshotId::parse(id).unwrap()
}

/// A VM that goes on from `snapshot` of the VM `source`.
pub(crate) fn restored(source: &str, snapshot: &str, runs: bool) -> VmSpec {
    let restore_from = SnapshotRef {
        source: SnapshotSource::Name(id(source)),
        snapshot_id: snapshot_id(snapshot),
        resume_immediately: runs,
        network_overrides: Vec::new(),
    };
    VmSpec { restore_from: Some(restore_from), ..VmSpec::default() }
}

impl Rig {
    pub(crate) fn new(host: &Host) -> Self {
        Self::with(host, &Settings::default(), |_| ())
    }

    /// With a fake that behaves as `settings` say, and the provider configured by `configure`.
    pub(crate) fn with(
        host: &Host,
        settings: &Settings,
        configure: impl FnOnce(&mut FirecrackerConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::create_dir(at("net")).unwrap();
        // A jailed user has to get at what is lent to it by links, and at the fake's settings.
        for open in [dir.path().to_owned(), at("bin")] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let fake =
            host.firecracker.is_none().then(|| firecracker_fake::install(&at("bin"), settings));
        let (kernel, rootfs) = (at("kernel"), at("rootfs"));
        match &fake {
            Some(_) => fs::write(&kernel, b"\x7fELF, as far as the fake looks").unwrap(),
            None => drop(fs::copy(firecracker_guest::build(dir.path()).unwrap(), &kernel).unwrap()),
        }
        fs::set_permissions(&kernel, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&rootfs, vec![0; 1 << 20]).unwrap();
        let of_fake = |of: fn(&Installed) -> &PathBuf| fake.as_ref().map(|it| of(it).clone());
        let binary = host.firecracker.clone().or_else(|| of_fake(|it| &it.firecracker)).unwrap();
        let jailer = host.jailer.clone().or_else(|| of_fake(|it| &it.jailer));
        let jailer = jailer.filter(|_| host.jailed);
        let mut config = FirecrackerConfig {
            binary,
            jailer: jailer.map(|binary| JailerConfig { binary, ..JailerConfig::new() }),
            agent_port: settings.agent_port,
            network_devices: at("net"),
            ..FirecrackerConfig::default()
        };
        configure(&mut config);
        let (state, host) = (at("state"), host.clone());
        let mut rig = Self { provider: None, host, config, fake, state, kernel, rootfs, dir };
        rig.open();
        rig
    }

    pub(crate) fn provider(&self) -> &Arc<FirecrackerProvider> {
        self.provider.as_ref().unwrap()
    }

    /// As if hearth ended and was started again.
    pub(crate) fn restart(&mut self) -> OpenReport {
        self.stop();
        self.open()
    }

    /// As if hearth ended.
    pub(crate) fn stop(&mut self) {
        let last = self.provider.take().map(Arc::try_unwrap);
        assert!(last.is_some_and(|last| last.is_ok()), "nobody else holds the provider");
    }

    /// As if hearth was started again after [`Self::stop`].
    pub(crate) fn provider_again(&mut self) -> OpenReport {
        self.open()
    }

    fn open(&mut self) -> OpenReport {
        let env = Arc::new(SystemEnv);
        let backend = FirecrackerBackend::new(self.config.clone(), Arc::clone(&env) as _).unwrap();
        let paths = Paths { state: self.state.clone(), runtime: self.state.clone() };
        let (provider, report) =
            FirecrackerProvider::open("firecracker", backend, env, paths).unwrap();
        self.provider = Some(Arc::new(provider));
        report
    }

    pub(crate) fn cold_spec(&self) -> VmSpec {
        let (kernel, rootfs) = (Some(self.kernel.clone()), Some(self.rootfs.clone()));
        VmSpec { kernel, rootfs, ..VmSpec::default() }
    }

    /// Boots a VM of `spec` and waits until its guest counts.
    pub(crate) fn boot(&self, name: &str, spec: &VmSpec) {
        self.provider().create_vm_with_spec(&id(name), spec).unwrap();
        self.provider().start_vm(&id(name)).unwrap();
        let ready = Readiness::ConsoleMarker("count 3\n".to_owned());
        wait_ready(&**self.provider(), &id(name), &ready, LONG).unwrap();
        self.check_kvm(name);
    }

    /// Boots a VM and stops it, and captures it as `ready`. Answers what it counted last.
    pub(crate) fn template(&self, name: &str) -> u64 {
        self.boot(name, &self.cold_spec());
        self.provider().stop_vm(&id(name)).unwrap();
        let count = self.last_count(name);
        self.provider().snapshot_vm(&id(name), &snapshot_id("ready")).unwrap();
        count
    }

    pub(crate) fn clone_as(&self, name: &str, source: &str, snapshot: &str) {
        let spec = restored(source, snapshot, true);
        self.provider().create_vm_with_spec(&id(name), &spec).unwrap();
        self.check_kvm(name);
    }

    /// A real VM runs by `/dev/kvm`, or it is none.
    fn check_kvm(&self, name: &str) {
        if self.host.firecracker.is_none() {
            return;
        }
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid(name))).unwrap();
        let device = fs::metadata("/dev/kvm").unwrap().rdev();
        let is_kvm = |fd: fs::DirEntry| fs::metadata(fd.path()).is_ok_and(|it| it.rdev() == device);
        assert!(open.flatten().any(is_kvm), "{name} does not hold /dev/kvm open");
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.provider().get_vm(&id(name)).unwrap().process.expect("it has a process").pid
    }

    /// Bytes of its mapped memory that the kernel counts as `field`.
    pub(crate) fn memory(&self, name: &str, field: &str) -> u64 {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.pid(name))).unwrap();
        let (mut is_memory, mut kib) = (false, 0);
        for line in smaps.lines() {
            match line.split_once(':').filter(|(name, _)| !name.contains(' ')) {
                Some((found, count)) if found == field && is_memory => {
                    kib += count.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                }
                Some(_) => {}
                None => is_memory = line.trim_end_matches(" (deleted)").ends_with("memory"),
            }
        }
        kib << 10
    }

    pub(crate) fn status(&self, name: &str) -> Option<VmStatus> {
        self.provider().status(&id(name))
    }

    pub(crate) fn instance_dir(&self, name: &str) -> PathBuf {
        let uid = self.provider().get_vm(&id(name)).unwrap().uid;
        self.state.join("instances").join(uid.to_string())
    }

    /// The directory of the only snapshot that there is of this name.
    pub(crate) fn snapshot_dir(&self, name: &str) -> PathBuf {
        let all = self.provider().all_snapshots();
        let uid = all.iter().find(|it| it.snapshot_id.as_str() == name).unwrap().uid;
        self.state.join("snapshots").join(uid.to_string())
    }

    pub(crate) fn console(&self, name: &str) -> String {
        let chunk = self.provider().console(&id(name), 0, 1 << 20).unwrap();
        String::from_utf8_lossy(&chunk.bytes).into_owned()
    }

    /// What the guest has counted: whole lines of its console.
    pub(crate) fn counts(&self, name: &str) -> Vec<u64> {
        let console = self.console(name);
        let (whole, _) = console.rsplit_once('\n').unwrap_or_default();
        whole.lines().filter_map(|line| line.trim().strip_prefix("count ")?.parse().ok()).collect()
    }

    pub(crate) fn last_count(&self, name: &str) -> u64 {
        self.counts(name).last().copied().unwrap_or(0)
    }

    /// Waits until the guest's counter, which grows by itself, is past `count`.
    pub(crate) fn counts_past(&self, name: &str, count: u64) {
        wait_until("the guest counts on", || self.last_count(name) > count);
    }

    /// Nothing is left of instances but those of `count` VMs that live.
    pub(crate) fn assert_instances(&self, count: usize) {
        let instances = fs::read_dir(self.state.join("instances")).unwrap().count();
        let names = fs::read_dir(self.state.join("names")).unwrap().count();
        assert_eq!((instances, names), (count, count), "instances and names");
        assert_eq!(self.processes().len(), count, "processes");
    }

    /// The record of one of an instance's processes: its number, its cgroup.
    pub(crate) fn record(&self, name: &str, record: &str) -> ProcessRecord {
        let text = fs::read(self.instance_dir(name).join(record)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Processes that work in an instance's directory or jail.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut homes = Vec::new();
        let mut left = vec![self.state.join("instances")];
        while let Some(dir) = left.pop() {
            let Ok(metadata) = fs::metadata(&dir) else { continue };
            homes.push((metadata.dev(), metadata.ino()));
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            left.extend(
                entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
            );
        }
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let works_there = |pid: &u32| {
            let cwd = fs::metadata(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|it| homes.contains(&(it.dev(), it.ino())))
        };
        pids.filter(works_there).collect()
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

/// `kill -9` of a process that a case's own provider started.
pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = SystemEnv.boot_time() + LONG;
    while !condition() {
        assert!(SystemEnv.boot_time() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Changes a file of a snapshot, which a provider would have written once.
pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}
