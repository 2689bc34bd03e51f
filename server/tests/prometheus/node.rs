//! A real hearth of a case's own, which can be stopped, killed and started again at the same ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::tools::{free_port, get, wait_for};

/// A hearth with a durable memory provider; dropped, it is killed.
pub(crate) struct Node {
    child: Child,
    grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: TempDir,
}

impl Node {
    /// Starts one and waits until it serves. `config` is TOML that goes before the providers' tables.
    pub(crate) fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [grpc, admin] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let path = |name: &str| directory.path().join(name).display().to_string();
        let text = format!(
            "listen = \"{grpc}\"\nadmin = \"{admin}\"\nstate = \"{}\"\nruntime = \"{}\"\n\
             {config}\n[providers.memory]\nkind = \"memory\"\ndurable = true\n",
            path("state"),
            path("run"),
        );
        std::fs::write(directory.path().join("hearth.toml"), text).unwrap();
        let child = spawn(directory.path());
        let mut node = Self { child, grpc, admin, directory };
        node.wait_until_ready();
        node
    }

    fn wait_until_ready(&mut self) {
        wait_for("hearth is ready", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "hearth has ended: {ended:?}: {}", self.log());
            get(self.admin, "/readyz")
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Kills it as a crash does, and starts it anew after `meanwhile`.
    pub(crate) fn crash(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile(&self.state());
        self.child = spawn(self.directory.path());
        self.wait_until_ready();
    }

    /// Where gRPC is.
    pub(crate) fn address(&self) -> String {
        self.grpc.to_string()
    }

    /// Its state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Runs a command of the CLI at it; answers whether it succeeded.
    pub(crate) fn cli(&self, arguments: &[&str]) -> bool {
        let mut command = hearth();
        command.args(arguments).env("HEARTH_ADDRESS", self.address()).stdin(Stdio::null());
        command.output().unwrap().status.success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"));
    hearth()
        .args(["serve", "--config", "hearth.toml"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}

/// The program, without what the environment of the test run says to it.
fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}
