//! The binary itself with containers of real engines, through gRPC and the command line: killed
//! between the steps of a freeze, without its engine, and on a full disk.
//!
//! The tests start a Docker Engine and a podman of their own (see `scripts/container-engine`).
//! Without the engine its cases are ignored with the reason, or fail when `HEARTH_REQUIRE` names
//! `docker` or `podman`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

#[cfg(target_os = "linux")]
mod containers;
#[cfg(target_os = "linux")]
mod crashes;
#[cfg(target_os = "linux")]
#[path = "../../../providers/tests/docker_engine/mod.rs"]
mod docker_engine;
#[cfg(target_os = "linux")]
mod frozen;
#[cfg(target_os = "linux")]
mod handoff;
#[cfg(target_os = "linux")]
mod hearth;
#[cfg(target_os = "linux")]
mod outages;
#[cfg(target_os = "linux")]
mod proxy;
#[cfg(target_os = "linux")]
mod restarts;
#[cfg(target_os = "linux")]
mod site;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::sync::Arc;

    use docker_engine::EngineHost;
    use libtest_mimic::{Arguments, Completion, Trial};

    let mut arguments = Arguments::from_args();
    // Each waits for its engine most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(3));
    let mut trials = Vec::new();
    for kind in ["docker", "podman"] {
        let required = is_required(kind);
        let cases = [outages::ALL, crashes::ALL, frozen::ALL, handoff::ALL, restarts::ALL]
            .into_iter()
            .flatten();
        let cases = cases.filter(|(_, _, engines)| engines.contains(&kind));
        let cases: Vec<_> =
            cases.map(|(name, case, _)| (format!("{kind}::{name}"), *case)).collect();
        let wanted = !arguments.list && cases.iter().any(|(name, _)| is_wanted(&arguments, name));
        let host = match wanted {
            true => EngineHost::start(kind).map(Arc::new),
            false => Err("it was not asked for".to_owned()),
        };
        for (name, case) in cases {
            let takes_strace = crashes::TAKE_STRACE.iter().any(|it| name.ends_with(it));
            let (host, required) = match takes_strace.then(without_strace).flatten() {
                Some(why) => (Err(why), is_required("strace")),
                None => (host.clone(), required),
            };
            trials.push(Trial::ignorable_test(name, move || match host {
                Ok(host) => {
                    case(&host);
                    Ok(Completion::Completed)
                }
                Err(missing) if required => {
                    Err(format!("HEARTH_REQUIRE names it: {missing}").into())
                }
                Err(missing) => Ok(Completion::ignored_with(missing)),
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(target_os = "linux")]
fn is_required(host: &str) -> bool {
    std::env::var("HEARTH_REQUIRE")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == host))
}

#[cfg(target_os = "linux")]
fn without_strace() -> Option<String> {
    let found = std::process::Command::new("strace").arg("--version").output();
    found.err().map(|error| format!("strace: {error}"))
}

#[cfg(target_os = "linux")]
fn is_wanted(arguments: &libtest_mimic::Arguments, name: &str) -> bool {
    arguments.filter.as_ref().is_none_or(|filter| match arguments.exact {
        true => name == filter,
        false => name.contains(filter.as_str()),
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {}
