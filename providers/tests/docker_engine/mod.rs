//! A real container engine of the tests' own, started by `scripts/container-engine` on a
//! directory that goes with it. It ends only what it started.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use hearth_providers::env::Deadline;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The image that containers are made from: a shell and a few commands.
pub(crate) const BASE: &str = "hearth-test-base";
/// Much longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An engine that runs.
pub(crate) struct EngineHost {
    pub(crate) kind: &'static str,
    process: Mutex<Option<Child>>,
    runtime: tokio::runtime::Runtime,
    // Last, so that nothing uses it any longer when it is removed.
    dir: TempDir,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/container-engine")
}

/// Why there can be no engine of this kind here.
pub(crate) fn missing(kind: &str) -> Option<String> {
    let checked = Command::new(script()).args(["--check", kind]).output();
    match checked {
        Ok(output) if output.status.success() => busybox().err(),
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("scripts/container-engine: {error}")),
    }
}

fn busybox() -> Result<PathBuf, String> {
    let known = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = known.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| "there is no busybox to make an image of (Debian: busybox-static)".into())
}

impl EngineHost {
    /// Starts an engine of `kind` with the base image in it.
    pub(crate) fn start(kind: &'static str) -> Result<Self, String> {
        if let Some(missing) = missing(kind) {
            return Err(missing);
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        Self::start_in(kind, dir)
    }

    /// As [`Self::start`], on a directory of the caller's.
    pub(crate) fn start_in(kind: &'static str, dir: TempDir) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let host = Self { kind, process: Mutex::default(), runtime, dir };
        host.go_on()?;
        host.import_base()?;
        Ok(host)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the engine, or starts it again.
    pub(crate) fn go_on(&self) -> Result<(), String> {
        let log = self.dir.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log);
        let log = log.map_err(|error| error.to_string())?;
        let child = Command::new(script())
            .arg(self.kind)
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        *self.process.lock() = Some(child);
        let deadline = Deadline::after(LONG);
        while !self.answers() {
            let ended = self
                .process
                .lock()
                .as_mut()
                .is_none_or(|it| it.try_wait().is_ok_and(|it| it.is_some()));
            if ended || deadline.left().is_none() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                return Err(format!("{} did not come up: {log}", self.kind));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        let socket = self.socket().to_string_lossy().into_owned();
        let Ok(client) = Docker::connect_with_unix(&socket, 10, bollard::API_DEFAULT_VERSION)
        else {
            return false;
        };
        self.runtime.block_on(async move { client.ping().await.is_ok() })
    }

    /// Ends the engine's process by `signal`; containers may live on.
    pub(crate) fn end(&self, signal: Signal) {
        let Some(mut child) = self.process.lock().take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
        let deadline = Deadline::after(LONG);
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if deadline.left().is_none() {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the engine something, as an operator beside hearth would.
    pub(crate) fn ask<T, F: Future<Output = Result<T, bollard::errors::Error>>>(
        &self,
        ask: impl FnOnce(Docker) -> F,
    ) -> Result<T, bollard::errors::Error> {
        let socket = self.socket().to_string_lossy().into_owned();
        self.runtime.block_on(async move {
            let client = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION)?;
            ask(client.negotiate_version().await?).await
        })
    }

    /// podman's monitors of commands stay for minutes; those that have our directory among their
    /// arguments are ours.
    fn end_monitors(&self) {
        let ours = self.dir.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let is_monitor = line.split('\0').next().is_some_and(|it| it.ends_with("conmon"));
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && is_monitor
                && line.contains(&ours)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn import_base(&self) -> Result<(), String> {
        let tree = self.dir.path().join("base");
        let failed = |error: std::io::Error| format!("make an image: {error}");
        for dir in ["bin", "tmp", "etc"] {
            std::fs::create_dir_all(tree.join(dir)).map_err(failed)?;
        }
        std::fs::copy(busybox()?, tree.join("bin/busybox")).map_err(failed)?;
        for command in ["sh", "echo", "sleep", "cat", "yes", "head", "dd"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(command))
                .map_err(failed)?;
        }
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output();
        let tar = tar.map_err(failed)?.stdout;
        let imported = self.ask(|client| async move {
            let options = CreateImageOptionsBuilder::new().from_src("-").repo(BASE).build();
            let body = bollard::body_full(tar.into());
            let mut steps = std::pin::pin!(client.create_image(Some(options), Some(body), None));
            while let Some(step) = steps.next().await {
                step?;
            }
            Ok(())
        });
        imported.map_err(|error| format!("import an image: {error}"))
    }
}

impl Drop for EngineHost {
    fn drop(&mut self) {
        // A case that failed leaves some, which would outlive their engine.
        let _ = self.ask(|client| async move {
            let all = ListContainersOptionsBuilder::new().all(true).build();
            for found in client.list_containers(Some(all)).await? {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                let _ = client.remove_container(&found.id.unwrap_or_default(), Some(options)).await;
            }
            Ok(())
        });
        self.end(Signal::TERM);
        self.end_monitors();
        // What it mounted for itself would keep its directory; the last one is on top.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        for point in
            points.iter().rev().filter(|point| Path::new(point).starts_with(self.dir.path()))
        {
            let _ = Command::new("umount").arg(point).status();
        }
    }
}
