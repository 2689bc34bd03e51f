//! A template, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use hearth_proto::v1::readiness::Check;
use hearth_proto::v1::warm_up::Step;
use serde::Serialize;

use super::vm::Failure;
use super::{Snapshot, Span, Time, value_name};
use crate::cli::output::{Show, Tone};
use crate::cli::spec::Spec;
use crate::cli::text::{id_of, since};

/// A recipe, and the snapshot made by it.
#[derive(Debug, Serialize)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) spec: Option<Spec>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) readiness: Option<Readiness>,
    pub(crate) warm_up: Vec<WarmUp>,
    pub(crate) generation: i64,
    pub(crate) state: String,
    pub(crate) etag: String,
    pub(crate) create_time: Option<Time>,
    pub(crate) update_time: Option<Time>,
    pub(crate) failure: Option<Failure>,
}

/// How to tell that a VM is ready; one of the three.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Readiness {
    pub(crate) console_marker: Option<String>,
    pub(crate) agent_answer: Option<AgentAnswer>,
    pub(crate) none: bool,
    pub(crate) timeout: Option<Span>,
}

/// A question to the guest.
#[derive(Debug, Serialize)]
pub(crate) struct AgentAnswer {
    pub(crate) request: String,
    pub(crate) expect_prefix: String,
}

/// A step before the snapshot; a request or a command.
#[derive(Debug, Serialize)]
pub(crate) struct WarmUp {
    pub(crate) request: Option<String>,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) expect_prefix: String,
    pub(crate) timeout: Option<Span>,
}

impl From<v1::Readiness> for Readiness {
    fn from(readiness: v1::Readiness) -> Self {
        let timeout = readiness.timeout.map(Span);
        match readiness.check {
            Some(Check::ConsoleMarker(marker)) => {
                Self { console_marker: Some(marker), timeout, ..Self::default() }
            }
            Some(Check::AgentAnswer(answer)) => Self {
                agent_answer: Some(AgentAnswer {
                    request: answer.request,
                    expect_prefix: answer.expect_prefix,
                }),
                timeout,
                ..Self::default()
            },
            Some(Check::None(())) | None => Self { none: true, timeout, ..Self::default() },
        }
    }
}

impl From<v1::WarmUp> for WarmUp {
    fn from(warm_up: v1::WarmUp) -> Self {
        let (request, command) = match warm_up.step {
            Some(Step::Request(request)) => (Some(request), None),
            Some(Step::Command(command)) => (None, Some(command.args)),
            None => (None, None),
        };
        Self {
            request,
            command,
            expect_prefix: warm_up.expect_prefix,
            timeout: warm_up.timeout.map(Span),
        }
    }
}

impl From<v1::Template> for Template {
    fn from(template: v1::Template) -> Self {
        let state = v1::template::State::as_str_name;
        Self {
            state: value_name(template.state, state, "STATE_"),
            name: template.name,
            provider: template.provider,
            spec: template.spec.map(Spec::from),
            snapshot: template.snapshot.map(Snapshot::from),
            readiness: template.readiness.map(Readiness::from),
            warm_up: template.warm_up.into_iter().map(WarmUp::from).collect(),
            generation: template.generation,
            etag: template.etag,
            create_time: template.create_time.map(Time),
            update_time: template.update_time.map(Time),
            failure: template.failure.map(Failure::from),
        }
    }
}

impl Show for Template {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "STATE", "GENERATION", "PROVIDER", "READY WHEN", "AGE", "NOTE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        let ready = self.readiness.as_ref();
        let ready = match ready.map(|it| (&it.console_marker, &it.agent_answer)) {
            Some((Some(marker), _)) => format!("console shows {marker:?}"),
            Some((_, Some(_))) => "agent answers".to_owned(),
            _ => "it runs".to_owned(),
        };
        vec![
            id_of(&self.name).to_owned(),
            self.state.clone(),
            self.generation.to_string(),
            self.provider.clone(),
            ready,
            since(self.update_time.as_ref().map(|time| &time.0), now),
            self.failure.as_ref().map(|it| it.message.clone()).unwrap_or_default(),
        ]
    }

    fn tone(&self, heading: &str) -> Tone {
        match (heading, self.state.as_str()) {
            ("STATE", "READY") => Tone::Good,
            ("STATE" | "NOTE", "FAILED") => Tone::Bad,
            ("STATE", _) => Tone::Warn,
            _ => Tone::Plain,
        }
    }

    fn line(&self) -> String {
        format!("{} generation {} {}", self.name, self.generation, self.state)
    }
}
