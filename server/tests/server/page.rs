//! The page on the admin port, as a program asks for it: who may see what, and that lists are cut.

use hearth_proto::v1;
use hearth_server::config::Config;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Server, named, server, server_with};
use crate::security::site::{Site, Who};

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn reason(&self) -> (u16, String) {
        (self.status, self.json()["error"]["reason"].as_str().unwrap().to_owned())
    }
}

/// Sends one request with these lines of its head, too.
async fn ask(server: &Server, request: &str, lines: &str) -> Answer {
    let mut stream = TcpStream::connect(server.hearth.admin_address()).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn get(server: &Server, path: &str) -> Answer {
    ask(server, &format!("GET {path}"), "Host: 127.0.0.1\r\n").await
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let server = server().await;
    for path in
        ["/", "/page/page.js", "/page/page.css", "/page/icon.svg", "/page/pools", "/page/nothing"]
    {
        let head = get(&server, path).await.head;
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
             connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(line), "{path}: {line} is not in {head}");
        }
    }
    let page = get(&server, "/").await;
    assert!(page.status == 200 && !page.body.contains("style="), "{}", page.body);
    for tag in page.body.split("<script").skip(1) {
        assert!(tag.starts_with(" src=\"/page/"), "it has a script in it: {tag}");
    }
    assert!(!page.body.contains("<style") && !page.body.contains("://"), "{}", page.body);
    let etag = page.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = format!("Host: localhost\r\nIf-None-Match: {etag}\r\n");
    let again = ask(&server, "GET /", &again).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(ask(&server, "HEAD /page/pools", "Host: localhost\r\n").await.body, "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&server, &format!("{method} /page/pools"), "Host: localhost\r\n").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_may_be_another_sites_sees_nothing() {
    let server = server().await;
    for own in ["localhost:1", "127.0.0.1", "[::1]:7071"] {
        let answer = ask(&server, "GET /page/pools", &format!("Host: {own}\r\n")).await;
        assert_eq!(answer.status, 200, "{own}");
    }
    let foreign = ask(&server, "GET /page/pools", "Host: evil.example\r\n").await;
    assert_eq!(foreign.reason(), (403, "FOREIGN_HOST".to_owned()));
    let lines = "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n";
    let foreign = ask(&server, "GET /page/events", lines).await;
    assert_eq!(foreign.reason(), (403, "FOREIGN_SITE".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn what_there_is_is_shown() {
    let server = server().await;
    server.acquire(named("mine")).await.unwrap();
    let pools = get(&server, "/page/pools").await.json();
    let pool = &pools["items"][0];
    assert_eq!((&pool["id"], &pool["target"]), (&"default".into(), &4.into()));
    assert_eq!(pool["leased"], 1);
    assert!(pool["last_hour"]["warm"].as_u64().unwrap() >= 1, "{pool}");
    assert!(pool["last_hour"]["p50_seconds"].as_f64().unwrap() > 0.0, "{pool}");
    assert!(!pool["summary"].as_str().unwrap().is_empty());
    let vms = get(&server, "/page/vms?find=MINE+default").await.json();
    assert_eq!((&vms["found"], &vms["items"][0]["id"]), (&1.into(), &"mine".into()));
    let uid = vms["items"][0]["uid"].as_str().unwrap();
    // A restored one goes on silently; one that boots says so.
    let request = v1::CreateVmRequest { vm_id: "loud".to_owned(), ..Default::default() };
    let loud = server.client.vms.clone().create_vm(request).await.unwrap().into_inner();
    let request = v1::StartVmRequest { name: loud.name, ..Default::default() };
    server.client.vms.clone().start_vm(request).await.unwrap();
    let vm = get(&server, &format!("/page/vm?uid={uid}")).await.json();
    assert_eq!((&vm["state"], &vm["leased"]), (&"RUNNING".into(), &true.into()));
    let console = get(&server, &format!("/page/console?uid={}", loud.uid)).await;
    assert_eq!(console.json(), serde_json::json!({"text": "READY\n", "offset": 0}));
    let templates = get(&server, "/page/templates").await.json();
    let made = &templates["items"][0];
    assert_eq!(
        (&made["state"], &made["generations"][0]["generation"]),
        (&"READY".into(), &1.into())
    );
    let node = get(&server, "/page/node").await.json();
    assert_eq!(
        (&node["not_ready"], &node["providers"][0]["kind"]),
        (&Value::Null, &"memory".into())
    );
    let gone = get(&server, "/page/vm?uid=0f8fad5b-d9cb-469f-a165-70867728950e").await;
    assert_eq!(gone.status, 404);
    assert_eq!(get(&server, "/page/vm?uid=x%ff").await.status, 400);
    assert_eq!(get(&server, "/page/elsewhere").await.reason(), (404, "NOT_FOUND".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn what_the_doctor_found_is_shown_to_all_who_ask_meanwhile() {
    let server = server().await;
    let found = get(&server, "/page/doctor").await.json();
    let checks = found["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["state", "runtime", "privileges", "open-files", "memory", "process"]);
    assert!(checks.iter().all(|it| it["provider"].is_null()), "memory takes nothing: {found}");
    assert!(checks.iter().all(|it| !it["message"].as_str().unwrap().is_empty()), "{found}");
    let worst = ["fail", "warn", "ok"]
        .into_iter()
        .find(|outcome| checks.iter().any(|it| it["status"] == *outcome));
    assert_eq!(found["status"], worst.unwrap());
    // Nothing is looked at twice within its time: whoever asks gets what was found.
    let again = futures_util::future::join_all((0..20).map(|_| get(&server, "/page/doctor"))).await;
    assert!(again.iter().all(|it| it.json() == found), "{again:?}");
    server.stop().await;
}

#[tokio::test]
async fn lists_are_cut_and_every_vm_is_in_one_part() {
    let full = |config: &mut Config| config.default_pool.depth = Some(450);
    let server = server_with(full).await;
    server.until_warm("default", 450).await;
    let (mut seen, mut after, mut parts) = (Vec::new(), String::new(), Vec::new());
    loop {
        let part =
            get(&server, &format!("/page/vms?after={}", after.replace(' ', "+"))).await.json();
        assert_eq!((&part["found"], &part["of"]), (&450.into(), &450.into()));
        let items = part["items"].as_array().unwrap();
        seen.extend(items.iter().map(|it| it["uid"].as_str().unwrap().to_owned()));
        parts.push(items.len());
        match part["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(parts, [200, 200, 50]);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 450);
    server.stop().await;
}

#[tokio::test]
async fn data_is_an_operators_where_callers_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().to_owned();
    let site = Site::with(|config| config.audit.dir = Some(audit)).await;
    let vm = crate::security::site::make_vm(&site.client(Who::Bob).await).await;
    let about = get(&site.server, "/page/about").await;
    assert_eq!(about.json(), serde_json::json!({"needs_token": true}));
    assert_eq!(get(&site.server, "/").await.status, 200, "the page itself asks for the token");
    let console = format!("console?uid={}", vm.uid);
    for what in
        ["pools", "vms", "templates", "node", "vm?uid=x", "events", "doctor", "nothing", &console]
    {
        for who in Who::EVERYBODY.into_iter().filter(|who| *who != Who::Root) {
            let token = who.token().map(|it| format!("Authorization: Bearer {it}\r\n"));
            let lines = format!("Host: 127.0.0.1\r\n{}", token.unwrap_or_default());
            let answer = ask(&site.server, &format!("GET /page/{what}"), &lines).await;
            let wanted = match who {
                Who::Nobody | Who::Stranger => 401,
                _ => 403,
            };
            assert_eq!(answer.status, wanted, "{who:?}: {what}: {}", answer.body);
            assert!(!answer.reason().1.is_empty());
            assert!(!answer.body.contains(&vm.uid), "{who:?}: {what}: {}", answer.body);
        }
    }
    let root = "Host: hearth.example\r\nAuthorization: Bearer root\r\n";
    let seen = ask(&site.server, "GET /page/vms?find=bobs", root).await.json();
    assert_eq!(seen["items"][0]["uid"], vm.uid);
    assert_eq!(ask(&site.server, &format!("GET /page/{console}"), root).await.status, 200);
    let absent = "GET /page/console?uid=0f8fad5b-d9cb-469f-a165-70867728950e";
    assert_eq!(ask(&site.server, absent, root).await.status, 404);
    site.server.stop().await;
    let kept = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let kept = kept.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = kept.filter(|line| line["method"] == "page/console").collect::<Vec<_>>();
    assert_eq!(of.len(), 2, "{of:?}");
    assert_eq!((&of[0]["who"], &of[0]["uid"]), (&"root".into(), &vm.uid.as_str().into()));
    let results = of.iter().map(|line| line["result"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(results, ["OK", "NotFound"], "what could not be read says why");
}

#[tokio::test]
async fn events_come_as_they_happen_and_streams_are_few() {
    let server = server().await;
    let open = async || {
        let mut stream = TcpStream::connect(server.hearth.admin_address()).await.unwrap();
        stream.write_all(b"GET /page/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream
    };
    let until = async |stream: &mut TcpStream, wanted: &str| {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let read = stream.read_buf(&mut seen).await.unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        }
        String::from_utf8(seen).unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = open().await;
        until(&mut stream, "event: live").await;
        streams.push(stream);
    }
    let refused = get(&server, "/page/events").await;
    assert_eq!(refused.reason(), (503, "BUSY".to_owned()));
    assert_eq!(server.admin("/readyz").await.0, 200, "there is room for probes");
    server.acquire(named("mine")).await.unwrap();
    for stream in &mut streams {
        let seen = until(stream, "\"id\":\"mine\"").await;
        assert!(seen.contains("event: vm"), "{seen}");
    }
    server.stop().await;
}
