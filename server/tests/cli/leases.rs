//! Taking VMs, keeping them, giving them back.

use crate::hearth::Server;

#[test]
fn a_warm_vm_is_acquired_seen_renewed_and_released() {
    let server = Server::start(1);
    let acquired = server.json(&["acquire", "--name", "mine", "--ttl", "10m", "-l", "team=a b"]);
    assert_eq!(acquired["vm"]["name"], "vms/mine");
    assert_eq!(acquired["source"], "WARM");
    assert_eq!(acquired["vm"]["labels"]["team"], "a b");
    assert_eq!(acquired["vm"]["lease"]["request_id"], acquired["request_id"]);
    assert!(acquired["timing"]["total"].as_str().is_some_and(|total| total.ends_with('s')));
    let uid = acquired["vm"]["uid"].as_str().unwrap();

    assert_eq!(server.json(&["vms", "get", "mine"])["uid"], uid);
    let listed = server.json(&["vms", "list", "--label", "team=a b", "--state", "running"]);
    assert_eq!(listed["vms"][0]["uid"], uid);
    assert!(listed["vms"].as_array().is_some_and(|vms| vms.len() == 1), "{listed}");
    assert!(server.ok(&["vms", "describe", "mine"]).contains("lease\n  tenant"));

    let before = acquired["vm"]["lease"]["expire_time"].as_str().unwrap();
    let renewed = server.json(&["renew", "mine", "--ttl", "2h", "--uid", uid]);
    assert!(renewed["lease"]["expire_time"].as_str().unwrap() > before);

    assert_eq!(server.ok(&["release", "mine", "--uid", uid]), "released vms/mine\n");
    assert_eq!(server.error(3, &["vms", "get", "mine"])["reason"], "VM_NOT_FOUND");
    server.ok(&["release", "mine", "--uid", uid]);
}

#[test]
fn one_request_id_gets_one_vm() {
    let server = Server::start(2);
    let request_id = "0b8f9a5e-6a1c-4f0e-9d51-3f0a6a4a7c11";
    let first = server.json(&["acquire", "--request-id", request_id]);
    let again = server.json(&["acquire", "--request-id", request_id]);
    assert_eq!(first["vm"]["uid"], again["vm"]["uid"]);
    assert_eq!((&first["replayed"], &again["replayed"]), (&false.into(), &true.into()));
}

#[test]
fn a_taken_name_costs_no_vm_and_says_so() {
    let server = Server::start(2);
    server.ok(&["acquire", "--name", "mine"]);
    let error = server.error(1, &["acquire", "--name", "mine"]);
    assert_eq!(error["reason"], "VM_ALREADY_EXISTS");
    assert_eq!(error["allocated"], false);
}

#[test]
fn wrong_requests_name_the_field() {
    let server = Server::start(0);
    let error = server.error(2, &["acquire", "--name", "../etc"]);
    assert_eq!(error["code"], "INVALID_ARGUMENT");
    assert_eq!(error["field_violations"][0]["field"], "vm_id");
    let error = server.error(2, &["acquire", "--ttl", "0s"]);
    assert_eq!(error["field_violations"][0]["field"], "ttl");
    let error = server.error(2, &["acquire", "--request-id", "mine"]);
    assert_eq!(error["field_violations"][0]["field"], "request_id");
    assert_eq!(server.error(3, &["acquire", "--pool", "none"])["reason"], "POOL_NOT_FOUND");
    assert_eq!(server.run(&["acquire", "--ttl", "soon"]).code, 2);
}

#[test]
fn an_empty_pool_says_when_to_try_again() {
    let server = Server::start(0);
    server.ok(&["pools", "create", "empty", "--template", "default", "--depth", "0"]);
    let error = server.error(4, &["acquire", "-p", "empty", "--overflow", "warm-only"]);
    assert_eq!(error["reason"], "POOL_EMPTY");
    assert_eq!(error["allocated"], false);
    assert!(error["retry_after"].is_string(), "{error}");
    let cold = server.json(&["acquire", "-p", "empty"]);
    assert_eq!(cold["source"], "COLD");
}

#[test]
fn several_are_released_although_one_cannot_be() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "one"]);
    let ended = server.run(&["release", "../x", "one"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert_eq!(ended.out, "released vms/one\n");
    assert!(ended.err.contains("vms/../x"), "{ended:?}");
}

#[test]
fn a_vm_is_frozen_and_resumed() {
    let server = Server::start(2);
    server.ok(&["acquire", "--name", "mine"]);
    let frozen = server.ok(&["freeze", "mine", "--artifact", "one"]);
    assert_eq!(frozen, "frozen mine into artifacts/one\nhearth resume one\n");
    let listed = server.json(&["artifacts"]);
    assert_eq!(listed["artifacts"][0]["vm"], "vms/mine");
    assert_eq!(server.json(&["artifacts", "get", "one"])["has_memory"], true);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.tar").display().to_string();
    let exported = server.ok(&["artifacts", "export", "one", "--file", &file]);
    let size_bytes = std::fs::metadata(&file).unwrap().len();
    assert_eq!(exported, format!("exported artifacts/one to {file}, {size_bytes} bytes\n"));
    assert_eq!(server.run(&["artifacts", "export", "one", "--file", &file]).code, 2, "it is there");
    let to_stdout = server.run(&["artifacts", "export", "one", "--file", "-"]);
    assert_eq!(to_stdout.out.len() as u64, size_bytes);
    let used = server.json(&["usage"]);
    let of = |kind: &str| used["usage"].as_array().unwrap().iter().find(|it| it["kind"] == kind);
    assert_eq!(of("artifacts").unwrap()["count"], 1);
    server.ok(&["release", "mine"]);
    assert_eq!(server.ok(&["resume", "mine"]), "resumed vms/mine from the artifact\n");
    assert_eq!(server.error(1, &["artifacts", "delete", "one"])["reason"], "ARTIFACT_IN_USE");
    let other = server.json(&["resume", "one", "--name", "other", "--label", "a=b"]);
    assert_eq!((&other["name"], &other["labels"]["a"]), (&"vms/other".into(), &"b".into()));
    assert_eq!(server.error(3, &["resume", "nobody"])["reason"], "ARTIFACT_NOT_FOUND");
    assert_eq!(server.error(3, &["freeze", "nobody"])["reason"], "VM_NOT_FOUND");
}

#[test]
fn a_held_vm_is_kept_until_its_holder_is_interrupted() {
    use std::io::{BufRead as _, BufReader};

    let server = Server::start(1);
    let mut command = server.command(&["acquire", "--name", "mine", "--ttl", "1s", "--hold"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("vms/mine"));
    let ends = || server.json(&["vms", "get", "mine"])["lease"]["expire_time"].to_string();
    let first = ends();
    // Renewed, it outlives what it was granted.
    while ends() <= first {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(server.error(3, &["vms", "get", "mine"])["reason"], "VM_NOT_FOUND");
}
