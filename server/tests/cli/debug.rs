//! What a bug report is made of, and what has a shell complete commands.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::hearth::{Ended, Server, hearth};

/// What is in a bundle, by name.
fn parts(file: &Path) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(std::fs::File::open(file).unwrap());
    let parts = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    parts.collect()
}

#[test]
fn a_bundle_has_what_a_report_needs_and_no_secret() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "mine", "--label", "token=hunter2"]);
    let of_pool = ["--depth", "0", "--refill-warm-up", "login hunter2"];
    server.ok(&[&["pools", "create", "asked", "--template", "default"], &of_pool[..]].concat());
    let directory = tempfile::tempdir().unwrap();
    let (file, log) = (directory.path().join("a.tar"), directory.path().join("log"));
    std::fs::write(&log, "a line of the log\n").unwrap();
    let (path, log) = (file.to_str().unwrap(), log.to_str().unwrap());
    let bundle =
        ["debug", "bundle", "--file", path, "--log", log, "--metrics", "http://127.0.0.1:1/m"];
    let said = server.json(&bundle);
    assert_eq!(said["missing"], serde_json::json!(["metrics.txt"]));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let parts = parts(&file);
    assert!(parts.values().all(|text| !text.contains("hunter2")));
    assert!(parts["vms.json"].contains("vms/mine") && parts["vms.json"].contains("redacted"));
    assert!(parts["pools/default.json"].contains("observed_miss_ratio"), "{parts:?}");
    assert!(parts["doctor-memory.json"].contains("checks"), "{parts:?}");
    assert!(parts["metrics.txt.error.txt"].contains("127.0.0.1:1"), "{parts:?}");
    assert_eq!(parts["server.log"], "a line of the log\n");
    for name in ["README.txt", "host.txt", "node.json", "templates.json", "operations.json"] {
        assert!(parts.get(name).is_some_and(|text| !text.is_empty()), "{name}: {parts:?}");
    }
    // Nor the one in a URL that is refused.
    let again = directory.path().join("b.tar");
    let url = "http://me:hunter2@127.0.0.1:1/m";
    server.json(&["debug", "bundle", "--file", again.to_str().unwrap(), "--metrics", url]);
    assert!(self::parts(&again).values().all(|text| !text.contains("hunter2")));
    // What is there is not written over.
    assert_eq!(server.run(&bundle).code, 2);
}

#[test]
fn without_a_server_the_machine_is_collected_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.tar");
    let mut command = hearth();
    command.args(["debug", "bundle", "--address", "127.0.0.1:1", "--metrics", "", "--file"]);
    let ended = Ended::from(command.arg(&file).output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("node.json"), "{ended:?}");
    let parts = parts(&file);
    assert!(parts["node.json.error.txt"].contains("UNAVAILABLE"), "{parts:?}");
    assert!(parts["host.txt"].contains("MemAvailable"), "{parts:?}");
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Ended::from(hearth().args(["completion", shell]).output().unwrap()).out;
        assert!(script.contains("acquire") && script.contains("undrain"), "{shell}");
    }
}
