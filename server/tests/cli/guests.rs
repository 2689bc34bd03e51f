//! Talking to guests: by a pipe, on a terminal, and a line at a time.

use std::io::Write as _;
use std::process::Stdio;

use crate::hearth::{Ended, Server};
use crate::terminal;

/// Runs a command with this input.
fn piped(server: &Server, arguments: &[&str], input: &str) -> Ended {
    let mut command = server.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_pipe_goes_through_the_guest_and_its_end_comes_back() {
    let server = Server::start(1);
    let vm = server.json(&["acquire", "--name", "mine"]);
    let uid = vm["vm"]["uid"].as_str().unwrap();
    let ended = piped(&server, &["connect", "mine", "--uid", uid], "echo one\necho two\n");
    assert_eq!((ended.code, &*ended.out), (0, "echo one\necho two\n"), "{ended:?}");
    assert_eq!(server.ok(&["vms", "ask", "mine", "echo three"]), "echo three\n");
    server.ok(&["vms", "create", "booted"]);
    server.ok(&["vms", "start", "booted"]);
    assert_eq!(server.ok(&["console", "booted"]), "READY\n");
    assert_eq!(server.ok(&["console", "booted", "--tail-bytes", "3"]), "DY\n");
    let error = server.error(1, &["connect", "mine", "--port", "7"]);
    assert_eq!(error["reason"], "PROVIDER_UNSUPPORTED");
    assert_eq!(server.error(3, &["connect", "absent"])["reason"], "VM_NOT_FOUND");
    assert_eq!(server.run(&["connect", "mine", "--port", "0"]).code, 2);
}

#[test]
fn on_a_terminal_keys_go_to_the_guest_until_the_one_that_leaves() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "mine"]);
    let command = server.command(&["connect", "mine"]);
    let ended = terminal::answer(command, "leaves\n", "poweroff\n");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.starts_with("ok\n"), "{ended:?}");
    server.ok(&["acquire", "--name", "other"]);
    let left = terminal::answer(server.command(&["connect", "other"]), "leaves\n", "echo \u{1d}");
    assert_eq!(left.code, 0, "{left:?}");
    assert_eq!(server.ok(&["vms", "ask", "other", "echo still there"]), "echo still there\n");
}
