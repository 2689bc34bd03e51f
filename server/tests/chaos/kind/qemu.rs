//! Real virtual machines, whose guests have an agent behind a socket of the instance's directory.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_proto::v1::{Vm, endpoint};
use hearth_providers::VmRuntimeError;
use hearth_providers::agent::Agent;
use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::provider::GuestChannel;

use super::{Kind, Made, Traces, kill_if};
use crate::hearth::{Answer, Host};
use crate::scene::{DEPTH, PATIENCE};

/// Where a tenant leaves its token, beside the name that it gives the guest.
const FILE: &str = "tenant";

pub(crate) fn make() -> Answer<Made> {
    let config = "[providers.qemu]\nkind = \"qemu\"\n";
    let host = Host::configured("qemu", DEPTH, |_| Ok(config.to_owned()))?;
    Ok(Made { host, kind: Arc::new(Qemu) })
}

struct Qemu;

impl Kind for Qemu {
    fn processes(&self, host: &Host) -> Answer<BTreeMap<String, u32>> {
        let uid = |pid: u32| Some((uid_of(pid)?, pid));
        Ok(host.vmm_pids().into_iter().filter_map(uid).collect())
    }

    fn kill(&self, _: &Host, uid: &str, pid: u32, _: bool) -> Answer<bool> {
        kill_if(pid, || uid_of(pid).as_deref() == Some(uid))
    }

    fn traces(&self, vm: &Vm) -> Answer<Traces> {
        let mut agent = greet(vm)?;
        let pong = agent.ping(PATIENCE)?;
        let kept = match agent.ask(&format!("read {FILE}"), PATIENCE) {
            Ok(kept) => Some(kept.strip_prefix("data ").unwrap_or(&kept).to_owned()),
            // The guest's own words for a file that is not there.
            Err(VmRuntimeError::Backend { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Traces { tokens: vec![kept, pong.name], boot: pong.boot_id, age: pong.counter })
    }

    fn leave(&self, vm: &Vm, token: &str) -> Answer<()> {
        let mut agent = greet(vm)?;
        agent.ask(&format!("name {token}"), PATIENCE)?;
        agent.ask(&format!("write {FILE} {token}"), PATIENCE)?;
        Ok(())
    }

    fn left(&self, _: &[String]) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }
}

/// The VM in whose directory a process runs.
fn uid_of(pid: u32) -> Option<String> {
    let dir: PathBuf = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(dir.file_name()?.to_str()?.to_owned())
}

fn greet(vm: &Vm) -> Answer<Agent> {
    let channel = vm.endpoints.iter().find(|it| it.kind() == endpoint::Kind::Unix);
    let stream = UnixStream::connect(&channel.ok_or("the VM has no channel")?.address)?;
    Ok(Agent::greet(Box::new(Channel(stream)), SystemEnv.uid(), PATIENCE)?)
}

struct Channel(UnixStream);

impl Read for Channel {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl GuestChannel for Channel {
    fn set_timeout(&mut self, timeout: Duration) -> std::io::Result<()> {
        self.0.set_read_timeout(Some(timeout))?;
        self.0.set_write_timeout(Some(timeout))
    }
}
