//! A file makes templates and pools what it says, and nothing else.

use crate::hearth::Server;

const FILE: &str = r#"
    [templates.web]
    spec = { mem_size_mib = 64 }

    [pools.web]
    template = "web"
    depth = 2
    default_ttl = "3m"
"#;

fn apply(server: &Server, text: &str, more: &[&str]) -> Vec<(String, String)> {
    std::fs::write(server.directory.path().join("hearth.toml"), text).unwrap();
    let report = server.json(&[&["apply", "-f", "hearth.toml"], more].concat());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let changes = report["changes"].as_array().unwrap().iter();
    changes.map(|it| (text(&it["name"]), text(&it["change"]))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn the_second_time_nothing_changes() {
    let server = Server::start(0);
    let created = pairs(&[("templates/web", "created"), ("pools/web", "created")]);
    assert_eq!(apply(&server, FILE, &["--dry-run"]), created);
    assert_eq!(server.run(&["pools", "get", "web"]).code, 3);
    assert_eq!(apply(&server, FILE, &[]), created);
    let etag = server.json(&["pools", "get", "web"])["etag"].clone();

    let unchanged = pairs(&[("templates/web", "unchanged"), ("pools/web", "unchanged")]);
    assert_eq!(apply(&server, FILE, &[]), unchanged);
    let pool = server.json(&["pools", "get", "web"]);
    assert_eq!(pool["etag"], etag);
    assert_eq!(pool["default_ttl"], "180s");
}

#[test]
fn templates_that_are_as_the_file_says_are_rebuilt_when_asked_for() {
    let server = Server::start(0);
    apply(&server, FILE, &[]);
    let generation = || server.json(&["templates", "get", "web"])["generation"].clone();
    let (first, text) = (generation(), "[templates.web]\n");
    let rebuilt = pairs(&[("templates/web", "rebuilt")]);
    assert_eq!(apply(&server, text, &["--rebuild", "--dry-run"]), rebuilt);
    assert_eq!(generation(), first);
    assert_eq!(apply(&server, text, &["--rebuild"]), rebuilt);
    assert_ne!(generation(), first);
    assert_eq!(apply(&server, text, &[]), pairs(&[("templates/web", "unchanged")]));
}

#[test]
fn only_what_the_file_names_is_touched() {
    let server = Server::start(0);
    apply(&server, FILE, &[]);
    // By hand, what the file does not say and what it does.
    server.ok(&["pools", "update", "web", "--max-ttl", "1h", "--depth", "5"]);
    let changes = apply(&server, FILE, &[]);
    assert_eq!(changes[1], ("pools/web".to_owned(), "updated".to_owned()));
    let pool = server.json(&["pools", "get", "web"]);
    assert_eq!(pool["sizing"]["fixed"]["depth"], 2);
    assert_eq!(pool["max_ttl"], "3600s");
    assert!(server.ok(&["pools", "-o", "name"]).contains("pools/default"));
}

#[test]
fn a_changed_recipe_makes_a_generation() {
    let server = Server::start(0);
    apply(&server, FILE, &[]);
    let changed = FILE.replace("64", "96");
    let updated = pairs(&[("templates/web", "updated"), ("pools/web", "unchanged")]);
    assert_eq!(apply(&server, &changed, &["--dry-run"]), updated);
    assert_eq!(server.json(&["templates", "get", "web"])["generation"], 1);
    assert_eq!(apply(&server, &changed, &[]), updated);
    let template = server.json(&["templates", "get", "web"]);
    assert_eq!((&template["generation"], &template["state"]), (&2.into(), &"READY".into()));
    assert_eq!(template["spec"]["mem_size_mib"], 96);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let server = Server::start(0);
    let path = server.directory.path().join("hearth.toml");
    std::fs::write(&path, format!("{FILE}\n    dept = 3\n")).unwrap();
    let error = server.error(2, &["apply", "-f", "hearth.toml"]);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("dept")), "{error}");
    assert_eq!(server.run(&["templates", "get", "web"]).code, 3);
}
