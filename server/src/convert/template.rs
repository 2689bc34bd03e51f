//! Templates: their recipe in and out, and how they stand.

use std::time::Duration;

use hearth_pool::error::{Error, Result};
use hearth_pool::ids::TemplateId;
use hearth_pool::pool::Provider;
use hearth_pool::templates::{Template, TemplateState};
use hearth_proto::{names, v1};
use hearth_providers::readiness::{MAX_MARKER_BYTES, Readiness};

use super::{duration, spec, time, vm};
use crate::check::Fields;

/// How long a VM may take to become ready when its template does not say.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The most warm-up steps.
const MAX_WARM_UPS: usize = 64;
/// The longest request to the guest's agent, in bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// The parts of a template that can be changed, as paths of an update mask.
pub(crate) const PATHS: [&str; 3] = ["spec", "readiness", "warm_up"];

/// The template `id` of the recipe in `wire`, never made yet.
///
/// # Errors
/// `Unimplemented` for what cannot be had; what is wrong goes to `fields`.
pub(crate) fn recipe(
    fields: &mut Fields,
    id: TemplateId,
    provider: &Provider,
    wire: v1::Template,
) -> Result<Template> {
    let (readiness, ready_timeout) = readiness(fields, wire.readiness)?;
    let spec = spec::spec(fields, "template.spec", wire.spec.unwrap_or_default())?;
    let warm_up = warm_up(fields, wire.warm_up)?;
    let recipe = Template::new(id, &provider.name, spec);
    Ok(Template { readiness, ready_timeout, warm_up, ..recipe })
}

/// Which parts of a template `mask` names; without one, those that are set in `template`.
pub(crate) fn paths(
    fields: &mut Fields,
    mask: Option<&prost_types::FieldMask>,
    template: &v1::Template,
) -> Vec<&'static str> {
    let Some(mask) = mask else {
        let set =
            [template.spec.is_some(), template.readiness.is_some(), !template.warm_up.is_empty()];
        return PATHS.into_iter().zip(set).filter_map(|(path, set)| set.then_some(path)).collect();
    };
    if mask.paths == ["*"] {
        return PATHS.to_vec();
    }
    let mut paths = Vec::new();
    for asked in &mask.paths {
        match PATHS.iter().find(|path| *path == asked) {
            Some(path) => paths.push(*path),
            None => fields.wrong("update_mask", format_args!("{asked:?} cannot be changed")),
        }
    }
    paths
}

fn readiness(
    fields: &mut Fields,
    readiness: Option<v1::Readiness>,
) -> Result<(Readiness, Duration)> {
    use v1::readiness::{AgentAnswer, Check};
    let Some(readiness) = readiness else { return Ok((Readiness::Running, READY_TIMEOUT)) };
    let timeout = fields.duration("template.readiness.timeout", readiness.timeout);
    let check = match readiness.check {
        None | Some(Check::None(())) => Readiness::Running,
        Some(Check::ConsoleMarker(marker)) => {
            if marker.is_empty() || marker.len() > MAX_MARKER_BYTES {
                let why = format_args!("it must have 1 to {MAX_MARKER_BYTES} bytes");
                fields.wrong("template.readiness.console_marker", why);
            }
            Readiness::ConsoleMarker(marker)
        }
        Some(Check::AgentAnswer(AgentAnswer { request, expect_prefix })) => {
            if !(request.is_empty() || request == "ping") || !expect_prefix.is_empty() {
                let what = "readiness by a question or an answer of one's own";
                return Err(Error::Unimplemented { what });
            }
            Readiness::AgentAnswers
        }
    };
    Ok((check, timeout.unwrap_or(READY_TIMEOUT)))
}

fn warm_up(fields: &mut Fields, steps: Vec<v1::WarmUp>) -> Result<Vec<String>> {
    use v1::warm_up::Step;
    if steps.len() > MAX_WARM_UPS {
        fields.wrong("template.warm_up", format_args!("there are more than {MAX_WARM_UPS}"));
        return Ok(Vec::new());
    }
    let each = steps.into_iter().enumerate().map(|(index, step)| {
        if !step.expect_prefix.is_empty() || step.timeout.is_some() {
            let what = "a warm-up step with an expected answer or a timeout of its own";
            return Err(Error::Unimplemented { what });
        }
        match step.step {
            Some(Step::Request(request)) => {
                let is_line = !request.is_empty() && !request.contains(['\n', '\0']);
                if !is_line || request.len() > MAX_REQUEST_BYTES {
                    let field = format!("template.warm_up[{index}].request");
                    let why = format_args!("it must be one line of 1 to {MAX_REQUEST_BYTES} bytes");
                    fields.wrong(field, why);
                }
                Ok(request)
            }
            Some(Step::Command(_)) => Err(Error::Unimplemented { what: "a warm-up command" }),
            None => {
                fields.wrong(format!("template.warm_up[{index}]"), "it says nothing to do");
                Ok(String::new())
            }
        }
    });
    each.collect()
}

/// A template on the wire; its snapshot is asked of `provider`, where there is one.
pub(crate) fn to_wire(template: &Template, provider: Option<&Provider>) -> v1::Template {
    use v1::readiness::{AgentAnswer, Check};
    let check = match &template.readiness {
        Readiness::Running => Check::None(()),
        Readiness::ConsoleMarker(marker) => Check::ConsoleMarker(marker.clone()),
        Readiness::AgentAnswers => Check::AgentAnswer(AgentAnswer::default()),
    };
    let (state, failure) = match &template.state {
        TemplateState::Building => (v1::template::State::Building, None),
        TemplateState::Ready => (v1::template::State::Ready, None),
        TemplateState::Failed(message) => {
            let (reason, message) = ("BUILD_FAILED".to_owned(), message.clone());
            let time = template.update_time.and_then(time);
            let failure = v1::Failure { reason, message, time, ..Default::default() };
            (v1::template::State::Failed, Some(failure))
        }
    };
    let step = |request: &String| v1::WarmUp {
        step: Some(v1::warm_up::Step::Request(request.clone())),
        ..Default::default()
    };
    v1::Template {
        name: names::TEMPLATES.name(template.id.as_str()),
        provider: template.provider.clone(),
        spec: Some(spec::to_wire(&template.spec)),
        snapshot: provider.and_then(|provider| snapshot(template, provider)),
        readiness: Some(v1::Readiness {
            check: Some(check),
            timeout: duration(template.ready_timeout),
        }),
        warm_up: template.warm_up.iter().map(step).collect(),
        generation: template.generation,
        state: state.into(),
        etag: template.etag.clone(),
        create_time: template.create_time.and_then(time),
        update_time: template.update_time.and_then(time),
        failure,
    }
}

/// The name of a state in filters, without its prefix.
pub(crate) const fn state_name(template: &Template) -> &'static str {
    match template.state {
        TemplateState::Building => "BUILDING",
        TemplateState::Ready => "READY",
        TemplateState::Failed(_) => "FAILED",
    }
}

fn snapshot(template: &Template, provider: &Provider) -> Option<v1::Snapshot> {
    let taken = template.snapshot.as_ref()?;
    // One that is lost is not shown; restores say why it is.
    let view = provider.runtime.snapshot(&taken.reference(false)).ok()?;
    Some(vm::snapshot(&view, view.vm_id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_refused_and_not_dropped() {
        let mut fields = Fields::default();
        let agent = v1::readiness::AgentAnswer {
            request: "uptime".to_owned(),
            expect_prefix: String::new(),
        };
        let check = Some(v1::readiness::Check::AgentAnswer(agent));
        let asked = v1::Readiness { check, timeout: None };
        assert!(matches!(readiness(&mut fields, Some(asked)), Err(Error::Unimplemented { .. })));
        let command = v1::warm_up::Command { args: vec!["true".to_owned()] };
        let step = Some(v1::warm_up::Step::Command(command));
        let asked = v1::WarmUp { step, ..Default::default() };
        assert!(matches!(warm_up(&mut fields, vec![asked]), Err(Error::Unimplemented { .. })));
    }

    #[test]
    fn wrong_steps_and_markers_are_violations() {
        let mut fields = Fields::default();
        let line = |line: &str| v1::WarmUp {
            step: Some(v1::warm_up::Step::Request(line.to_owned())),
            ..Default::default()
        };
        let steps = vec![line("fine"), line("two\nlines"), v1::WarmUp::default()];
        warm_up(&mut fields, steps).unwrap();
        let check = Some(v1::readiness::Check::ConsoleMarker(String::new()));
        readiness(&mut fields, Some(v1::Readiness { check, timeout: None })).unwrap();
        let Err(Error::InvalidArgument(violations)) = fields.done() else { panic!() };
        let named: Vec<_> = violations.iter().map(|it| it.field.as_str()).collect();
        let expected = [
            "template.warm_up[1].request",
            "template.warm_up[2]",
            "template.readiness.console_marker",
        ];
        assert_eq!(named, expected);
    }
}
