//! What `hearth doctor` says of the tools.

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;

use crate::cli_fake::{self, Fault, Settings};
use crate::site::{Case, Ended, apple, json, program, smolvm};

pub(crate) const ALL: &[Case] = &[
    ("the_doctor_finds_tools_that_answer", tools_that_answer),
    ("the_doctor_says_how_to_get_a_tool_that_is_missing", a_missing_tool),
    ("the_doctor_says_how_to_start_a_tool_that_does_not_answer", a_tool_that_does_not_answer),
    ("the_doctor_gives_up_an_engine_that_does_not_answer", an_engine_that_does_not_answer),
    ("the_doctor_refuses_flags_of_other_kinds", flags_of_other_kinds),
];

fn doctor(arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["doctor", "--output", "json"]).args(arguments);
    command.arg("--state").arg(dir.path()).arg("--runtime").arg(dir.path());
    command.output().unwrap().into()
}

fn look(kind: &str, binary: &Path) -> (i32, Value) {
    let ended = doctor(&["--provider", kind, "--binary", binary.to_str().unwrap()]);
    (ended.code, json(&ended.out))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {report}"))
}

fn tools_that_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (tool, fake) = cli_fake::install(dir.path(), &smolvm());
    for kind in ["smolvm", "smolmachines"] {
        // Whether it is fine depends on the virtualisation of this machine.
        let (_, report) = look(kind, &tool);
        assert_eq!(check(&report, "smolvm")["status"], "ok", "{report}");
        assert!(check(&report, "smolvm")["message"].to_string().contains("1.32.2"), "{report}");
        assert_eq!(check(&report, "service")["status"], "ok", "{report}");
        #[cfg(target_os = "linux")]
        check(&report, "kvm");
    }
    for (version, freeze) in [("1.2.1", None), ("1.2.0", Some("warn"))] {
        fake.set(&apple(version));
        for kind in ["apple-container", "macos-container"] {
            let (code, report) = look(kind, &tool);
            assert_eq!(code, 0, "{report}");
            assert_eq!(check(&report, "container")["status"], "ok", "{report}");
            assert!(check(&report, "container")["message"].to_string().contains(version));
            assert_eq!(check(&report, "service")["status"], "ok", "{report}");
            assert_eq!(
                freeze.map(|_| check(&report, "freeze")["status"].as_str()),
                freeze.map(Some)
            );
        }
    }
}

fn a_missing_tool() {
    for (kind, name) in [("smolvm", "smolvm"), ("apple-container", "container")] {
        let (code, report) = look(kind, Path::new("/no/such/tool"));
        assert_eq!((code, report["status"].as_str()), (1, Some("fail")), "{report}");
        let check = check(&report, name);
        assert_eq!(check["status"], "fail", "{report}");
        assert!(check["message"].to_string().contains("/no/such/tool"), "{report}");
        assert!(check["remedy"].to_string().contains("install"), "{report}");
    }
    let ended = doctor(&["--provider", "docker", "--socket", "/no/such/docker.sock"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    // A build without docker says that instead.
    let report = json(&ended.out);
    assert_eq!(check(&report, "engine")["status"], "fail", "{report}");
}

fn a_tool_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (tool, fake) = cli_fake::install(dir.path(), &apple("1.2.1"));
    let faults = [("list --all".to_owned(), Fault::DiskFull)].into_iter().collect();
    fake.set(&Settings { faults, ..apple("1.2.1") });
    let (code, report) = look("apple-container", &tool);
    assert_eq!(code, 1, "{report}");
    assert_eq!(check(&report, "container")["status"], "ok", "{report}");
    let service = check(&report, "service");
    assert_eq!(
        (&service["status"], &service["remedy"]),
        (&"fail".into(), &"container system start".into())
    );
}

/// One that accepts, reads what it is asked, and says nothing; and one that nobody runs any more behind its socket.
fn an_engine_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let engine = UnixListener::bind(&socket).unwrap();
    let asked = std::thread::spawn(move || {
        let mut stream = engine.accept().unwrap().0;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        text
    });
    let look = || {
        let ended = doctor(&["--provider", "docker", "--socket", socket.to_str().unwrap()]);
        let report = json(&ended.out);
        assert_eq!((ended.code, report["status"].as_str()), (1, Some("fail")), "{report}");
        let engine = check(&report, "engine").clone();
        assert_eq!(engine["status"], "fail", "{report}");
        assert!(engine["remedy"].to_string().contains("start the engine"), "{report}");
        engine["message"].to_string()
    };
    let hangs = look();
    assert!(hangs.contains("docker.sock"), "{hangs}");
    // It has hung up, and had asked.
    assert!(asked.join().unwrap().starts_with(b"GET "), "{hangs}");
    assert_ne!(look(), hangs, "nobody listens there now");
}

fn flags_of_other_kinds() {
    for (kind, flag) in [
        ("docker", "--binary"),
        ("memory", "--binary"),
        ("smolvm", "--socket"),
        ("qemu", "--socket"),
        ("smolvm", "--jailer"),
    ] {
        let ended = doctor(&["--provider", kind, flag, "/x"]);
        assert_eq!(ended.code, 2, "{kind} {flag}: {ended:?}");
        assert!(ended.err.contains(flag), "{ended:?}");
    }
}
