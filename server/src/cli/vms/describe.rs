//! All that is known of a VM, as text.

use std::fmt::Write as _;

use hearth_providers::env::{Env as _, SystemEnv};

use crate::cli::output::{facts, out_has_colours};
use crate::cli::text::{labels, printable, since, until};
use crate::cli::view::{Time, Vm};

/// Everything about `vm`, part by part.
pub(crate) fn text(vm: &Vm) -> String {
    let now = SystemEnv.now();
    let at = |time: &Option<Time>| match time {
        Some(time) => format!("{} ({} ago)", time.0, since(Some(&time.0), now)),
        None => String::new(),
    };
    let template = match vm.template.as_str() {
        "" => String::new(),
        template => format!("{template}@{}", vm.template_generation),
    };
    let mut text = facts(&[
        ("name", vm.name.clone()),
        ("uid", vm.uid.clone()),
        ("state", vm.state_tone().paint(&vm.state, out_has_colours())),
        ("provider", vm.provider.clone()),
        ("pool", vm.pool.clone()),
        ("template", template),
        ("origin", vm.origin.clone()),
        ("created", at(&vm.create_time)),
        ("acquired", at(&vm.acquire_time)),
        ("labels", if vm.labels.is_empty() { String::new() } else { labels(&vm.labels) }),
        ("snapshots", vm.snapshots.join(", ")),
        ("artifact", vm.artifact.clone()),
        ("preserved", if vm.preserved { "yes".to_owned() } else { String::new() }),
    ]);
    let mut part = |title: &str, facts: String| {
        let _ = write!(text, "\n{title}\n");
        for line in facts.lines() {
            let _ = writeln!(text, "  {line}");
        }
    };
    match &vm.lease {
        Some(lease) => {
            let ends = lease.expire_time.as_ref().map(|time| &time.0);
            let left = until(ends, now);
            let ends = ends.map(|time| format!("{time} (in {left})")).unwrap_or_default();
            part(
                "lease",
                facts(&[
                    ("tenant", vm.tenant.clone()),
                    ("expires", ends),
                    ("request id", lease.request_id.clone()),
                    ("fence", lease.fence.to_string()),
                ]),
            );
        }
        None => part("lease", "none: it waits in its pool".to_owned()),
    }
    if let Some(process) = &vm.process {
        part(
            "process",
            facts(&[
                ("pid", process.pid.to_string()),
                ("started", at(&process.start_time)),
                ("executable", process.executable.clone()),
            ]),
        );
    }
    if !vm.endpoints.is_empty() {
        let each: Vec<_> =
            vm.endpoints.iter().map(|it| (it.kind.as_str(), it.address.clone())).collect();
        part("endpoints", facts(&each));
    }
    if let Some(failure) = &vm.failure {
        let number = |number: Option<i32>| number.map(|it| it.to_string()).unwrap_or_default();
        part(
            "failure",
            facts(&[
                ("reason", failure.reason.clone()),
                ("message", failure.message.clone()),
                ("noticed", at(&failure.time)),
                ("exit status", number(failure.exit_status)),
                ("signal", number(failure.exit_signal)),
            ]),
        );
        if !failure.console_tail.is_empty() {
            part("last lines of its console", printable(&failure.console_tail));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hearth_proto::v1;

    use super::*;

    #[test]
    fn a_failed_vm_shows_why_and_what_it_said_last() {
        let vm = v1::Vm {
            name: "vms/a".to_owned(),
            state: v1::vm::State::Failed.into(),
            process: Some(v1::Process { pid: 42, ..Default::default() }),
            failure: Some(v1::Failure {
                reason: "VMM_EXITED".to_owned(),
                exit_signal: Some(9),
                console_tail: "panic\u{1b}[0m\n".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = text(&Vm::from(vm));
        assert!(text.contains("  reason  VMM_EXITED\n  signal  9\n"), "{text}");
        assert!(text.contains("  pid  42\n"), "{text}");
        assert!(text.contains("panic\\u{1b}[0m"), "{text}");
    }
}
