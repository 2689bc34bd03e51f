//! VMs of one's own, snapshots, templates, pools, the node.

use crate::hearth::Server;

#[test]
fn a_vm_of_ones_own_becomes_a_template_and_a_pool() {
    let server = Server::start(0);
    server.ok(&["vms", "create", "golden", "--mem-mib", "64", "--ttl", "10m"]);
    assert_eq!(server.json(&["vms", "start", "golden"])["state"], "RUNNING");
    let snapshot = server.json(&["vms", "snapshot", "golden", "--id", "sealed"]);
    let name = snapshot["name"].as_str().unwrap();
    assert_eq!(name, "vms/golden/snapshots/sealed");
    let listed = server.json(&["snapshots", "list", "golden"]);
    assert_eq!(listed["snapshots"][0]["uid"], snapshot["uid"]);

    let template = server.json(&["templates", "import", "golden", "--from", name]);
    assert_eq!(template["state"], "READY");
    server.ok(&["release", "golden"]);
    server.ok(&["pools", "create", "golden", "-t", "golden", "--depth", "2"]);
    server.ok(&["pools", "wait", "golden"]);
    let acquired = server.json(&["acquire", "-p", "golden"]);
    assert_eq!(acquired["vm"]["template"], "templates/golden");

    assert_eq!(server.error(1, &["templates", "delete", "golden"])["reason"], "TEMPLATE_IN_USE");
    let name = acquired["vm"]["name"].as_str().unwrap();
    server.ok(&["release", name]);
    assert_eq!(server.ok(&["pools", "delete", "golden", "--force"]), "deleted pools/golden\n");
    assert_eq!(server.error(3, &["pools", "get", "golden"])["reason"], "POOL_NOT_FOUND");
}

#[test]
fn a_vm_is_stopped_renamed_and_destroyed() {
    let server = Server::start(1);
    server.ok(&["acquire", "--name", "one"]);
    assert_eq!(server.json(&["vms", "stop", "one"])["state"], "STOPPED");
    assert_eq!(server.error(1, &["vms", "stop", "one"])["reason"], "INVALID_TRANSITION");
    assert_eq!(server.json(&["vms", "rename", "one", "two"])["name"], "vms/two");
    assert_eq!(server.json(&["vms", "destroy", "two"])["state"], "DESTROYED");
    assert_eq!(server.run(&["vms", "get", "two"]).code, 3);
}

#[test]
fn a_template_is_built_with_its_progress_shown() {
    let server = Server::start(0);
    let ended = server.run(&["templates", "create", "small", "--mem-mib", "64"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("READY"), "{ended:?}");
    let operations = server.json(&["operations", "list"]);
    let of_it = operations["operations"].as_array().unwrap().iter();
    let mut of_it = of_it.filter(|operation| operation["target"] == "templates/small");
    let operation = of_it.next().expect("an operation for the template");
    let name = operation["name"].as_str().unwrap();
    assert_eq!(server.json(&["operations", "wait", name])["done"], true);
    assert_eq!(server.ok(&["templates", "delete", "small"]), "deleted templates/small\n");
}

#[test]
fn a_template_is_rolled_back_to_an_earlier_generation() {
    let server = Server::start(0);
    server.ok(&["templates", "create", "small", "--mem-mib", "64"]);
    let error = server.error(3, &["templates", "rollback", "small"]);
    assert_eq!(error["reason"], "TEMPLATE_NOT_FOUND");
    let file = server.directory.path().join("hearth-apply.toml");
    std::fs::write(&file, "[templates.small]\nspec = { mem_size_mib = 96 }\n").unwrap();
    server.ok(&["apply", "--file", file.to_str().unwrap()]);
    let rolled_back = server.json(&["templates", "rollback", "small"]);
    assert_eq!(rolled_back["generation"], 3);
    assert_eq!(rolled_back["spec"]["mem_size_mib"], 64);
    let listed = server.json(&["templates", "generations", "small"]);
    let listed = listed["generations"].as_array().unwrap().clone();
    let names: Vec<_> = listed.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["templates/small@3", "templates/small@2", "templates/small@1"]);
    let shown = server.ok(&["templates", "generations", "small", "--filter", "state = READY"]);
    assert!(shown.contains("small@2"), "{shown}");
    let forth = server.json(&["templates", "rollback", "small", "--generation", "2"]);
    assert_eq!((&forth["generation"], &forth["spec"]["mem_size_mib"]), (&4.into(), &96.into()));
    assert_eq!(server.json(&["templates", "get", "small@3"])["name"], "templates/small@3");
    let error = server.error(1, &["templates", "rollback", "small", "--etag", "old"]);
    assert_eq!(error["reason"], "ETAG_MISMATCH");
    assert_eq!(server.run(&["templates", "rollback", "small", "--generation", "0"]).code, 2);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let server = Server::start(0);
    let error = server.error(2, &["templates", "create", "bad", "--kernel", "no/such/kernel"]);
    let told = error.to_string();
    let there = server.directory.path().join("no/such/kernel");
    assert!(told.contains(there.to_str().unwrap()), "{told}");
    assert_eq!(server.run(&["templates", "get", "bad"]).code, 3);
}

#[test]
fn a_drained_node_says_to_come_back() {
    let server = Server::start(1);
    assert_eq!(server.json(&["node", "drain"])["draining"], true);
    let error = server.error(4, &["acquire"]);
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&"UNAVAILABLE".into(), &"NODE_DRAINING".into())
    );
    assert_eq!(server.json(&["node", "undrain"])["draining"], false);
    server.ok(&["acquire"]);
    let before = server.json(&["node", "log-level", "debug"]);
    assert!(before["previous_level"].as_str().is_some_and(|level| level.contains("info")));
}

#[test]
fn a_pool_is_waited_for_as_long_as_one_says() {
    let server = Server::start(0);
    let ended = server.run(&["pools", "wait", "default", "--warm", "99", "--timeout", "300ms"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.err.contains("of 99 VMs warm"), "{ended:?}");
    let pool = server.json(&["pools", "update", "default", "--depth", "7"]);
    assert_eq!(pool["sizing"]["fixed"]["depth"], 7);
    assert_eq!(server.run(&["pools", "update", "default"]).code, 2);
    let error = server.error(1, &["pools", "update", "default", "--depth", "1", "--etag", "old"]);
    assert_eq!(error["reason"], "ETAG_MISMATCH");
}
