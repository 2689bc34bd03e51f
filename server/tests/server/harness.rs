//! A server for one test, and what tests say of answers.

use std::time::Duration;

use hearth_proto::{HearthClient, StatusDetails, v1};
use hearth_server::config::{Config, ProviderConfig, ProviderKind};
use hearth_server::serve::Hearth;
use hearth_server::telemetry::Levels;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) hearth: Hearth,
    pub(crate) client: HearthClient,
    dir: TempDir,
}

/// A server with `templates/default` and `pools/default` (depth 4), which is full.
pub(crate) async fn server() -> Server {
    let server = server_with(|_| ()).await;
    server.until_warm("default", 4).await;
    server
}

/// A server whose configuration was changed; what is not there yet is not waited for.
pub(crate) async fn server_with(change: impl FnOnce(&mut Config)) -> Server {
    let server = starting_server(change).await;
    server.hearth.begin(false).await.unwrap();
    server
}

/// A server that has not begun: its ports are open, and its recovery is still to come.
pub(crate) async fn starting_server(change: impl FnOnce(&mut Config)) -> Server {
    starting_server_in(tempfile::tempdir().unwrap(), change).await
}

/// The same, on what is in `state` of a directory.
pub(crate) async fn starting_server_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        state: Some(dir.path().join("state")),
        runtime: Some(dir.path().join("run")),
        ..Config::default()
    };
    config.providers.insert("memory".to_owned(), ProviderConfig::of(ProviderKind::Memory));
    change(&mut config);
    let hearth = Hearth::open(config, Levels::detached()).await.unwrap();
    let client = HearthClient::connect(&hearth.grpc_address().to_string()).await.unwrap();
    Server { hearth, client, dir }
}

impl Server {
    /// Where its state and its names are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Ends it; nothing may be left running.
    pub(crate) async fn stop(mut self) {
        self.hearth.end(true).await;
    }

    /// Ends it as a restart does.
    pub(crate) async fn stop_leaving_vms(mut self) {
        self.hearth.end(false).await;
    }

    /// Ends it as a restart does, and starts it again on what it had.
    pub(crate) async fn restarted(mut self) -> Self {
        self.hearth.end(false).await;
        let Self { hearth, client, dir } = self;
        // The journal is held until the last of these is gone.
        drop((hearth, client));
        let server = starting_server_in(dir, |_| ()).await;
        server.hearth.begin(false).await.unwrap();
        server
    }

    pub(crate) async fn pool(&self, id: &str) -> v1::Pool {
        let request = v1::GetPoolRequest { name: format!("pools/{id}") };
        self.client.pools.clone().get_pool(request).await.unwrap().into_inner()
    }

    pub(crate) async fn status(&self, id: &str) -> v1::pool::Status {
        self.pool(id).await.status.unwrap()
    }

    pub(crate) async fn until_warm(&self, id: &str, count: i32) {
        eventually("the pool is full", async || self.status(id).await.warm == count).await;
    }

    /// Makes a pool of the default template.
    pub(crate) async fn make_pool(&self, id: &str, depth: i32, change: impl FnOnce(&mut v1::Pool)) {
        let mut pool = v1::Pool {
            template: "templates/default".to_owned(),
            sizing: Some(fixed(depth)),
            ..Default::default()
        };
        change(&mut pool);
        let request = v1::CreatePoolRequest {
            pool_id: id.to_owned(),
            pool: Some(pool),
            ..Default::default()
        };
        self.client.pools.clone().create_pool(request).await.unwrap();
    }

    pub(crate) async fn explain(&self, id: &str) -> v1::ExplainPoolResponse {
        let request = v1::ExplainPoolRequest { name: format!("pools/{id}") };
        self.client.pools.clone().explain_pool(request).await.unwrap().into_inner()
    }

    pub(crate) async fn acquire(
        &self,
        request: v1::AcquireVmRequest,
    ) -> Result<v1::AcquireVmResponse, Status> {
        self.client.acquire(request, PATIENCE).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<v1::Vm, Status> {
        let request = v1::GetVmRequest { name: name.to_owned() };
        self.client.vms.clone().get_vm(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn list(&self, filter: &str) -> Vec<v1::Vm> {
        let filter = filter.to_owned();
        let request = v1::ListVmsRequest { filter, page_size: 1000, ..Default::default() };
        self.client.vms.clone().list_vms(request).await.unwrap().into_inner().vms
    }

    /// One page of the admin port: its status and its text.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.hearth.admin_address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

pub(crate) fn fixed(depth: i32) -> v1::Sizing {
    v1::Sizing { mode: Some(v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth })) }
}

pub(crate) fn promised(miss_ratio: f64, min: i32, max: i32) -> v1::Sizing {
    let promised = v1::sizing::Promised { miss_ratio, min, max };
    v1::Sizing { mode: Some(v1::sizing::Mode::Promised(promised)) }
}

/// An acquire from `pools/{pool}`.
pub(crate) fn from(pool: &str) -> v1::AcquireVmRequest {
    v1::AcquireVmRequest { pool: format!("pools/{pool}"), ..Default::default() }
}

pub(crate) fn named(vm_id: &str) -> v1::AcquireVmRequest {
    v1::AcquireVmRequest { vm_id: vm_id.to_owned(), ..from("default") }
}

pub(crate) fn ttl(seconds: i64) -> Option<v1::acquire_vm_request::Expiration> {
    let ttl = prost_types::Duration { seconds, nanos: 0 };
    Some(v1::acquire_vm_request::Expiration::Ttl(ttl))
}

/// Polls until `holds`; fails after a generous while.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it never came about that {what}"));
}

/// The reason of a refusal, whose code must be `code`.
pub(crate) fn reason(status: &Status, code: Code) -> String {
    assert_eq!(status.code(), code, "{status:?}");
    StatusDetails::of(status).reason.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"))
}

/// The fields that a refusal names.
pub(crate) fn violated(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|it| it.field).collect()
}
