//! A template's recipe, as flags and as a table of a file.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1;
use hearth_proto::v1::readiness::{AgentAnswer, Check};
use serde::Deserialize;

use crate::cli::spec::Spec;
use crate::cli::text::parse_duration;

/// How to tell that a VM is ready, as flags. None of them: as soon as it runs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ReadinessFlags {
    /// Ready when the console shows this text.
    #[arg(long, value_name = "TEXT", conflicts_with = "ready_agent")]
    ready_marker: Option<String>,
    /// Ready when the guest's agent answers.
    #[arg(long)]
    ready_agent: bool,
    /// How long that may take.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ready_timeout: Option<Duration>,
}

impl ReadinessFlags {
    /// The API's form of it; `None` when nothing was said.
    pub(crate) fn to_wire(&self) -> Option<v1::Readiness> {
        let marker = self.ready_marker.clone().map(Check::ConsoleMarker);
        let agent = self.ready_agent.then(|| Check::AgentAnswer(AgentAnswer::default()));
        let check = marker.or(agent);
        let timeout = self.ready_timeout.map(duration_to_wire);
        (check.is_some() || timeout.is_some()).then_some(v1::Readiness { check, timeout })
    }
}

/// A template, as a file has it. What is not said is left as it is, or at its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) provider: Option<String>,
    spec: Spec,
    readiness: Option<Readiness>,
    warm_up: Option<Vec<WarmUp>>,
}

/// How to tell that a VM is ready; one of the first three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Readiness {
    console_marker: Option<String>,
    agent_answer: Option<Question>,
    none: Option<bool>,
    #[serde(with = "humantime_serde")]
    timeout: Option<Duration>,
}

/// A question to the guest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Question {
    request: String,
    expect_prefix: String,
}

/// A step before the capture: a line for the agent, or all that can be said of a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum WarmUp {
    Line(String),
    Step(Step),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Step {
    request: Option<String>,
    command: Option<Vec<String>>,
    expect_prefix: String,
    #[serde(with = "humantime_serde")]
    timeout: Option<Duration>,
}

impl Recipe {
    /// Puts what is said here over `template` and names the fields that now differ. Relative paths are
    /// meant from `base`.
    pub(crate) fn lay_over(&self, template: &mut v1::Template, base: &Path) -> Vec<String> {
        let mut paths = Vec::new();
        let mut spec = template.spec.clone().unwrap_or_default();
        self.spec.lay_over(&mut spec, base);
        if template.spec.clone().unwrap_or_default() != spec {
            template.spec = Some(spec);
            paths.push("spec".to_owned());
        }
        if let Some(wanted) = self.readiness.as_ref().map(Readiness::to_wire)
            && !is_same_readiness(template.readiness.as_ref(), &wanted)
        {
            template.readiness = Some(wanted);
            paths.push("readiness".to_owned());
        }
        if let Some(steps) = &self.warm_up {
            let wanted: Vec<_> = steps.iter().map(WarmUp::to_wire).collect();
            if !is_same_warm_up(&template.warm_up, &wanted) {
                template.warm_up = wanted;
                paths.push("warm_up".to_owned());
            }
        }
        paths
    }

    /// What is wrong with this recipe by itself.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        let checks = self.readiness.as_ref().map_or(0, |it| {
            usize::from(it.console_marker.is_some())
                + usize::from(it.agent_answer.is_some())
                + usize::from(it.none == Some(true))
        });
        let has_one_thing_to_do = |step: &WarmUp| match step {
            WarmUp::Line(_) => true,
            WarmUp::Step(step) => step.request.is_some() != step.command.is_some(),
        };
        if checks > 1 {
            return Some("readiness is one of console_marker, agent_answer and none");
        }
        let steps = self.warm_up.as_deref().unwrap_or_default();
        (!steps.iter().all(has_one_thing_to_do))
            .then_some("a warm_up step is a request or a command")
    }
}

impl Readiness {
    fn to_wire(&self) -> v1::Readiness {
        let marker = self.console_marker.clone().map(Check::ConsoleMarker);
        let answer = self.agent_answer.as_ref().map(|question| {
            Check::AgentAnswer(AgentAnswer {
                request: question.request.clone(),
                expect_prefix: question.expect_prefix.clone(),
            })
        });
        let check = marker.or(answer).or(Some(Check::None(())));
        v1::Readiness { check, timeout: self.timeout.map(duration_to_wire) }
    }
}

impl WarmUp {
    fn to_wire(&self) -> v1::WarmUp {
        use v1::warm_up::{Command, Step as Wire};
        let step = match self {
            Self::Line(line) => {
                return v1::WarmUp {
                    step: Some(Wire::Request(line.clone())),
                    ..Default::default()
                };
            }
            Self::Step(step) => step,
        };
        let command = step.command.clone().map(|args| Wire::Command(Command { args }));
        v1::WarmUp {
            step: step.request.clone().map(Wire::Request).or(command),
            expect_prefix: step.expect_prefix.clone(),
            timeout: step.timeout.map(duration_to_wire),
        }
    }
}

/// Whether both mean the same. A server may show a default where nothing was said: a time-out that the
/// file does not have differs from none.
fn is_same_readiness(current: Option<&v1::Readiness>, wanted: &v1::Readiness) -> bool {
    let current = current.cloned().unwrap_or_default();
    let check = |readiness: &v1::Readiness| match readiness.check.clone() {
        None => Check::None(()),
        Some(Check::AgentAnswer(answer)) if answer.request.is_empty() => {
            Check::AgentAnswer(AgentAnswer { request: "ping".to_owned(), ..answer })
        }
        Some(check) => check,
    };
    check(&current) == check(wanted)
        && (wanted.timeout.is_none() || wanted.timeout == current.timeout)
}

/// Whether both mean the same; as for [`is_same_readiness`].
fn is_same_warm_up(current: &[v1::WarmUp], wanted: &[v1::WarmUp]) -> bool {
    current.len() == wanted.len()
        && current.iter().zip(wanted).all(|(current, wanted)| {
            current.step == wanted.step
                && current.expect_prefix == wanted.expect_prefix
                && (wanted.timeout.is_none() || wanted.timeout == current.timeout)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        spec = { kernel = "vmlinuz", mem_size_mib = 64 }
        readiness = { agent_answer = {}, timeout = "30s" }
        warm_up = ["name golden", { request = "ping", expect_prefix = "pong" }]
    "#;

    #[test]
    fn what_was_laid_over_once_differs_no_more() {
        let recipe: Recipe = toml::from_str(FILE).unwrap();
        let mut template = v1::Template::default();
        let first = recipe.lay_over(&mut template, Path::new("/base"));
        assert_eq!(first, ["spec", "readiness", "warm_up"]);
        assert_eq!(template.spec.as_ref().map(|spec| spec.kernel.as_str()), Some("/base/vmlinuz"));
        assert!(recipe.lay_over(&mut template, Path::new("/base")).is_empty());
    }

    #[test]
    fn defaults_that_the_server_shows_are_no_difference() {
        let recipe: Recipe = toml::from_str("readiness = { agent_answer = {} }").unwrap();
        let answer = AgentAnswer { request: "ping".to_owned(), ..Default::default() };
        let mut template = v1::Template {
            readiness: Some(v1::Readiness {
                check: Some(Check::AgentAnswer(answer)),
                timeout: Some(duration_to_wire(Duration::from_secs(60))),
            }),
            ..Default::default()
        };
        assert!(recipe.lay_over(&mut template, Path::new("/")).is_empty());
    }

    #[test]
    fn a_recipe_that_contradicts_itself_is_told() {
        let complaint = |text: &str| toml::from_str::<Recipe>(text).unwrap().complaint();
        assert!(complaint("readiness = { console_marker = 'a', none = true }").is_some());
        assert!(complaint("warm_up = [{ expect_prefix = 'a' }]").is_some());
        assert_eq!(complaint(FILE), None);
    }
}
