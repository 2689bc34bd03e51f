//! Runs the contract's cases on every provider and wrapper that this crate has.
//!
//! After the tests it prints one line for each provider and compares these lines with
//! `conformance.expected`: a case that silently became unsupported is a failure.
//! `HEARTH_BLESS=1` writes the file anew. Without its host a provider's cases are ignored,
//! unless `HEARTH_REQUIRE` (words separated by commas) names the provider.

#[cfg(feature = "apple-container")]
#[path = "conformance/apple_container.rs"]
mod apple_container;
#[cfg(any(feature = "apple-container", feature = "smolvm"))]
mod cli_fake;
#[cfg(all(feature = "docker", target_os = "linux"))]
#[path = "conformance/docker.rs"]
mod docker;
#[cfg(all(feature = "docker", target_os = "linux"))]
mod docker_engine;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
#[path = "conformance/firecracker.rs"]
mod firecracker;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
mod firecracker_fake;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
#[path = "firecracker_guest/mod.rs"]
mod firecracker_guest;
#[cfg(all(feature = "qemu", target_os = "linux"))]
#[path = "conformance/qemu.rs"]
mod qemu;
#[cfg(feature = "smolvm")]
#[path = "conformance/smolvm.rs"]
mod smolvm;
#[path = "conformance/suites.rs"]
mod suites;
#[path = "conformance/summary.rs"]
mod summary;

use std::process::ExitCode;
use std::sync::Arc;

use hearth_providers::conformance::{Case, Verdict, cases};
use libtest_mimic::{Arguments, Completion, Trial};

use suites::Suite;
use summary::{Shown, Summary};

fn main() -> ExitCode {
    #[cfg(all(feature = "firecracker", target_os = "linux"))]
    firecracker_fake::run_if_asked();
    #[cfg(any(feature = "apple-container", feature = "smolvm"))]
    if let Some(code) = cli_fake::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let suites: Vec<_> = suites::all().into_iter().map(Arc::new).collect();
    let summary = Arc::new(Summary::default());
    let trials =
        suites.iter().flat_map(|suite| cases().map(|case| trial(suite, case, &summary))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let left = suites.iter().filter(|suite| !suite.left_nothing()).count();
    let differing = summary.conclude(suites.iter().map(|suite| suite.name));
    match (conclusion.has_failed(), left, differing) {
        (false, 0, false) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn trial(suite: &Arc<Suite>, case: &'static Case, summary: &Arc<Summary>) -> Trial {
    let name = format!("{}::{}", suite.name, case.name);
    let unsupported = suite.fixture.as_ref().is_ok_and(|fixture| !case.is_supported(fixture));
    if unsupported {
        summary.note(suite.name, case.name, Shown::Unsupported);
    }
    let (suite, summary) = (Arc::clone(suite), Arc::clone(summary));
    let trial = Trial::ignorable_test(name, move || {
        let (shown, completion) = run(&suite, case);
        summary.note(suite.name, case.name, shown);
        completion.map_err(Into::into)
    });
    let kind = if unsupported { "unsupported" } else { "" };
    trial.with_kind(kind).with_ignored_flag(unsupported)
}

fn run(suite: &Suite, case: &Case) -> (Shown, Result<Completion, String>) {
    let fixture = match &suite.fixture {
        Ok(fixture) => fixture,
        Err(missing) if suite.is_required() => {
            return (Shown::Failed, Err(format!("its host is required: {missing}")));
        }
        Err(missing) => return (Shown::Ignored, Ok(Completion::ignored_with(missing))),
    };
    let _permit = suite.permits.take();
    match case.run(fixture) {
        Verdict::Passed => (Shown::Passed, Ok(Completion::Completed)),
        Verdict::Failed(how) => (Shown::Failed, Err(format!("{}\n{how}", case.doc.trim()))),
        Verdict::Unsupported => (Shown::Unsupported, Ok(Completion::ignored())),
    }
}
