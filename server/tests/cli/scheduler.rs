//! Pools that promise, explain themselves, are told of demand, and are kept empty.

use crate::hearth::Server;

const PROMISED: &[&str] = &[
    "pools",
    "create",
    "web",
    "-t",
    "default",
    "--miss-ratio",
    "0.01",
    "--min",
    "1",
    "--max",
    "8",
    "--priority",
    "2",
    "--cut-over",
    "immediate",
    "--max-surge",
    "3",
    "--refill-warm-up",
    "ping",
    "--prefault-memory",
];

#[test]
fn a_promised_pool_is_made_explained_and_changed() {
    let server = Server::start(1);
    let pool = server.json(PROMISED);
    let promised = serde_json::json!({ "miss_ratio": 0.01, "min": 1, "max": 8 });
    assert_eq!(pool["sizing"]["promised"], promised);
    let rollout = serde_json::json!({ "cut_over": "IMMEDIATE", "max_surge": 3 });
    assert_eq!((&pool["priority"], &pool["rollout"]), (&2.into(), &rollout));
    assert_eq!(pool["refill_warm_up"][0], "ping");
    assert_eq!(pool["prefault_memory"], true);
    server.ok(&["pools", "wait", "web", "--warm", "1"]);

    let explained = server.json(&["pools", "explain", "web"]);
    assert_eq!((&explained["bound"], &explained["target"]), (&"MIN".into(), &1.into()));
    assert_eq!(explained["pool"]["name"], "pools/web");
    let text = server.ok(&["pools", "explain", "web"]);
    assert!(text.starts_with("Nobody claims from pools/web now"), "{text}");
    assert!(text.contains("1 (MIN)"), "{text}");
    server.ok(&["acquire", "-p", "web"]);
    assert_eq!(server.json(&["pools", "explain", "web"])["observed_claims"], 1);

    let pool = server.json(&["pools", "update", "web", "--max-surge", "5", "--refill-warm-up", ""]);
    let rollout = serde_json::json!({ "cut_over": "IMMEDIATE", "max_surge": 5 });
    assert_eq!(pool["rollout"], rollout, "the other half stays");
    assert_eq!(pool["refill_warm_up"], serde_json::json!([]));
    assert_eq!(pool["prefault_memory"], true, "it was not named");
    let pool = server.json(&["pools", "update", "web", "--prefault-memory=false"]);
    assert_eq!(pool["prefault_memory"], false);
    let fixed = server.json(&["pools", "update", "web", "--depth", "2"]);
    assert_eq!(fixed["sizing"]["fixed"]["depth"], 2);
    assert_eq!(server.run(&["pools", "update", "web", "--miss-ratio", "0.1"]).code, 2);
    let both = ["pools", "update", "web", "--depth", "1", "--miss-ratio", "0.1", "--max", "2"];
    assert_eq!(server.run(&both).code, 2);
    let error = server.error(2, &["pools", "update", "web", "--miss-ratio", "2", "--max", "2"]);
    assert_eq!(error["field_violations"][0]["field"], "pool.sizing.promised.miss_ratio");
}

#[test]
fn an_acquire_is_resolved() {
    let server = Server::start(4);
    let warm = server.json(&["pools", "resolve", "default"]);
    assert_eq!((&warm["warm"], &warm["source"]), (&true.into(), &"WARM".into()));
    assert!(server.ok(&["pools", "resolve", "default"]).contains("a warm VM, at once"));
    let cold = server.json(&["pools", "resolve", "default", "--overflow", "cold-only"]);
    assert_eq!(
        (&cold["source"], &cold["differences"][0]["field"]),
        (&"COLD".into(), &"overflow".into())
    );
    server.ok(&["pools", "create", "bare", "-t", "default", "--depth", "0"]);
    let refused = server.json(&["pools", "resolve", "bare", "--overflow", "warm-only"]);
    assert_eq!((&refused["source"], &refused["reason"]), (&"".into(), &"POOL_EMPTY".into()));
    let text = server.ok(&["pools", "resolve", "bare", "--overflow", "warm-only"]);
    assert!(text.contains("a refusal") && text.contains("POOL_EMPTY"), "{text}");
    let error = server.error(2, &["pools", "resolve", "default", "--name", "../x"]);
    assert_eq!(error["field_violations"][0]["field"], "request.vm_id");
}

#[test]
fn demand_is_announced_and_taken_back() {
    let server = Server::start(4);
    let announce = ["pools", "prewarm", "default", "--count", "2", "--ttl", "1h"];
    let prewarm = server.json(&announce);
    assert_eq!((&prewarm["pool"], &prewarm["count"]), (&"pools/default".into(), &2.into()));
    let id = prewarm["prewarm_id"].as_str().unwrap();
    server.ok(&["pools", "wait", "default", "--warm", "6"]);
    assert_eq!(server.json(&["pools", "explain", "default"])["prewarms"][0]["prewarm_id"], id);
    assert!(server.ok(&["pools", "explain", "default"]).contains(id));
    let pool = server.json(&["pools", "cancel-prewarm", "default", id]);
    assert_eq!(pool["status"]["prewarmed"], 0);
    let text = server.ok(&announce);
    assert!(text.starts_with("announced 2 more VMs of pools/default, for 59m"), "{text}");
    assert!(text.contains("hearth pools cancel-prewarm default "), "{text}");
    let request_id = ["--request-id", "0f8fad5b-d9cb-469f-a165-70867728950e", "-o", "name"];
    let again = [&announce[..], &request_id].concat();
    assert_eq!(server.ok(&again), server.ok(&again));
    let error = server.error(2, &["pools", "prewarm", "default", "-n", "0", "--ttl", "1h"]);
    assert_eq!(error["field_violations"][0]["field"], "count");
}

#[test]
fn a_pool_is_drained_and_filled_again() {
    let server = Server::start(4);
    assert_eq!(server.json(&["pools", "drain", "default"])["status"]["draining"], true);
    let error = server.error(4, &["acquire"]);
    assert_eq!((&error["reason"], &error["allocated"]), (&"NODE_DRAINING".into(), &false.into()));
    assert!(server.ok(&["pools"]).contains("draining"));
    assert_eq!(server.json(&["pools", "undrain", "default"])["status"]["draining"], false);
    server.ok(&["pools", "wait", "default", "--warm", "4"]);
    server.ok(&["acquire"]);
}

#[test]
fn a_file_makes_a_pool_that_promises() {
    let server = Server::start(0);
    let path = server.directory.path().join("hearth.toml");
    let text = "[pools.web]\ntemplate = \"default\"\nmiss_ratio = 0.01\nmin = 1\nmax = 4\n\
                priority = 1\ncut_over = \"immediate\"\nrefill_warm_up = [\"ping\"]\n\
                prefault_memory = true\n";
    std::fs::write(&path, text).unwrap();
    let change = |server: &Server| {
        let report = server.json(&["apply", "-f", "hearth.toml"]);
        (report["changes"][0]["change"].clone(), report["changes"][0]["fields"].clone())
    };
    assert_eq!(change(&server).0, "created");
    assert_eq!(change(&server).0, "unchanged");
    std::fs::write(&path, text.replace("max = 4", "max = 5\nmax_surge = 2")).unwrap();
    let fields = serde_json::json!(["sizing", "rollout.max_surge"]);
    assert_eq!(change(&server), ("updated".into(), fields));
    let pool = server.json(&["pools", "get", "web"]);
    assert_eq!(pool["sizing"]["promised"]["max"], 5);
    assert_eq!(pool["rollout"]["cut_over"], "IMMEDIATE");
    assert_eq!(pool["prefault_memory"], true);
}
