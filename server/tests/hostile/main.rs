//! The pool's promises on providers that fail, lag, hang and lie: every fault on the memory provider,
//! and a handful at once on every other kind that there is here, real or as the tests' own fake.
//!
//! Without its host a case is ignored with the reason, or fails when `HEARTH_REQUIRE` names it. This
//! binary is the fake Firecracker and the fake command line tools, too.

#[cfg(target_os = "linux")]
#[path = "../../../providers/tests/cli_fake/mod.rs"]
mod cli_fake;
#[cfg(target_os = "linux")]
#[path = "../../../providers/tests/docker_engine/mod.rs"]
mod docker_engine;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
#[path = "../../../providers/tests/firecracker_fake/mod.rs"]
mod firecracker_fake;
#[cfg(target_os = "linux")]
mod kinds;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod node;
#[cfg(target_os = "linux")]
mod promises;

#[cfg(target_os = "linux")]
type Answer<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Completion, Failed, Trial};

    firecracker_fake::run_if_asked();
    if let Some(code) = cli_fake::run_if_asked() {
        return code;
    }
    let on_memory = faults::all().into_iter().map(|row| {
        Trial::test(format!("memory::{}", row.name), move || {
            let ran = kinds::memory().and_then(|site| promises::hold(site, &row));
            ran.map_err(|error| Failed::from(error.to_string()))
        })
    });
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let elsewhere = kinds::OTHERS.iter().flat_map(|(name, missing, make)| {
        let is_required = required.split([',', ' ']).any(|host| host.trim() == *name);
        faults::handfuls().into_iter().map(move |row| {
            let case = format!("{name}::{}", row.name);
            Trial::ignorable_test(case, move || match missing() {
                Some(why) if is_required => Err(format!("HEARTH_REQUIRE names it: {why}").into()),
                Some(why) => Ok(Completion::ignored_with(why)),
                None => {
                    let ran = make().and_then(|site| promises::hold(site, &row));
                    ran.map_err(|error| Failed::from(error.to_string()))?;
                    Ok(Completion::Completed)
                }
            })
        })
    });
    let trials = elsewhere.chain(on_memory).collect();
    // Most of the time they wait for something.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(6));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let (passed, ignored) = (conclusion.num_passed, conclusion.num_ignored);
    let failed = conclusion.num_failed;
    println!(
        "hostile: {passed} scripts of faults passed, {ignored} without their host: {failed} violations"
    );
    conclusion.exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
