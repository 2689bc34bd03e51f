//! Forms of output, exit codes, and what is said when something is missing.

use std::process::Stdio;

use crate::hearth::{Ended, Server, hearth};

#[test]
fn names_come_one_a_line() {
    let server = Server::start(1);
    assert_eq!(server.ok(&["acquire", "--name", "mine", "-o", "name"]), "vms/mine\n");
    let listed = server.ok(&["vms", "list", "--filter", "tenant != \"\"", "-o", "name"]);
    assert!(listed.lines().any(|line| line == "vms/mine"), "{listed}");
    assert_eq!(server.ok(&["pools", "-o", "name"]), "pools/default\n");
}

#[test]
fn tables_have_headings_and_no_colour() {
    let server = Server::start(1);
    let text = server.ok(&["pools"]);
    assert!(text.starts_with("NAME "), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("default ")), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(server.ok(&["node"]).contains("memory"));
    assert!(server.ok(&["templates"]).contains("READY"));
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let server = Server::start(1);
    for arguments in [&["vms", "-o", "json"][..], &["--help"], &["acquire", "--help"]] {
        let mut command = server.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn without_a_server_it_says_where_it_looked() {
    let output = hearth().args(["vms", "--address", "127.0.0.1:1"]).output().unwrap();
    let ended = Ended::from(output);
    assert_eq!(ended.code, 4);
    assert!(ended.err.contains("127.0.0.1:1") && ended.err.contains("hearth serve"), "{ended:?}");
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    let ended = Ended::from(hearth().args(["vms", "--address", "a b"]).output().unwrap());
    assert_eq!(ended.code, 2, "{ended:?}");
    assert_eq!(Ended::from(hearth().arg("none").output().unwrap()).code, 2);
    assert_eq!(Ended::from(hearth().arg("--version").output().unwrap()).code, 0);
}

#[test]
fn the_help_has_every_exit_code() {
    let help = Ended::from(hearth().arg("--help").output().unwrap()).out;
    for code in 0..=4 {
        assert!(help.contains(&format!("\n  {code}  ")), "{help}");
    }
}

#[test]
fn the_doctor_needs_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = |state: &std::path::Path| {
        let mut command = hearth();
        command.args(["doctor", "--provider", "memory", "-o", "json", "--state"]).arg(state);
        Ended::from(command.arg("--runtime").arg(directory.path()).output().unwrap())
    };
    let well = doctor(&directory.path().join("state"));
    assert_eq!(well.code, 0, "{well:?}");
    let report: serde_json::Value = serde_json::from_str(&well.out).unwrap();
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() >= 4), "{report}");

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ill = doctor(&file.join("state"));
    assert_eq!(ill.code, 1, "{ill:?}");
    let report: serde_json::Value = serde_json::from_str(&ill.out).unwrap();
    assert_eq!(report["status"], "fail");
}

#[test]
fn a_watch_is_a_line_of_json_for_each_event() {
    use std::io::{BufRead as _, BufReader};

    let server = Server::start(1);
    for (arguments, what) in [(["vms", "watch"], "vm"), (["pools", "watch"], "pool")] {
        let mut command = server.command(&[&arguments[..], &["--output", "json"]].concat());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(event["type"], "ADDED", "{first}");
        assert!(event[what]["name"].as_str().unwrap().starts_with(&format!("{what}s/")), "{first}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
