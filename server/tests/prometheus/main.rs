//! A real Prometheus reads a real hearth: `promtool` finds nothing wrong with what is shown, every query of the
//! dashboard has an answer, and the alerts of `deploy/prometheus` fire when their fault is there and no longer
//! when it is gone. Everything is on loopback.
//!
//! `HEARTH_ALERTS=all` has every alert's fault made, as `make alerts` does; a plain test makes those that are over
//! within a minute. Without Debian's package `prometheus` (strace, for all of them) the cases are ignored with the
//! reason, or fail when `HEARTH_REQUIRE` names `prometheus`.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

mod alerts;
mod dashboard;
mod load;
mod node;
mod scenes;
mod shipped;
mod tools;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a case does.
type Case = fn();

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = std::env::var("HEARTH_REQUIRE")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "prometheus"));
    let missing = if arguments.list { None } else { tools::missing() };
    let everywhere: [(&str, Case); 2] = [
        ("every_alert_has_its_entry_in_the_run_book_and_its_tests", shipped::alerts_are_written_of),
        ("every_alert_has_its_fault", alerts::every_alert_has_its_fault),
    ];
    let hosted: [(&str, Case); 3] = [
        ("promtool_accepts_the_rules_and_their_tests_pass", shipped::promtool_accepts),
        ("prometheus_reads_what_is_shown_and_the_dashboard_finds_it", dashboard::finds_it),
        ("alerts_fire_when_their_fault_is_there_and_not_when_it_is_gone", alerts::fire_and_resolve),
    ];
    let everywhere = everywhere.map(|(name, case)| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    let hosted = hosted.map(|(name, case)| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            None => {
                case();
                Ok(Completion::Completed)
            }
            Some(why) if required => Err(Failed::from(format!("HEARTH_REQUIRE names it: {why}"))),
            Some(why) => Ok(Completion::ignored_with(why)),
        })
    });
    let trials = everywhere.into_iter().chain(hosted).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
