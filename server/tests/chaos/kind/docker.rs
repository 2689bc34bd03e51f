//! Containers of a Docker Engine of the tests' own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bollard::models::ContainerStateStatusEnum;
use hearth_proto::v1::Vm;
use parking_lot::Mutex;

use super::{Kind, Made, Traces, kill_if};
use crate::baseline;
use crate::containers::{images_of_state, inspect, kill, name, of_state, stands, try_exec};
use crate::docker_engine::{BASE, EngineHost};
use crate::hearth::{Answer, Host};
use crate::scene::DEPTH;

/// Where tokens are left: in the container's own layer, and in what is never in a snapshot.
const FILES: [&str; 2] = ["/etc/tenant", "/dev/shm/tenant"];

pub(crate) fn make() -> Answer<Made> {
    let engine = EngineHost::start("docker")?;
    let socket = engine.socket();
    let host = Host::configured("docker", DEPTH, |_| {
        Ok(format!(
            "[providers.engine]\nkind = \"docker\"\nsocket = {socket:?}\n\
             command = [\"sh\", \"-c\", \"echo READY; exec sleep 1000000\"]\n\
             [default_template]\nimage = \"{BASE}\"\nready_marker = \"READY\"\n"
        ))
    })?;
    let kind = Docker { engine, state: OnceLock::new(), containers: Mutex::default() };
    Ok(Made { host, kind: Arc::new(kind) })
}

struct Docker {
    engine: EngineHost,
    state: OnceLock<String>,
    /// What the engine calls those that were seen: their cgroups are called so, too.
    containers: Mutex<BTreeSet<String>>,
}

impl Docker {
    fn state(&self) -> &str {
        self.state.get().map_or("", String::as_str)
    }
}

impl Kind for Docker {
    fn begin(&self, state_uuid: &str) {
        let _ = self.state.set(state_uuid.to_owned());
    }

    fn processes(&self, _: &Host) -> Answer<BTreeMap<String, u32>> {
        let mut found = BTreeMap::new();
        for container in of_state(&self.engine, self.state()) {
            let Some(looked) = inspect(&self.engine, &container) else { continue };
            self.containers.lock().extend(looked.id);
            let pid = looked.state.and_then(|state| state.pid).unwrap_or_default();
            if let (Some(uid), Ok(pid @ 1..)) =
                (container.strip_prefix("hearth-"), u32::try_from(pid))
            {
                found.insert(uid.to_owned(), pid);
            }
        }
        Ok(found)
    }

    fn kill(&self, _: &Host, uid: &str, pid: u32, is_odd: bool) -> Answer<bool> {
        let runs = (ContainerStateStatusEnum::RUNNING, i64::from(pid));
        let is_it = || stands(&self.engine, &name(uid)) == Some(runs);
        if is_odd && is_it() {
            // As `docker kill` does, by the engine.
            return Ok(kill(&self.engine, uid).is_ok());
        }
        kill_if(pid, is_it)
    }

    fn traces(&self, vm: &Vm) -> Answer<Traces> {
        let [first, second] = FILES;
        // What ends meanwhile says less than all of it.
        let command = format!(
            "[ -e {first} ] && cat {first} || echo; [ -e {second} ] && cat {second} || echo; echo END"
        );
        let said = try_exec(&self.engine, &vm.uid, &command)?;
        let lines: Vec<_> = said.lines().collect();
        let [first, second, "END"] = lines[..] else {
            return Err(format!("cut short: {said:?}").into());
        };
        let token = |line: &str| (!line.is_empty()).then(|| line.to_owned());
        let tokens = vec![token(first), token(second)];
        let looked = inspect(&self.engine, &name(&vm.uid)).ok_or("there is no container")?;
        let state = looked.state.ok_or("a container without a state")?;
        if state.status != Some(ContainerStateStatusEnum::RUNNING) {
            return Err(format!("it ended meanwhile: {:?}", state.status).into());
        }
        let boot = format!("{:?} since {:?}", state.pid, state.started_at);
        Ok(Traces { tokens, boot, age: 0 })
    }

    fn leave(&self, vm: &Vm, token: &str) -> Answer<()> {
        let [first, second] = FILES;
        let command = format!("echo {token} > {first} && echo {token} > {second} && echo END");
        match try_exec(&self.engine, &vm.uid, &command)?.as_str() {
            "END\n" => Ok(()),
            said => Err(format!("nothing could be left: {said:?}").into()),
        }
    }

    fn left(&self, uids: &[String]) -> Answer<Vec<String>> {
        let mut left: Vec<_> = of_state(&self.engine, self.state()).into_iter().collect();
        left.extend(images_of_state(&self.engine, self.state()));
        left.extend(
            uids.iter()
                .map(|uid| name(uid))
                .filter(|container| inspect(&self.engine, container).is_some()),
        );
        left.extend(baseline::cgroups(&self.containers.lock()));
        let dir = self.engine.dir().to_string_lossy().into_owned();
        let is_shim = |line: &String| line.contains("containerd-shim");
        left.extend(baseline::processes_about(&dir).into_iter().filter(is_shim));
        left.extend(baseline::mounts_below(&dir).into_iter().filter(|it| it.ends_with("/merged")));
        Ok(left)
    }
}
