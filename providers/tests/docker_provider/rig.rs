//! What every case needs: a provider of its own, and looks at the engine beside it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
};
use futures_util::StreamExt as _;
use hearth_providers::directory::Paths;
use hearth_providers::docker::{self, DockerConfig, DockerProvider};
use hearth_providers::engine::OpenReport;
use hearth_providers::env::{Deadline, SystemEnv};
use hearth_providers::model::SnapshotSource;
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{
    SnapshotId, SnapshotRef, Uid, VmId, VmProvider as _, VmQuery as _, VmSpec, VmStatus,
};
use tempfile::TempDir;

use crate::docker_engine::{BASE, EngineHost, LONG};

/// What a case is called, and what it does on an engine.
pub(crate) type Case = (&'static str, fn(&EngineHost));

pub(crate) fn id(id: &str) -> VmId {
    VmId::parse(id).unwrap()
}

pub(crate) fn snapshot_id(id: &str) -> SnapshotId {
    SnapshotId::parse(id).unwrap()
}

pub(crate) fn spec() -> VmSpec {
    VmSpec { image: Some(BASE.to_owned()), ..VmSpec::default() }
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

/// A provider on an engine, with a state of its own.
pub(crate) struct Rig<'a> {
    pub(crate) host: &'a EngineHost,
    // Dropped before its directory.
    pub(crate) provider: Option<DockerProvider>,
    pub(crate) config: DockerConfig,
    dir: TempDir,
}

static STATES: AtomicU32 = AtomicU32::new(0);

impl<'a> Rig<'a> {
    pub(crate) fn new(host: &'a EngineHost) -> Self {
        let number = STATES.fetch_add(1, Ordering::Relaxed);
        let command = ["sh", "-c", "echo READY; exec sleep 1000000"].map(str::to_owned).to_vec();
        let config = DockerConfig {
            socket: host.socket(),
            command,
            ..DockerConfig::new(format!("state-{number}"))
        };
        Self::with(host, config)
    }

    pub(crate) fn with(host: &'a EngineHost, config: DockerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Self { host, provider: None, config, dir };
        rig.open();
        rig
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths { state: self.dir.path().join("state"), runtime: self.dir.path().join("run") }
    }

    fn open(&mut self) -> OpenReport {
        let opened = docker::open("docker", self.config.clone(), Arc::new(SystemEnv), self.paths());
        let (provider, report) = opened.unwrap();
        self.provider = Some(provider);
        report
    }

    pub(crate) fn provider(&self) -> &DockerProvider {
        self.provider.as_ref().unwrap()
    }

    pub(crate) fn close(&mut self) {
        self.provider = None;
    }

    /// As if hearth ended and was started again.
    pub(crate) fn restart(&mut self) -> OpenReport {
        self.close();
        self.open()
    }

    /// A VM that runs and is ready.
    pub(crate) fn run(&self, name: &str) -> Uid {
        self.provider().create_vm_with_spec(&id(name), &spec()).unwrap();
        self.provider().start_vm(&id(name)).unwrap();
        let ready = Readiness::ConsoleMarker("READY".to_owned());
        wait_ready(self.provider(), &id(name), &ready, LONG).unwrap();
        self.uid(name)
    }

    pub(crate) fn uid(&self, name: &str) -> Uid {
        self.provider().get_vm(&id(name)).unwrap().uid
    }

    pub(crate) fn status(&self, name: &str) -> Option<VmStatus> {
        self.provider().status(&id(name))
    }

    pub(crate) fn destroy_all(&self) {
        for vm in self.provider().list_vms() {
            self.provider().destroy_vm(&vm.vm_id).unwrap();
        }
    }

    pub(crate) fn instance_dir(&self, uid: Uid) -> PathBuf {
        self.paths().instance(uid)
    }

    /// What the engine says of a VM's container.
    pub(crate) fn inspect(&self, uid: Uid) -> Option<ContainerInspectResponse> {
        inspect(self.host, &format!("hearth-{uid}"))
    }

    /// Runs a command in a VM's container and answers what it wrote.
    pub(crate) fn exec(&self, uid: Uid, command: &str) -> String {
        let (name, command) = (format!("hearth-{uid}"), command.to_owned());
        self.host
            .ask(|client| async move {
                let options = CreateExecOptions {
                    attach_stdout: Some(true),
                    attach_stderr: Some(true),
                    cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), command]),
                    ..CreateExecOptions::default()
                };
                let exec = client.create_exec(&name, options).await?.id;
                let started = client.start_exec(&exec, None::<StartExecOptions>).await?;
                // Its input is kept open: some engines end a command whose input ends.
                let StartExecResults::Attached { mut output, input: _input } = started else {
                    panic!("it is not attached")
                };
                let mut said = String::new();
                while let Some(piece) = output.next().await {
                    said += &piece?.to_string();
                }
                Ok(said)
            })
            .unwrap()
    }

    /// How many containers and images carry this state's uuid.
    pub(crate) fn on_engine(&self) -> (usize, usize) {
        let containers = labelled("dev.hearth.state", &self.config.state);
        let images = labelled("dev.hearth.snapshot.state", &self.config.state);
        self.host
            .ask(|client| async move {
                let containers =
                    ListContainersOptionsBuilder::new().all(true).filters(&containers).build();
                let containers = client.list_containers(Some(containers)).await?.len();
                let images = ListImagesOptionsBuilder::new().filters(&images).build();
                Ok((containers, client.list_images(Some(images)).await?.len()))
            })
            .unwrap()
    }

    /// Nothing is left: what is swept is waited for.
    pub(crate) fn assert_nothing_left(&self) {
        wait_until("nothing is left on the engine", || self.on_engine() == (0, 0));
        for dir in ["state/instances", "state/snapshots", "run/names"] {
            let left = std::fs::read_dir(self.dir.path().join(dir)).unwrap().count();
            assert_eq!(left, 0, "left in {dir}");
        }
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        // A case that failed leaves VMs; the next ones are not to suffer from them.
        let Some(provider) = &self.provider else { return };
        for vm in provider.list_vms() {
            let _ = provider.destroy_vm(&vm.vm_id);
        }
    }
}

fn labelled(key: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{key}={value}")])])
}

pub(crate) fn inspect(host: &EngineHost, container: &str) -> Option<ContainerInspectResponse> {
    let container = container.to_owned();
    host.ask(|client| async move {
        client.inspect_container(&container, None::<InspectContainerOptions>).await
    })
    .ok()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(LONG);
    while !condition() {
        assert!(deadline.left().is_some(), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
