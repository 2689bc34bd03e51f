//! A hearth that runs: its gRPC and its command line.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use hearth_proto::HearthClient;
use hearth_proto::v1::resume_vm_request::Source as Resumed;
use hearth_proto::v1::{
    AcquireVmRequest, AcquireVmResponse, Artifact, FreezeVmRequest, GetPoolRequest, GetVmRequest,
    ListArtifactsRequest, ListVmsRequest, ResumeVmRequest, Vm,
};
use hearth_providers::env::{Env as _, SystemEnv};
use serde_json::Value;
use tonic::{Response, Status};

use crate::docker_engine::LONG;
use crate::site::wait_until;

/// A hearth that runs; dropped, it is killed.
pub(crate) struct Hearth {
    pub(crate) child: Child,
    pub(crate) client: HearthClient,
    pub(crate) address: String,
    pub(crate) admin: String,
    // After the client, whose connection is its.
    pub(crate) runtime: tokio::runtime::Runtime,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Hearth {
    /// Waits for the answer of a call.
    pub(crate) fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(call).map(Response::into_inner)
    }

    /// Of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn try_acquire(&self, vm_id: &str) -> Result<AcquireVmResponse, Status> {
        let request = AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id: vm_id.to_owned(),
            request_id: SystemEnv.uid().to_string(),
            ..AcquireVmRequest::default()
        };
        self.runtime.block_on(self.client.acquire(request, LONG))
    }

    pub(crate) fn acquire(&self, vm_id: &str) -> Vm {
        self.try_acquire(vm_id).unwrap().vm.unwrap()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Vm, Status> {
        self.call(self.client.vms.clone().get_vm(GetVmRequest { name: name.to_owned() }))
    }

    pub(crate) fn release(&self, vm: &Vm) {
        self.runtime.block_on(self.client.release(vm)).unwrap();
    }

    /// The VMs that wait in the pool.
    pub(crate) fn waiting(&self) -> Vec<Vm> {
        let request = ListVmsRequest { page_size: 1000, ..ListVmsRequest::default() };
        let vms = self.call(self.client.vms.clone().list_vms(request)).unwrap().vms;
        vms.into_iter().filter(|vm| vm.lease.is_none() && !vm.pool.is_empty()).collect()
    }

    /// How many of them are ready.
    pub(crate) fn warm(&self) -> i32 {
        let request = GetPoolRequest { name: "pools/default".to_owned() };
        let pool = self.call(self.client.pools.clone().get_pool(request));
        pool.ok().and_then(|pool| pool.status).map_or(0, |status| status.warm)
    }

    /// Begins to freeze a VM; answers the operation's name.
    pub(crate) fn begin_freeze(&self, vm: &str, artifact_id: &str) -> Result<String, Status> {
        let request = FreezeVmRequest {
            name: vm.to_owned(),
            artifact_id: artifact_id.to_owned(),
            ..FreezeVmRequest::default()
        };
        Ok(self.call(self.client.vms.clone().freeze_vm(request))?.name)
    }

    /// Freezes a VM.
    pub(crate) fn freeze(&self, vm: &str, artifact_id: &str) -> Result<Artifact, Status> {
        let operation = self.begin_freeze(vm, artifact_id)?;
        let done = self.runtime.block_on(self.client.wait_operation(&operation, LONG))?;
        hearth_proto::client::operation_response(&done)
    }

    /// Begins a VM from an artifact.
    pub(crate) fn resume(&self, artifact: &str) -> Result<Vm, Status> {
        let request = ResumeVmRequest {
            source: Some(Resumed::Artifact(artifact.to_owned())),
            ..ResumeVmRequest::default()
        };
        self.call(self.client.vms.clone().resume_vm(request))
    }

    /// The value of one series; `None` when it is not there.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub(crate) fn artifacts(&self) -> Vec<Artifact> {
        let request = ListArtifactsRequest::default();
        self.call(self.client.artifacts.clone().list_artifacts(request)).unwrap().artifacts
    }

    /// Deletes an artifact as soon as nothing runs from it any longer.
    pub(crate) fn delete_when_unused(&self, artifact: &str) {
        wait_until("the artifact is deleted", || {
            self.run(&["artifacts", "delete", artifact]).code == 0
        });
    }

    /// Runs a shell script in which `hearth` is this one's command line.
    pub(crate) fn shell(&self, script: &str) -> Ended {
        let dir = Path::new(env!("CARGO_BIN_EXE_hearth")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("PATH", format!("{}:{path}", dir.display()));
        without_settings(&mut shell);
        shell.env("HEARTH_ADDRESS", &self.address).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = program();
        command.args(arguments).env("HEARTH_ADDRESS", &self.address).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    /// Runs a command that has to succeed, and answers what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "hearth {arguments:?}: {ended:?}");
        ended.out
    }

    /// The same, printed as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// Runs a command that has to fail, and answers the error it printed as JSON.
    pub(crate) fn error(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--output", "json"]].concat());
        assert_ne!(ended.code, 0, "hearth {arguments:?}: {ended:?}");
        let report: Value = serde_json::from_str(&ended.err).unwrap();
        report["error"].clone()
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

/// The program, without what the environment of the test run says to it.
pub(crate) fn program() -> Command {
    program_by(&[])
}

/// The same, started by another program.
pub(crate) fn program_by(starter: &[OsString]) -> Command {
    let hearth = OsString::from(env!("CARGO_BIN_EXE_hearth"));
    let mut words = starter.iter().chain([&hearth]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    without_settings(&mut command);
    command
}

fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}
