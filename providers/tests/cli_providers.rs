//! The providers that are driven by command lines, on fakes that keep state: what the common
//! conformance cases cannot know. Some cases run on the real smolvm, where `HEARTH_SMOLVM` says
//! which program that is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

#[path = "cli_providers/apple.rs"]
mod apple;
mod cli_fake;
#[path = "cli_providers/faults.rs"]
mod faults;
#[path = "cli_providers/lives.rs"]
mod lives;
#[path = "cli_providers/real.rs"]
mod real;
#[path = "cli_providers/rig.rs"]
mod rig;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    if let Some(code) = cli_fake::run_if_asked() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let mut trials = Vec::new();
    for (name, case) in [lives::ALL, faults::ALL].into_iter().flatten() {
        trials.push(Trial::test(format!("smolvm-fake::{name}"), move || {
            case();
            Ok(())
        }));
    }
    for (name, case) in apple::ALL {
        trials.push(Trial::test(format!("apple-container-fake::{name}"), move || {
            case();
            Ok(())
        }));
    }
    for (name, case) in real::ALL {
        trials.push(Trial::ignorable_test(
            format!("smolvm::{name}"),
            move || match std::env::var_os("HEARTH_SMOLVM") {
                Some(program) => {
                    case(program.into());
                    Ok(Completion::Completed)
                }
                None if is_required("smolvm") => {
                    Err("HEARTH_REQUIRE=smolvm, but HEARTH_SMOLVM names none".into())
                }
                None => {
                    Ok(Completion::ignored_with("HEARTH_SMOLVM does not say where a smolvm is"))
                }
            },
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn is_required(host: &str) -> bool {
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    required.split(',').any(|required| required.trim() == host)
}
