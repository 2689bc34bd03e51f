//! What every case needs: a provider on a fake of its own, and looks at the fake beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::cli::CliConfig;
use hearth_providers::directory::Paths;
use hearth_providers::engine::OpenReport;
use hearth_providers::env::{Deadline, SystemEnv};
use hearth_providers::model::SnapshotSource;
use hearth_providers::smolvm::{self, SmolvmProvider};
use hearth_providers::{
    SnapshotId, SnapshotRef, Uid, VmId, VmProvider as _, VmQuery as _, VmSpec, VmStatus,
};
use tempfile::TempDir;

use crate::cli_fake::{self, Machine, Settings, Store};

/// What a case is called, and what it does.
pub(crate) type Case = (&'static str, fn());

pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const STATE: &str = "this-state";

pub(crate) fn id(text: &str) -> VmId {
    VmId::parse(text).unwrap()
}

pub(crate) fn snapshot_id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).unwrap()
}

pub(crate) fn spec(image: &str) -> VmSpec {
    VmSpec { image: Some(image.to_owned()), mem_size_mib: 256, vcpu_count: 2, ..VmSpec::default() }
}

pub(crate) fn settings() -> Settings {
    Settings { version: "1.32.2".to_owned(), ..Settings::default() }
}

/// A VM that is made from the snapshot `snap` of the VM `source`.
pub(crate) fn restored(source: Uid, runs: bool) -> VmSpec {
    let restore_from = SnapshotRef {
        source: SnapshotSource::VmUid(source),
        snapshot_id: snapshot_id("snap"),
        resume_immediately: runs,
        network_overrides: Vec::new(),
    };
    VmSpec { restore_from: Some(restore_from), ..VmSpec::default() }
}

/// A provider on a fake.
pub(crate) struct Rig {
    // Dropped before its directory.
    provider: Option<SmolvmProvider>,
    pub(crate) fake: Store,
    pub(crate) config: CliConfig,
    dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With the configuration that `change` makes of the common one.
    pub(crate) fn with(change: impl FnOnce(&mut CliConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (program, fake) = cli_fake::install(dir.path(), &settings());
        let mut config = CliConfig::new(program, STATE);
        config.watch_period = Duration::from_millis(20);
        change(&mut config);
        let mut rig = Self { provider: None, fake, config, dir };
        rig.open();
        rig
    }

    pub(crate) fn paths(&self) -> Paths {
        paths(self.dir.path())
    }

    pub(crate) fn open(&mut self) -> OpenReport {
        let opened = smolvm::open("smolvm", self.config.clone(), Arc::new(SystemEnv), self.paths());
        let (provider, report) = opened.unwrap();
        self.provider = Some(provider);
        report
    }

    pub(crate) fn close(&mut self) {
        self.provider = None;
    }

    pub(crate) fn provider(&self) -> &SmolvmProvider {
        self.provider.as_ref().unwrap()
    }

    pub(crate) fn create(&self, name: &str) -> Uid {
        self.provider().create_vm_with_spec(&id(name), &spec("base")).unwrap();
        self.provider().get_vm(&id(name)).unwrap().uid
    }

    pub(crate) fn run(&self, name: &str) -> Uid {
        let uid = self.create(name);
        self.provider().start_vm(&id(name)).unwrap();
        uid
    }

    pub(crate) fn status(&self, name: &str) -> Option<VmStatus> {
        self.provider().status(&id(name))
    }

    /// The tool's side of a VM.
    pub(crate) fn machine(&self, uid: Uid) -> Option<Machine> {
        self.fake.machine(&format!("hearth-{uid}"))
    }

    pub(crate) fn change(&self, uid: Uid, change: impl FnOnce(&mut Machine)) {
        self.fake.change(&format!("hearth-{uid}"), change);
    }
}

pub(crate) fn paths(dir: &Path) -> Paths {
    Paths { state: dir.join("state"), runtime: dir.join("run") }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(LONG);
    while !condition() {
        assert!(deadline.left().is_some(), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
