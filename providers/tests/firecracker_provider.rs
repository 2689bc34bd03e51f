//! The firecracker provider: what the common conformance cases cannot know.
//!
//! Cases run on our fake, in a jail and without, and on the real binary too where
//! `HEARTH_FIRECRACKER` says where it is (in jails where `HEARTH_JAILER` does); faults on the
//! fake alone. Each case has a provider, a state directory and VMs of its own, and leaves nothing.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

#[path = "firecracker_provider/faults.rs"]
mod faults;
mod firecracker_fake;
#[path = "firecracker_guest/mod.rs"]
mod firecracker_guest;
#[path = "firecracker_provider/jails.rs"]
mod jails;
#[path = "firecracker_provider/lives.rs"]
mod lives;
#[path = "firecracker_provider/page_fault_handler.rs"]
mod page_fault_handler;
#[path = "firecracker_provider/page_faults.rs"]
mod page_faults;
#[path = "firecracker_provider/rig.rs"]
mod rig;

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use rig::Host;

/// What a case is called, and what it does on a host.
pub(crate) type Case = (&'static str, fn(&Host));

fn main() -> ExitCode {
    firecracker_fake::run_if_asked();
    if let Some(code) = page_fault_handler::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let real = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (firecracker, jailer) = (real("HEARTH_FIRECRACKER"), real("HEARTH_JAILER"));
    let host = |name| Host { name, firecracker: None, jailer: None, jailed: false };
    let (fake, on_fake_jailed) = (host("fake"), Host { jailed: true, ..host("fake-jailed") });
    let on_real = Host { firecracker: firecracker.clone(), ..host("real") };
    let on_real_jailed =
        Host { firecracker: firecracker.clone(), jailer, jailed: true, ..host("real-jailed") };

    let unprivileged = !rustix::process::geteuid().is_root();
    let no_root = unprivileged.then(|| "jails need root".to_owned());
    let no_real = (firecracker.is_none())
        .then(|| "HEARTH_FIRECRACKER does not say where a Firecracker is".to_owned());
    let no_jailer = no_real.clone().or_else(|| no_root.clone()).or_else(|| {
        let missing = on_real_jailed.jailer.is_none();
        missing.then(|| "HEARTH_JAILER does not say where a jailer is".to_owned())
    });

    let mut trials = Vec::new();
    let everywhere = [lives::ALL, page_faults::ALL];
    let in_jails = [lives::ALL, page_faults::ALL, jails::ALL];
    trials.extend(of(&fake, None, &everywhere));
    trials.extend(of(&fake, None, &[faults::ALL, page_faults::OF_THE_HANDLER]));
    trials.extend(of(&on_fake_jailed, no_root, &in_jails));
    trials.extend(of(&on_real, no_real, &everywhere));
    trials.extend(of(&on_real_jailed, no_jailer, &in_jails));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The cases on one host; ignored, with the reason, where `missing` says what it lacks.
fn of(host: &Host, missing: Option<String>, cases: &[&'static [Case]]) -> Vec<Trial> {
    let all = cases.iter().flat_map(|cases| cases.iter());
    let trial = |(name, case): &'static Case| {
        let lacks = missing.clone().or_else(|| match *name {
            "limits_of_cgroup_v1_bind_and_go" => jails::missing_v1(),
            "limits_of_cgroup_v2_bind_and_go" => jails::missing_v2(),
            name if page_faults::is_one(name) => page_faults::missing(host),
            _ => None,
        });
        let host = host.clone();
        let trial = Trial::ignorable_test(format!("{}::{name}", host.name), move || match lacks {
            Some(reason) => Ok(libtest_mimic::Completion::ignored_with(reason)),
            None => {
                case(&host);
                Ok(libtest_mimic::Completion::Completed)
            }
        });
        trial.with_ignored_flag(false)
    };
    all.map(trial).collect()
}
