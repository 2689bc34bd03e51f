//! What people see on terminals, wide and narrow, and what is left in pipes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::hearth::{Ended, Server};
use crate::screen::{Screen, plain};

const USUAL: (u16, u16) = (80, 24);
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// What nobody sets back after an interrupt is not set: another screen, a cursor that is hidden.
fn assert_is_in_order(shown: &str) {
    assert!(!shown.contains("\u{1b}[?"), "{shown:?}");
}

#[test]
fn a_table_fits_forty_columns_and_says_what_it_left_out() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "mine"]);
    for list in [["vms", "list"], ["pools", "list"], ["templates", "list"], ["node", "get"]] {
        let (code, shown) = Screen::run(&server.command(&list), (40, 24)).end();
        let text = plain(&shown);
        assert_eq!(code, 0, "{text}");
        let table = text.lines().take_while(|line| !line.contains("have no room here"));
        let table: Vec<_> = table.collect();
        assert!(table.len() >= 2 && table[1].len() > 10, "{text}");
        assert!(table.iter().all(|line| line.chars().count() <= 40), "{list:?}: {text}");
        let piped = server.ok(&list);
        assert!(piped.lines().next().unwrap().len() > 40 && !piped.contains('…'), "{piped}");
        let wide = Screen::run(&server.command(&[list[0], list[1], "-o", "wide"]), (40, 24)).end();
        // Columns are as wide as what is in them, and ages grow.
        let headings = |text: &str| -> Vec<String> {
            text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(headings(&plain(&wide.1)), headings(&piped));
    }
    let (_, vms) = Screen::run(&server.command(&["vms", "list"]), (40, 24)).end();
    assert!(vms.contains("have no room here: -o wide shows them"), "{vms}");
}

#[test]
fn colours_are_for_terminals_and_obey_the_environment() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "mine"]);
    let vms = ["vms", "list"];
    let (_, shown) = Screen::run(&server.command(&vms), USUAL).end();
    assert!(shown.contains(&format!("{GREEN}RUNNING")), "{shown:?}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
        let (_, shown) = Screen::run(server.command(&vms).env(name, value), USUAL).end();
        assert!(!shown.contains('\u{1b}') && shown.contains("RUNNING"), "{name}: {shown:?}");
    }
    let piped: Ended = server.command(&vms).env("CLICOLOR_FORCE", "1").output().unwrap().into();
    assert!(piped.out.contains(GREEN), "{piped:?}");
    let absent = ["vms", "get", "none"];
    let (code, shown) = Screen::run(&server.command(&absent), USUAL).end();
    assert!(code == 3 && shown.contains(RED), "{shown:?}");
    assert!(!server.run(&absent).err.contains('\u{1b}'));
}

#[test]
fn a_watched_list_is_kept_as_it_is_until_it_is_interrupted() {
    let server = Server::start(1);
    let mut screen = Screen::run(&server.command(&["vms", "list", "--watch"]), (100, 12));
    screen.until("RUNNING");
    server.ok(&["acquire", "--name", "mine"]);
    screen.until("mine").until("\u{1b}[J");
    server.ok(&["release", "mine"]);
    let (code, shown) = screen.interrupt();
    assert_eq!(code, 130, "{shown:?}");
    assert!(shown.contains("A\u{1b}[K"), "it is written over: {shown:?}");
    assert!(shown.ends_with("\r\n"), "{shown:?}");
    assert_is_in_order(&shown);
}

#[test]
fn a_watched_list_is_a_line_for_each_event_in_a_pipe() {
    let server = Server::start(1);
    for (list, first) in [
        (&["vms", "list", "--watch"][..], "ADDED    vms/"),
        (&["pools", "list", "-w"], "ADDED    pools/default warm "),
        (&["templates", "list", "-w"], "ADDED    templates/default generation 1 READY"),
        (&["operations", "list", "-w", "-o", "json"], r#"{"type":"ADDED","operation":{"name":"#),
        (&["templates", "list", "-w", "-o", "name"], "templates/default"),
    ] {
        let mut command = server.command(list);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(first), "{list:?}: {line}");
        interrupt(&child);
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (130, ""), "{list:?}");
    }
    // What becomes of it is told, too.
    let mut command = server.command(&["templates", "list", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    server.ok(&["templates", "create", "small", "--mem-mib", "64"]);
    assert!(lines.next().unwrap().unwrap().starts_with("ADDED    templates/small"));
    server.ok(&["templates", "delete", "small"]);
    let gone = lines.map(Result::unwrap).find(|line| line.starts_with("DELETED"));
    assert!(gone.is_some_and(|line| line.contains("templates/small")));
    interrupt(&child);
    child.wait().unwrap();
}

#[test]
fn a_wait_shows_a_bar_that_is_gone_in_the_end() {
    let server = Server::start(1);
    let wait = ["pools", "wait", "default", "--warm", "99"];
    let mut screen = Screen::run(&server.command(&wait), USUAL);
    screen.until("of 99 VMs warm");
    let (code, shown) = screen.interrupt();
    assert_eq!(code, 130);
    assert!(shown.contains("[=>") || shown.contains("[>"), "{shown:?}");
    let after = shown.rsplit_once("of 99 VMs warm").unwrap().1;
    assert_eq!(after.trim_start_matches("^C"), "\r\u{1b}[K\r\n", "{shown:?}");
    assert_is_in_order(&shown);
    let narrow = Screen::run(&server.command(&[&wait[..], &["--timeout", "1s"]].concat()), (30, 9));
    let (code, shown) = narrow.end();
    assert_eq!(code, 4);
    let bars = shown.split("hearth: ").next().unwrap().split('\r');
    assert!(bars.map(plain).all(|line| line.trim_end().chars().count() < 30), "{shown:?}");
}

#[test]
fn a_wait_is_a_line_for_each_change_in_a_pipe_and_nothing_when_quiet() {
    let server = Server::start(4);
    let wait = ["pools", "wait", "default", "--warm", "99", "--timeout", "1s"];
    let ended = server.run(&wait);
    assert_eq!(ended.code, 4);
    let told = ended.err.lines().filter(|line| *line == "pools/default: 4 of 99 VMs warm");
    assert_eq!(told.count(), 1, "{ended:?}");
    let quiet = server.run(&[&wait[..], &["--quiet"]].concat());
    assert!(quiet.err.starts_with("hearth: DEADLINE_EXCEEDED"), "{quiet:?}");
}

#[test]
fn a_drain_is_waited_for_until_the_last_lease_is_over() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "mine"]);
    for (drain, undrain) in [
        (
            &["pools", "drain", "default", "--wait"][..],
            &["pools", "undrain", "default", "--wait"][..],
        ),
        (&["node", "drain", "--wait"], &["node", "undrain"]),
    ] {
        let mut command = server.command(drain);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let left = lines.find(|line| line.contains("1 VMs left")).unwrap();
        assert!(left.contains("hearth vms list"), "{left}");
        server.ok(&["release", "mine"]);
        assert_eq!(lines.find(|line| line.starts_with("hearth:")), None);
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 0, "{ended:?}");
        server.ok(undrain);
        if undrain.contains(&"--wait") {
            assert_eq!(server.json(&["pools", "get", "default"])["status"]["warm"], 4);
        }
        server.ok(&["acquire", "--name", "mine"]);
    }
}

#[test]
fn what_is_applied_is_waited_for() {
    let server = Server::start(0);
    let text = "[templates.web]\nspec = { mem_size_mib = 64 }\n[pools.web]\ntemplate = \"web\"\ndepth = 3\n";
    std::fs::write(server.directory.path().join("web.toml"), text).unwrap();
    let ended = server.run(&["apply", "-f", "web.toml", "--wait"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(server.json(&["pools", "get", "web"])["status"]["warm"], 3);
}

#[test]
fn an_interrupt_says_what_goes_on() {
    // A template that never is ready: what it waits for is not on its console.
    let server = Server::start(0);
    let create = ["templates", "create", "slow", "--mem-mib", "64", "--ready-marker", "NEVER"];
    let mut screen = Screen::run(&server.command(&create), USUAL);
    screen.until("templates/slow");
    let (code, shown) = screen.interrupt();
    assert_eq!(code, 130);
    assert!(plain(&shown).contains("it goes on: hearth operations wait operations/"), "{shown:?}");
    // Nothing is warm, and nothing will be: the caller stands in line.
    server.ok(&["pools", "create", "empty", "-t", "default", "--depth", "0"]);
    let acquire = ["acquire", "--pool", "empty", "--overflow", "wait"];
    let mut command = server.command(&acquire);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = || server.json(&["pools", "get", "empty"])["status"]["waiting"] == 1;
    assert!((0..600).any(|_| waits()), "it does not stand in line");
    interrupt(&child);
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.err.contains("with --request-id"), "{ended:?}");
}

#[test]
fn a_watch_says_once_that_the_server_is_away_and_waits_for_it() {
    let server = Server::start(1);
    let watches = [["vms", "list", "--watch"], ["templates", "list", "--watch"]].map(|list| {
        let mut command = server.command(&list);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("ADDED"), "{list:?}");
        (child, lines)
    });
    let mut board = Screen::run(&server.command(&["pools", "list", "--watch"]), USUAL);
    board.until("default@1");
    drop(server);
    for (mut child, _reader) in watches {
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        assert!(line.starts_with("the server does not answer, and is asked again"), "{line}");
        interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(said.next().map(Result::unwrap), None);
    }
    board.until("does not answer");
    let (_, shown) = board.interrupt();
    let last = plain(shown.rsplit_once("\u{1b}[J").unwrap().0);
    assert!(last.contains("default@1"), "what was known is still there: {shown:?}");
}

#[test]
fn a_reader_of_a_watch_that_leaves_ends_it() {
    let server = Server::start(1);
    let mut command = server.command(&["vms", "list", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // It notices with the next line that it writes.
    server.ok(&["acquire", "--name", "mine"]);
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}
