//! What searches begin from: real messages, records and answers.

use std::path::Path;

use hearth_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    WaitOperationRequest,
};
use hearth_proto::v1;
use hearth_server::auth::token::TokenHash;
use hearth_server::fuzzing::METHODS;
use prost::Message;
use prost_types::{Duration, FieldMask};

use crate::records;
use crate::targets::calls;

/// One file of a corpus.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Made again it is the same.
    pub(crate) repeats: bool,
}

impl Seed {
    /// Writes it into its corpus.
    pub(crate) fn write(&self, corpus: &Path) {
        std::fs::create_dir_all(corpus).unwrap();
        std::fs::write(corpus.join(format!("{}{}", crate::SEED, self.name)), &self.bytes).unwrap();
    }
}

/// All that there are.
pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut put = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes, repeats: true });
    };
    for (name, bytes) in services() {
        put("service", name, bytes);
    }
    let uid = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for (number, text) in
        ["a", "vm-1", "a--b", uid, "{0F8FAD5B-D9CB-469F-A165-70867728950E}"].iter().enumerate()
    {
        put("ids", &number.to_string(), text.as_bytes().to_vec());
    }
    let names = [
        "vms/a",
        "pools/default",
        "vms/a/snapshots/s",
        "templates/t@7",
        "a",
        uid,
        "state = RUNNING AND labels.k != \"a b\"",
        "template=templates/t",
        "00000000000000000000000000000000000000000000000061",
    ];
    for (number, text) in names.iter().enumerate() {
        put("names", &number.to_string(), text.as_bytes().to_vec());
    }
    put("config", "defaults", pieces(&[b""]));
    put(
        "config",
        "file",
        pieces(&[CONFIG.as_bytes(), b"HEARTH_DEFAULT_POOL__DEPTH=7", b"HEARTH_LISTEN=127.0.0.1:1"]),
    );
    put("config", "promised", pieces(&[b"[default_pool]\nmiss_ratio = 0.01\nmin = 1\nmax = 9\n"]));
    let auth = AUTH.replace("HASH", &TokenHash::of(TOKEN.as_bytes()).to_string());
    put("auth", "tokens", pieces(&[auth.as_bytes(), b"", TOKEN.as_bytes()]));
    put("auth", "jwk", pieces(&[AUTH_JWT.as_bytes(), JWKS.as_bytes(), JWT.as_bytes()]));
    put("auth", "none", pieces(&[AUTH_JWT.as_bytes(), JWKS.as_bytes(), NO_SIGNATURE.as_bytes()]));
    put("guest_agent", "pong", b"pong counter=7 boot_id=b name=- uptime_ms=3\nerror no\npong counter=8 boot_id=c name=vm-1\n".to_vec());
    put("qmp", "answers", QMP.as_bytes().to_vec());
    put("qmp", "refusal", b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n".to_vec());
    put("firecracker_api", "state", b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-Length: 38\r\n\r\n{\"id\":\"cl1\",\"state\":\"Paused\",\"x\":null}".to_vec());
    put(
        "firecracker_api",
        "fault",
        b"HTTP/1.1 400 \r\nContent-Length: 22\r\n\r\n{\"fault_message\":\"no\"}".to_vec(),
    );
    put("firecracker_api", "chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{\"state\":\"Running\"}\r\n0\r\n\r\n".to_vec());
    put("firecracker_api", "busy", b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n".to_vec());
    put("firecracker_vsock", "ok", b"OK 1073741824\npong".to_vec());
    put("listings", "smolvm", br#"[{"name":"hearth-a","state":"created","pid":null,"cpus":1,"labels":{"k":"v"}},{"name":"b","state":"unreachable"}]"#.to_vec());
    put("listings", "container", br#"[{"id":"a","status":"stopped","configuration":{"labels":{"k":"v"},"initProcess":{"executable":"/bin/sh","arguments":["-c"],"environment":["A=b"],"workingDirectory":"/srv","user":{"id":{"uid":1,"gid":2}}}}}]"#.to_vec());
    put("listings", "new-shape", br#"[{"id":"b","configuration":{"id":"b"},"status":{"state":"stopped","startedDate":1.5}}]"#.to_vec());
    put("container_export", "files", archive());
    put("docker_labels", "containers", format!(r#"[{{"Id":"c","Names":["/hearth-{uid}"],"Labels":{{"dev.hearth.uid":"{uid}","dev.hearth.state":"7e6f0e4a-3c55-4c43-9a0a-3c0f4f7b2d11"}},"State":"running"}}]"#).into_bytes());
    put("docker_labels", "images", format!(r#"[{{"Id":"i","ParentId":"","RepoTags":["docker.io/hearth/snapshot:{uid}"],"RepoDigests":[],"Created":1,"Size":1,"SharedSize":1,"Labels":{{}},"Containers":1}}]"#).into_bytes());
    let mut unsteady = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes, repeats: false });
    };
    let records = records::real();
    for (name, bytes) in records.journals {
        unsteady("recovery", &name, bytes);
    }
    for (name, bytes) in records.states {
        unsteady("snapshots", &name, bytes);
    }
    for (name, bytes) in records.logs {
        unsteady("journal_log", &name, bytes);
    }
    for (name, bytes) in records.records {
        unsteady("records", &name, bytes);
    }
    seeds
}

/// Pieces, as the targets cut bytes into them.
pub(crate) fn pieces(pieces: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let long = format!("tmp/{}", "long/".repeat(30));
    for path in ["etc/name", "tmp/a", &long] {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o640);
        archive.append_data(&mut header, path, b"data".as_slice()).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    // What ends it is zeros, which a reader may miss.
    bytes[..bytes.len().min(4096)].to_vec()
}

type Calls = Vec<(&'static str, u8, Vec<Vec<u8>>)>;

fn services() -> Vec<(&'static str, Vec<u8>)> {
    let name = |id: &str| format!("vms/{id}");
    let mut lives: Vec<(&'static str, Calls)> = Vec::new();
    let path = |service: &str, method: &str| -> &'static str {
        let path = format!("/{service}/{method}");
        METHODS.iter().find(|it| **it == path).unwrap_or_else(|| panic!("{path}"))
    };
    let vm = |method: &str| path("hearth.v1.VmService", method);
    let acquire = |vm_id: &str| v1::AcquireVmRequest {
        pool: "pools/default".to_owned(),
        vm_id: vm_id.to_owned(),
        request_id: "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        expiration: Some(v1::acquire_vm_request::Expiration::Ttl(Duration {
            seconds: 600,
            nanos: 0,
        })),
        ..Default::default()
    };
    let one = |message: &dyn Fn() -> Vec<u8>| vec![message()];
    let ttl = Some(Duration { seconds: 60, nanos: 0 });
    let n = || name("a");
    lives.push((
        "life",
        vec![
            (vm("AcquireVm"), 0, one(&|| acquire("a").encode_to_vec())),
            (vm("AcquireVm"), 0, one(&|| acquire("a").encode_to_vec())),
            (vm("GetVm"), 0, one(&|| v1::GetVmRequest { name: n() }.encode_to_vec())),
            (
                vm("RenewLease"),
                0,
                one(&|| {
                    v1::RenewLeaseRequest {
                        name: n(),
                        expiration: Some(v1::renew_lease_request::Expiration::Ttl(Duration {
                            seconds: 900,
                            nanos: 0,
                        })),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("StopVm"),
                0,
                one(&|| v1::StopVmRequest { name: n(), ..Default::default() }.encode_to_vec()),
            ),
            (
                vm("StartVm"),
                0,
                one(&|| v1::StartVmRequest { name: n(), ..Default::default() }.encode_to_vec()),
            ),
            (
                vm("RenameVm"),
                0,
                one(&|| {
                    v1::RenameVmRequest {
                        name: n(),
                        new_vm_id: "b".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("ListVms"),
                0,
                one(&|| {
                    v1::ListVmsRequest {
                        page_size: 1,
                        filter: "state = RUNNING".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("ReleaseVm"),
                0,
                one(&|| {
                    v1::ReleaseVmRequest { name: name("b"), ..Default::default() }.encode_to_vec()
                }),
            ),
        ],
    ));
    lives.push((
        "frozen",
        vec![
            (vm("AcquireVm"), 1, one(&|| acquire("a").encode_to_vec())),
            (
                vm("SnapshotVm"),
                1,
                one(&|| {
                    v1::SnapshotVmRequest {
                        name: n(),
                        snapshot_id: "s".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("GetSnapshot"),
                1,
                one(&|| {
                    v1::GetSnapshotRequest { name: "vms/a/snapshots/s".to_owned() }.encode_to_vec()
                }),
            ),
            (
                vm("ListSnapshots"),
                1,
                one(&|| {
                    v1::ListSnapshotsRequest { parent: n(), ..Default::default() }.encode_to_vec()
                }),
            ),
            (
                vm("CreateVm"),
                1,
                one(&|| {
                    v1::CreateVmRequest {
                        vm_id: "c".to_owned(),
                        spec: Some(v1::VmSpec {
                            restore_from: Some(v1::SnapshotRef {
                                vm: Some(v1::snapshot_ref::Vm::VmId("a".to_owned())),
                                snapshot_id: "s".to_owned(),
                                resume_immediately: true,
                                ..Default::default()
                            }),
                            ..Default::default()
                        }),
                        ttl,
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("DeleteSnapshot"),
                1,
                one(&|| {
                    v1::DeleteSnapshotRequest {
                        name: "vms/a/snapshots/s".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("FreezeVm"),
                1,
                one(&|| {
                    v1::FreezeVmRequest {
                        name: n(),
                        artifact_id: "f".to_owned(),
                        ttl,
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path("google.longrunning.Operations", "ListOperations"),
                1,
                one(&|| {
                    ListOperationsRequest { filter: "done = true".to_owned(), ..Default::default() }
                        .encode_to_vec()
                }),
            ),
            (
                path("hearth.v1.ArtifactService", "ListArtifacts"),
                1,
                one(&|| v1::ListArtifactsRequest::default().encode_to_vec()),
            ),
            (
                path("hearth.v1.ArtifactService", "GetArtifact"),
                1,
                one(&|| v1::GetArtifactRequest { name: "artifacts/f".to_owned() }.encode_to_vec()),
            ),
            (
                path("hearth.v1.ArtifactService", "ExportArtifact"),
                1,
                one(&|| {
                    v1::ExportArtifactRequest { name: "artifacts/f".to_owned(), offset: 7 }
                        .encode_to_vec()
                }),
            ),
            (
                vm("ResumeVm"),
                1,
                one(&|| {
                    v1::ResumeVmRequest {
                        source: Some(v1::resume_vm_request::Source::Artifact(
                            "artifacts/f".to_owned(),
                        )),
                        vm_id: "d".to_owned(),
                        ttl,
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path("hearth.v1.ArtifactService", "DeleteArtifact"),
                1,
                one(&|| {
                    v1::DeleteArtifactRequest {
                        name: "artifacts/f".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("DestroyVm"),
                1,
                one(&|| {
                    v1::DestroyVmRequest { name: name("c"), ..Default::default() }.encode_to_vec()
                }),
            ),
        ],
    ));
    let operation = || "operations/0f8fad5b-d9cb-469f-a165-70867728950e".to_owned();
    let operations = "google.longrunning.Operations";
    lives.push((
        "operations",
        vec![
            (
                path(operations, "GetOperation"),
                0,
                one(&|| GetOperationRequest { name: operation() }.encode_to_vec()),
            ),
            (
                path(operations, "WaitOperation"),
                0,
                one(&|| WaitOperationRequest { name: operation(), timeout: ttl }.encode_to_vec()),
            ),
            (
                path(operations, "CancelOperation"),
                0,
                one(&|| CancelOperationRequest { name: operation() }.encode_to_vec()),
            ),
            (
                path(operations, "DeleteOperation"),
                0,
                one(&|| DeleteOperationRequest { name: operation() }.encode_to_vec()),
            ),
        ],
    ));
    let pools = "hearth.v1.PoolService";
    let pool = || v1::Pool {
        name: "pools/p".to_owned(),
        template: "templates/default".to_owned(),
        sizing: Some(v1::Sizing {
            mode: Some(v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth: 1 })),
        }),
        ..Default::default()
    };
    let p = || "pools/p".to_owned();
    lives.push((
        "pools",
        vec![
            (
                path(pools, "CreatePool"),
                0,
                one(&|| {
                    v1::CreatePoolRequest {
                        pool_id: "p".to_owned(),
                        pool: Some(pool()),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(pools, "UpdatePool"),
                0,
                one(&|| {
                    v1::UpdatePoolRequest {
                        pool: Some(v1::Pool {
                            sizing: Some(v1::Sizing {
                                mode: Some(v1::sizing::Mode::Promised(v1::sizing::Promised {
                                    miss_ratio: 0.01,
                                    min: 1,
                                    max: 3,
                                })),
                            }),
                            ..pool()
                        }),
                        update_mask: Some(FieldMask { paths: vec!["sizing".to_owned()] }),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(pools, "PrewarmPool"),
                0,
                one(&|| {
                    v1::PrewarmPoolRequest { name: p(), count: 2, ttl, ..Default::default() }
                        .encode_to_vec()
                }),
            ),
            (
                path(pools, "CancelPrewarm"),
                0,
                one(&|| {
                    v1::CancelPrewarmRequest {
                        name: p(),
                        prewarm_id: "1".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(pools, "ExplainPool"),
                0,
                one(&|| v1::ExplainPoolRequest { name: p() }.encode_to_vec()),
            ),
            (
                path(pools, "ResolvePool"),
                2,
                one(&|| {
                    v1::ResolvePoolRequest { name: p(), request: Some(acquire("x")) }
                        .encode_to_vec()
                }),
            ),
            (
                path(pools, "DrainPool"),
                0,
                one(&|| {
                    v1::DrainPoolRequest { name: p(), undo: true, ..Default::default() }
                        .encode_to_vec()
                }),
            ),
            (
                path(pools, "WatchPools"),
                0,
                one(&|| {
                    v1::WatchPoolsRequest {
                        filter: "template = templates/default".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(pools, "ListPools"),
                0,
                one(&|| {
                    v1::ListPoolsRequest { page_size: 1, ..Default::default() }.encode_to_vec()
                }),
            ),
            (
                path(pools, "DeletePool"),
                0,
                one(&|| {
                    v1::DeletePoolRequest { name: p(), force: true, ..Default::default() }
                        .encode_to_vec()
                }),
            ),
        ],
    ));
    let templates = "hearth.v1.TemplateService";
    let template = || v1::Template {
        name: "templates/t".to_owned(),
        spec: Some(v1::VmSpec {
            vcpu_count: Some(1),
            mem_size_mib: Some(64),
            ..Default::default()
        }),
        ..Default::default()
    };
    let t = || "templates/t".to_owned();
    lives.push((
        "templates",
        vec![
            (
                path(templates, "CreateTemplate"),
                0,
                one(&|| {
                    v1::CreateTemplateRequest {
                        template_id: "t".to_owned(),
                        template: Some(template()),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(templates, "UpdateTemplate"),
                0,
                one(&|| {
                    v1::UpdateTemplateRequest {
                        template: Some(template()),
                        update_mask: Some(FieldMask { paths: vec!["spec".to_owned()] }),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(templates, "ListGenerations"),
                0,
                one(&|| {
                    v1::ListGenerationsRequest { name: t(), ..Default::default() }.encode_to_vec()
                }),
            ),
            (
                path(templates, "RollbackTemplate"),
                0,
                one(&|| {
                    v1::RollbackTemplateRequest { name: t(), generation: 1, ..Default::default() }
                        .encode_to_vec()
                }),
            ),
            (
                path(templates, "ImportTemplate"),
                0,
                one(&|| {
                    v1::ImportTemplateRequest {
                        template_id: "i".to_owned(),
                        source: Some(v1::SnapshotRef {
                            vm: Some(v1::snapshot_ref::Vm::VmId("a".to_owned())),
                            snapshot_id: "s".to_owned(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                path(templates, "DeleteTemplate"),
                0,
                one(&|| {
                    v1::DeleteTemplateRequest { name: t(), ..Default::default() }.encode_to_vec()
                }),
            ),
        ],
    ));
    let data = |bytes: &[u8]| {
        v1::ConnectVmRequest {
            message: Some(v1::connect_vm_request::Message::Data(bytes.to_vec().into())),
        }
        .encode_to_vec()
    };
    let open = || {
        v1::ConnectVmRequest {
            message: Some(v1::connect_vm_request::Message::Open(v1::connect_vm_request::Open {
                name: n(),
                ..Default::default()
            })),
        }
        .encode_to_vec()
    };
    lives.push((
        "streams",
        vec![
            (vm("AcquireVm"), 0, one(&|| acquire("a").encode_to_vec())),
            (vm("ConnectVm"), 0, vec![open(), data(b"ping\n"), data(b"echo x\n")]),
            (
                vm("ReadConsole"),
                0,
                one(&|| {
                    v1::ReadConsoleRequest {
                        name: n(),
                        tail_bytes: 10,
                        follow: true,
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (
                vm("WatchVms"),
                0,
                one(&|| {
                    v1::WatchVmsRequest { filter: "labels.k = v".to_owned(), ..Default::default() }
                        .encode_to_vec()
                }),
            ),
            (
                vm("ExecVm"),
                0,
                one(&|| {
                    v1::ExecVmRequest {
                        name: n(),
                        args: vec!["ls".to_owned()],
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
        ],
    ));
    let nodes = "hearth.v1.NodeService";
    lives.push((
        "node",
        vec![
            (
                path(nodes, "GetNode"),
                0,
                one(&|| v1::GetNodeRequest { with_usage: true }.encode_to_vec()),
            ),
            (
                path(nodes, "SetLogLevel"),
                0,
                one(&|| {
                    v1::SetLogLevelRequest {
                        level: "hearth=debug,warn".to_owned(),
                        ..Default::default()
                    }
                    .encode_to_vec()
                }),
            ),
            (path(nodes, "Drain"), 0, one(&|| v1::DrainRequest::default().encode_to_vec())),
            (vm("AcquireVm"), 1, one(&|| acquire("a").encode_to_vec())),
            (path(nodes, "Undrain"), 0, one(&|| v1::UndrainRequest::default().encode_to_vec())),
        ],
    ));
    lives.push(("empty", METHODS.iter().map(|path| (*path, 0, vec![Vec::new()])).collect()));
    lives.into_iter().map(|(name, life)| (name, calls(life))).collect()
}

const CONFIG: &str = r#"listen = "127.0.0.1:7070"
reload_interval = "5s"
[limits]
max_wait = "30s"
[limits.budget]
max_vms = 100
[providers.memory]
kind = "memory"
[default_pool]
warm_state = "paused"
max_ttl = "1h"
"#;

const TOKEN: &str = "hearth_token";
const AUTH: &str = r#"[tenants.ci]
pools = ["default"]
[identities.ci]
tenant = "ci"
roles = ["tenant"]
tokens = ["HASH"]
certificates = ["spiffe://example/ci"]
uids = [7]
"#;
const AUTH_JWT: &str = r#"[identities.ci]
tenant = "ci"
roles = ["operator"]
subjects = ["s"]
[jwt]
keys = "keys.json"
audience = ["hearth"]
algorithms = ["EdDSA", "ES256"]
leeway = "5m"
"#;
/// The example of RFC 8037, A.2 and A.4: its claims are none of ours.
const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const JWT: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
/// `{"alg":"none"}`, and claims that would do.
const NO_SIGNATURE: &str =
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzIiwiYXVkIjoiaGVhcnRoIiwiZXhwIjozMjUwMzY4MDAwMH0.";
const QMP: &str = concat!(
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n",
    "{\"return\": {}}\r\n",
    "{\"return\": {\"status\": \"running\", \"running\": true}}\r\n",
    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n",
    "{\"return\": {\"status\": \"completed\", \"total-time\": 7, \"ram\": {\"total\": 1, \"transferred\": 1, \"remaining\": 0}}}\r\n",
    "{\"return\": []}\r\n",
    "{\"return\": {}}\r\n",
);
