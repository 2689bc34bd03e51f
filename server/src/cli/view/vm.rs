//! A VM, as it is shown.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use super::{Time, value_name};
use crate::cli::output::{Show, Tone};
use crate::cli::text::{id_of, or_dash, since, until};

/// A VM.
#[derive(Debug, Serialize)]
pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) state: String,
    pub(crate) tenant: String,
    pub(crate) lease: Option<Lease>,
    pub(crate) provider: String,
    pub(crate) pool: String,
    pub(crate) template: String,
    pub(crate) template_generation: i64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) snapshots: Vec<String>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) create_time: Option<Time>,
    pub(crate) acquire_time: Option<Time>,
    pub(crate) process: Option<Process>,
    pub(crate) origin: String,
    pub(crate) artifact: String,
    pub(crate) preserved: bool,
    pub(crate) failure: Option<Failure>,
}

/// Who holds a VM.
#[derive(Debug, Serialize)]
pub(crate) struct Lease {
    pub(crate) expire_time: Option<Time>,
    pub(crate) request_id: String,
    pub(crate) fence: i64,
}

/// A way to reach a guest.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) kind: String,
    pub(crate) address: String,
}

/// The process of a VM.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: i64,
    pub(crate) start_time: Option<Time>,
    pub(crate) executable: String,
}

/// How something came to its end.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) time: Option<Time>,
    pub(crate) exit_status: Option<i32>,
    pub(crate) exit_signal: Option<i32>,
    pub(crate) console_tail: String,
}

impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        Self {
            reason: failure.reason,
            message: failure.message,
            time: failure.time.map(Time),
            exit_status: failure.exit_status,
            exit_signal: failure.exit_signal,
            console_tail: failure.console_tail,
        }
    }
}

impl From<v1::Vm> for Vm {
    fn from(vm: v1::Vm) -> Self {
        use v1::{endpoint, vm::Origin, vm::State};
        let endpoint = |it: v1::Endpoint| Endpoint {
            kind: value_name(it.kind, endpoint::Kind::as_str_name, "KIND_"),
            address: it.address,
        };
        Self {
            state: value_name(vm.state, State::as_str_name, "STATE_"),
            origin: value_name(vm.origin, Origin::as_str_name, "ORIGIN_"),
            name: vm.name,
            uid: vm.uid,
            tenant: vm.tenant,
            lease: vm.lease.map(|lease| Lease {
                expire_time: lease.expire_time.map(Time),
                request_id: lease.request_id,
                fence: lease.fence,
            }),
            provider: vm.provider,
            pool: vm.pool,
            template: vm.template,
            template_generation: vm.template_generation,
            labels: vm.labels,
            snapshots: vm.snapshots,
            endpoints: vm.endpoints.into_iter().map(endpoint).collect(),
            create_time: vm.create_time.map(Time),
            acquire_time: vm.acquire_time.map(Time),
            process: vm.process.map(|process| Process {
                pid: process.pid,
                start_time: process.start_time.map(Time),
                executable: process.executable,
            }),
            artifact: vm.artifact,
            preserved: vm.preserved,
            failure: vm.failure.map(Failure::from),
        }
    }
}

impl Show for Vm {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "STATE", "POOL", "TEMPLATE", "TENANT", "AGE", "EXPIRES", "PID", "UID"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
        let expires = self.lease.as_ref().and_then(|lease| time(&lease.expire_time));
        vec![
            id_of(&self.name).to_owned(),
            self.state.clone(),
            or_dash(id_of(&self.pool)),
            match self.template.as_str() {
                "" => "-".to_owned(),
                template => format!("{}@{}", id_of(template), self.template_generation),
            },
            or_dash(&self.tenant),
            since(time(&self.create_time).as_ref(), now),
            until(expires.as_ref(), now),
            self.process.as_ref().map_or_else(|| "-".to_owned(), |it| it.pid.to_string()),
            self.uid.clone(),
        ]
    }

    fn tone(&self, heading: &str) -> Tone {
        match heading {
            "STATE" => self.state_tone(),
            _ => Tone::Plain,
        }
    }

    fn key(&self) -> String {
        format!("{} {}", self.name, self.uid)
    }

    fn line(&self) -> String {
        format!("{} {} {}", self.name, self.state, or_dash(&self.pool))
    }
}

impl Vm {
    /// How its state is meant.
    pub(crate) fn state_tone(&self) -> Tone {
        match self.state.as_str() {
            "RUNNING" => Tone::Good,
            "FAILED" => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}
