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
#[path = "qemu_provider/users.rs"]
mod users;

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
    let trials = cases::ALL.iter().chain(lives::ALL).chain(users::ALL).map(|(name, case)| {
        let reason = missing.clone();
        let trial = Trial::test(*name, move || match reason {
            Some(reason) => Err(format!("HEARTH_REQUIRE names qemu: {reason}").into()),
            None => run(*case),
        });
        trial.with_ignored_flag(missing.is_some() && !required)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    rig::tear_down();
    conclusion.exit_code()
}

/// What QEMU 10.0 says when its software emulation ends itself by a race of its own, once in some dozens of
/// whole runs. It is none of ours, and hearth sees it as what it is: a VM that has failed.
#[cfg(target_os = "linux")]
const RACE_OF_QEMU: &str = "iotlb_to_section: Assertion";
/// How often a case may meet it.
#[cfg(target_os = "linux")]
const MAX_RACES: usize = 2;

#[cfg(target_os = "linux")]
fn run(case: fn()) -> Result<(), libtest_mimic::Failed> {
    for _ in 0..MAX_RACES {
        let Err(panic) = std::panic::catch_unwind(case) else { return Ok(()) };
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        if !said.contains(RACE_OF_QEMU) {
            std::panic::resume_unwind(panic);
        }
        println!("QEMU ended itself, and the case begins again: {said}");
    }
    case();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
