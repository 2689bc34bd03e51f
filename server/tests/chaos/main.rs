//! The binary itself with load on real VMs, while VMMs and hearth are killed at random: afterwards
//! the host is as it was before, no lease was lost, and no VM was given twice.
//!
//! Guests prove who they are: whoever gets a VM looks whether somebody has left a trace in it, leaves
//! its own, and finds that one and no other at each use.
//!
//! Kinds run side by side, each for `HEARTH_CHAOS_SECONDS` (20). What is done at random comes from
//! `HEARTH_CHAOS_SEED`, which is printed. Without its host a case is ignored with the reason, or
//! fails when `HEARTH_REQUIRE` names it.

#[cfg(target_os = "linux")]
mod baseline;
#[cfg(target_os = "linux")]
#[path = "../docker/containers.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "other test binaries' cases fail by panicking")]
mod containers;
#[cfg(target_os = "linux")]
#[path = "../../../providers/tests/docker_engine/mod.rs"]
mod docker_engine;
#[cfg(target_os = "linux")]
#[path = "../processes/hearth.rs"]
#[allow(dead_code, reason = "it has what other test binaries need, too")]
mod hearth;
#[cfg(target_os = "linux")]
mod killer;
#[cfg(target_os = "linux")]
mod kind;
#[cfg(target_os = "linux")]
mod ledger;
#[cfg(target_os = "linux")]
mod node;
#[cfg(target_os = "linux")]
mod scene;
#[cfg(target_os = "linux")]
mod tenant;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Completion, Failed, Trial};

    type Make = fn() -> hearth::Answer<kind::Made>;
    let kinds: [(&str, Option<String>, Make); 2] = [
        ("qemu", hearth::missing_qemu_host(), kind::qemu::make),
        ("docker", docker_engine::missing("docker"), kind::docker::make),
    ];
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let trials = kinds.map(|(name, missing, make)| {
        let is_required = required.split([',', ' ']).any(|host| host.trim() == name);
        Trial::ignorable_test(name, move || match missing {
            Some(why) if is_required => Err(format!("HEARTH_REQUIRE names it: {why}").into()),
            Some(why) => Ok(Completion::ignored_with(why)),
            None => {
                scene::run(name, make).map_err(|error| Failed::from(error.to_string()))?;
                Ok(Completion::Completed)
            }
        })
    });
    // Both take their time whether or not the other runs.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
