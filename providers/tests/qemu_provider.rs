//! The QEMU provider on real QEMU: what the common conformance cases cannot know.
//!
//! One template is booted and captured for all cases; each case then has a provider, a state
//! directory and VMs of its own, and leaves nothing. Without QEMU or the guest image (see
//! `scripts/`) every case is ignored, or fails when `HEARTH_REQUIRE` names `qemu`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

#[cfg(target_os = "linux")]
#[path = "qemu_provider/cases.rs"]
mod cases;
#[cfg(target_os = "linux")]
#[path = "qemu_provider/lives.rs"]
mod lives;
#[cfg(target_os = "linux")]
#[path = "qemu_provider/rig.rs"]
mod rig;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Trial};

    let arguments = Arguments::from_args();
    let missing = rig::missing();
    let required = std::env::var("HEARTH_REQUIRE")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "qemu"));
    if let Some(reason) = &missing {
        eprintln!("no real QEMU here: {reason}");
    }
    let trials = cases::ALL.iter().chain(lives::ALL).map(|(name, case)| {
        let reason = missing.clone();
        let trial = Trial::test(*name, move || match reason {
            Some(reason) => Err(format!("HEARTH_REQUIRE names qemu: {reason}").into()),
            None => {
                case();
                Ok(())
            }
        });
        trial.with_ignored_flag(missing.is_some() && !required)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    rig::tear_down();
    conclusion.exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
