//! The docker provider on real engines: what the common conformance cases cannot know.
//!
//! Each case runs on a Docker Engine and on podman's socket, which the tests start themselves (see
//! `scripts/container-engine`), and has a provider, a state directory and VMs of its own. Without
//! the engine its cases are ignored, or fail when `HEARTH_REQUIRE` names `docker` or `podman`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

#[cfg(target_os = "linux")]
#[path = "docker_provider/cases.rs"]
mod cases;
#[cfg(target_os = "linux")]
mod docker_engine;
#[cfg(target_os = "linux")]
#[path = "docker_provider/guests.rs"]
mod guests;
#[cfg(target_os = "linux")]
#[path = "docker_provider/lives.rs"]
mod lives;
#[cfg(target_os = "linux")]
#[path = "docker_provider/rig.rs"]
mod rig;
#[cfg(target_os = "linux")]
#[path = "docker_provider/strangers.rs"]
mod strangers;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::sync::Arc;

    use docker_engine::EngineHost;
    use libtest_mimic::{Arguments, Completion, Trial};

    let mut arguments = Arguments::from_args();
    // Each waits for its engine, which does not get faster by being asked more at once.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let mut trials = Vec::new();
    for kind in ["docker", "podman"] {
        let wanted = arguments.filter.as_ref().is_none_or(|filter| !other(kind, filter));
        let host = match wanted && !arguments.list {
            true => EngineHost::start(kind).map(Arc::new),
            false => Err("it was not asked for".to_owned()),
        };
        let required = std::env::var("HEARTH_REQUIRE")
            .is_ok_and(|names| names.split([',', ' ']).any(|name| name == kind));
        let all = [cases::ALL, guests::ALL, lives::ALL, strangers::ALL];
        for (name, case) in all.into_iter().flatten() {
            let host = host.clone();
            trials.push(Trial::ignorable_test(format!("{kind}::{name}"), move || match host {
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

/// A filter that begins with the other engine's name.
#[cfg(target_os = "linux")]
fn other(kind: &str, filter: &str) -> bool {
    ["docker", "podman"].iter().any(|name| *name != kind && filter.starts_with(name))
}

#[cfg(not(target_os = "linux"))]
fn main() {}
