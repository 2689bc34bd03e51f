//! What the fake has and the real one lacks: faults on demand, an agent, other releases.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::fake_rig::{Agent, Fake, is_silent};
use crate::firecracker_fake::{BeforeSocket, Settings, What};
use crate::process::{Process, command, fate, until};
use crate::row::{Request, get, put};
use crate::states::{create, load, load_with, machine, pause, resume};

/// Every test, by its name.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("faults befall the requests they name, as often as they say", faults_are_counted),
    ("a hang holds up every request", a_hang_holds_up_all),
    ("an end without an answer is an abort", an_eof_is_an_abort),
    ("an answer may be the last", an_answer_may_be_the_last),
    ("a lost answer was done", a_lost_answer_was_done),
    ("a process may end before its socket", an_end_before_the_socket),
    ("the memory of another snapshot ends the process", another_memory_aborts),
    ("the agent's state is memory, and its files are on the drive", the_agent_is_restored),
    ("a snapshot ends conversations, and the resume shows it", a_snapshot_ends_conversations),
    ("a bare pause costs a guest its ears until a snapshot", a_bare_pause_deafens),
    ("the release decides which fields and snapshots it knows", releases_differ),
    ("a guest may end itself", a_guest_ends_itself),
];

fn faults_are_counted() {
    let mut fake = Fake::new(Settings::default());
    let body = r#"{"fault_message":"not today"}"#.to_owned();
    fake.fail("/entropy", What::Refuse { status: 400, body: body.clone() }, Some(2));
    let (one, other) = (fake.start(), fake.start());
    let entropy = put("/entropy", json!({}));
    for process in [&one, &other] {
        let answer = fake.ask(process, &entropy).expect("there is an answer");
        assert_eq!((answer.status.as_str(), answer.body), ("HTTP/1.1 400 ", body.clone()));
        fake.done(process, &machine());
    }
    fake.done(&one, &entropy);
    fake.fail("/entropy", What::DelayMillis(1), None);
    fake.done(&one, &entropy);
}

fn a_hang_holds_up_all() {
    let mut fake = Fake::new(Settings::default());
    fake.fail("/entropy", What::Hang, Some(1));
    let mut process = fake.start();
    assert!(fake.is_silent(&process, &put("/entropy", json!({}))));
    assert!(fake.is_silent(&process, &get("/")));
    assert!(process.ends_within(Duration::ZERO).is_none());
}

fn an_eof_is_an_abort() {
    let mut fake = Fake::new(Settings::default());
    fake.fail("/entropy", What::Eof, None);
    let mut process = fake.start();
    assert!(fake.ask(&process, &put("/entropy", json!({}))).is_none());
    assert_eq!(process.end().map(fate).as_deref(), Some("is ended by signal 6"));
    fake.fail("/entropy", What::Signal(9), None);
    let mut process = fake.start();
    assert!(fake.ask(&process, &put("/entropy", json!({}))).is_none());
    assert_eq!(process.end().map(fate).as_deref(), Some("is ended by signal 9"));
}

fn an_answer_may_be_the_last() {
    let mut fake = Fake::new(Settings::default());
    fake.capture();
    fake.fail("/snapshot/load", What::DieAfter { status: 1 }, Some(1));
    let mut process = fake.start();
    fake.done(&process, &load());
    assert_eq!(process.end().map(fate).as_deref(), Some("exits with 1"));
    fake.fail("/snapshot/load", What::Exit(148), Some(1));
    let mut process = fake.start();
    assert!(fake.ask(&process, &load()).is_none());
    assert_eq!(process.end().map(fate).as_deref(), Some("exits with 148"));
}

fn a_lost_answer_was_done() {
    let mut fake = Fake::new(Settings::default());
    fake.fail("/entropy", What::LoseAnswer, Some(1));
    let process = fake.start();
    assert!(fake.is_silent(&process, &put("/entropy", json!({}))));
    let config = fake.ask(&process, &get("/vm/config")).expect("there is an answer");
    assert!(config.body.contains(r#""entropy":{"rate_limiter":null}"#), "{config:?}");
}

fn an_end_before_the_socket() {
    let fake = Fake::new(Settings {
        before_socket: Some(BeforeSocket::Exit { code: 7 }),
        ..Settings::default()
    });
    let mut command = command(&fake.installed.firecracker, fake.dir.path());
    let output = command.arg("--api-sock").arg(fake.dir.path().join("api")).output();
    assert_eq!(output.expect("the fake starts").status.code(), Some(7));
    assert!(!fake.dir.path().join("api").exists());
    assert!(fake.home.path().join("settings.json").exists());
}

fn another_memory_aborts() {
    let mut fake = Fake::new(Settings::default());
    fake.capture();
    std::fs::copy(fake.dir.path().join("memory"), fake.dir.path().join("kept")).expect("a copy");
    fake.capture();
    let mut process = fake.start();
    let backend = json!({ "backend_type": "File", "backend_path": "DIR/kept" });
    assert!(fake.ask(&process, &load_with(json!({ "mem_backend": backend }))).is_none());
    assert_eq!(process.end().map(fate).as_deref(), Some("is ended by signal 6"));
}

fn the_agent_is_restored() {
    let mut fake = Fake::new(Settings::default());
    let process = fake.boot();
    let mut agent = fake.agent();
    let first = agent.ask("ping");
    assert!(first.starts_with("pong counter=1 boot_id=") && first.ends_with(" name=-"), "{first}");
    let boot_id = first.split(' ').nth(2).expect("there is a boot id").to_owned();
    assert_eq!(agent.ask("name template"), "ok name=template");
    assert_eq!(agent.ask("write note first text"), "ok bytes=10");
    assert_eq!(agent.ask("read note"), "data first text");
    assert_eq!(agent.ask("interfaces"), "interfaces");
    assert_eq!(agent.ask("nonsense"), "error unknown request");
    fake.done(&process, &pause());
    fake.done(&process, &create());
    let disk = fake.dir.path().join("disk");
    let copy = std::fs::read(&disk).expect("the disk is read");
    fake.done(&process, &resume());
    let mut agent = fake.agent();
    assert_eq!(agent.ask("write note second"), "ok bytes=6");
    assert_eq!(agent.ask("name other"), "ok name=other");
    drop(process);
    std::fs::write(&disk, copy).expect("the disk is put back");
    std::fs::remove_file(fake.dir.path().join("vsock")).expect("there is a socket");
    let process = fake.start();
    fake.done(&process, &load());
    let mut agent = fake.agent();
    assert_eq!(agent.ask("ping"), format!("pong counter=2 {boot_id} name=template"));
    assert_eq!(agent.ask("read note"), "data first text");
}

fn a_snapshot_ends_conversations() {
    let mut fake = Fake::new(Settings::default());
    let process = fake.boot();
    let mut agent = fake.agent();
    fake.done(&process, &pause());
    fake.done(&process, &create());
    assert!(is_silent(&mut agent.stream), "the end shows before the resume");
    let mut waiting = Agent::begin(&fake.dir.path().join("vsock"));
    assert!(is_silent(&mut waiting.stream), "a paused guest accepts");
    fake.done(&process, &resume());
    agent.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout is set");
    assert_eq!(agent.receive(), None);
    waiting.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout is set");
    assert!(waiting.receive().is_some_and(|line| line.starts_with("OK ")));
}

fn a_bare_pause_deafens() {
    let mut fake = Fake::new(Settings::default());
    let process = fake.boot();
    let mut agent = fake.agent();
    fake.done(&process, &pause());
    fake.done(&process, &resume());
    agent.stream.write_all(b"ping\n").expect("the agent's connection is open");
    assert!(is_silent(&mut agent.stream), "a deaf guest answers");
    for request in [pause(), create(), resume()] {
        fake.done(&process, &request);
    }
    assert!(fake.agent().ask("ping").starts_with("pong "));
    drop(process);
    std::fs::remove_file(fake.dir.path().join("vsock")).expect("there is a socket");
    fake.set(|settings| settings.version = "1.17.0".to_owned());
    let process = fake.boot();
    fake.done(&process, &pause());
    fake.done(&process, &resume());
    assert!(fake.agent().ask("ping").starts_with("pong "));
}

fn releases_differ() {
    let mut fake = Fake::new(Settings::default());
    fake.capture();
    let refused = |fake: &Fake, process: &Process, request: &Request, words: &str| {
        let answer = fake.ask(process, request).expect("there is an answer");
        assert!(answer.body.contains(words), "{answer:?}");
    };
    fake.set(|settings| settings.version = "1.17.0".to_owned());
    let mut process = fake.start();
    refused(&fake, &process, &load(), "bitcode error");
    assert_eq!(process.end().map(fate).as_deref(), Some("exits with 1"));
    fake.set(|settings| settings.version = "1.15.0".to_owned());
    let process = fake.start();
    refused(&fake, &process, &get("/version"), "1.15.0");
    for name in ["vsock_override", "clock_realtime"] {
        let words = format!("unknown field `{name}`");
        refused(&fake, &process, &load_with(json!({ name: null })), &words);
    }
}

fn a_guest_ends_itself() {
    let mut fake = Fake::new(Settings::default());
    for (request, words) in [("poweroff", "powering off"), ("panic", "Kernel panic")] {
        let mut process = fake.boot();
        assert_eq!(fake.agent().ask(request), "ok");
        assert_eq!(process.end().map(fate).as_deref(), Some("exits with 0"));
        assert!(until(|| process.console().contains(words)), "{}", process.console());
        std::fs::remove_file(fake.dir.path().join("vsock")).expect("there is a socket");
    }
}
