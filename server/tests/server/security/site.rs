//! A server with two tenants, an operator and a viewer, and what there is of theirs.

use std::path::PathBuf;
use std::time::Duration;

use hearth_proto::google::longrunning::Operation;
use hearth_proto::{ClientOptions, Credentials, HearthClient, v1};
use hearth_server::auth::token::TokenHash;
use hearth_server::config::Config;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::harness::{Server, from, starting_server};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Says nothing of itself.
    Nobody,
    /// Has a token that is nobody's.
    Stranger,
    /// Of the tenant `alice`.
    Alice,
    /// Of the tenant [`BOBS`].
    Bob,
    /// An operator.
    Root,
    /// A viewer.
    Eyes,
}

/// Bob's tenant: a word that is in everything that is his, and nowhere else.
pub(crate) const BOBS: &str = "bobs-own-tenant";

impl Who {
    pub(crate) const EVERYBODY: [Self; 6] =
        [Self::Nobody, Self::Stranger, Self::Alice, Self::Bob, Self::Root, Self::Eyes];

    pub(crate) const fn token(self) -> Option<&'static str> {
        match self {
            Self::Nobody => None,
            Self::Stranger => Some("stranger"),
            Self::Alice => Some("alice"),
            Self::Bob => Some("bob"),
            Self::Root => Some("root"),
            Self::Eyes => Some("eyes"),
        }
    }
}

/// What the server knows of them: the pool `default` is everybody's, `hidden` nobody's.
pub(crate) fn auth_file() -> String {
    let mut text = format!(
        "[tenants.alice]\npools = [\"default\"]\n[tenants.{BOBS}]\npools = [\"default\"]\n"
    );
    for (name, tenant, role) in [
        ("alice", "alice", "tenant"),
        ("bob", BOBS, "tenant"),
        ("root", "ops", "operator"),
        ("eyes", "watch", "viewer"),
    ] {
        let hash = TokenHash::of(name.as_bytes());
        text += &format!(
            "[identities.{name}]\ntenant = \"{tenant}\"\nroles = [\"{role}\"]\ntokens = [\"{hash}\"]\n"
        );
    }
    text
}

pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) file: PathBuf,
    _dir: TempDir,
}

impl Site {
    /// A server that knows them, with a full pool and one that nobody was granted.
    pub(crate) async fn open() -> Self {
        Self::with(|_| ()).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.toml");
        std::fs::write(&file, auth_file()).unwrap();
        let auth = file.clone();
        let mut server = starting_server(move |config| {
            config.auth.file = Some(auth);
            config.reload_interval = Duration::from_millis(20);
            change(config);
        })
        .await;
        server.hearth.begin(false).await.unwrap();
        server.client = client(&server, Who::Root).await;
        server.until_warm("default", 4).await;
        server.make_pool("hidden", 0, |_| ()).await;
        Self { server, file, _dir: dir }
    }

    /// Where the server keeps everything.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.server.dir()
    }

    pub(crate) async fn client(&self, who: Who) -> HearthClient {
        client(&self.server, who).await
    }

    pub(crate) async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.server.hearth.grpc_address());
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }
}

/// A connection of `who`.
pub(crate) async fn client(server: &Server, who: Who) -> HearthClient {
    let address = server.hearth.grpc_address().to_string();
    let token = who.token().map(|token| token.to_owned().into());
    let credentials = Credentials { token, ..Credentials::default() };
    HearthClient::connect_as(&address, ClientOptions::default(), &credentials).await.unwrap()
}

/// A VM of whoever has `client`.
pub(crate) async fn make_vm(client: &HearthClient) -> v1::Vm {
    let acquired = client.acquire(from("default"), PATIENCE).await.unwrap();
    acquired.vm.unwrap()
}

/// A snapshot of a VM of its own.
pub(crate) async fn make_snapshot(client: &HearthClient) -> v1::Snapshot {
    let name = make_vm(client).await.name;
    let request = v1::SnapshotVmRequest { name, snapshot_id: "s".to_owned(), ..Default::default() };
    client.vms.clone().snapshot_vm(request).await.unwrap().into_inner()
}

/// A VM of its own, what it was frozen into, and the operation that did it.
pub(crate) async fn make_artifact(client: &HearthClient) -> (v1::Vm, v1::Artifact, Operation) {
    let vm = make_vm(client).await;
    let request = v1::FreezeVmRequest { name: vm.name.clone(), ..Default::default() };
    let begun = client.vms.clone().freeze_vm(request).await.unwrap().into_inner();
    let done = client.wait_operation(&begun.name, PATIENCE).await.unwrap();
    let artifact = hearth_proto::client::operation_response(&done).unwrap();
    (vm, artifact, done)
}

impl Site {
    /// Takes every VM from whoever has it.
    pub(crate) async fn release_all(&self) {
        for vm in self.server.list("").await {
            if !vm.tenant.is_empty() {
                self.server.client.release(&vm).await.unwrap();
            }
        }
    }

    /// Takes every VM from one tenant.
    pub(crate) async fn release_all_of(&self, tenant: &str) {
        for vm in self.server.list(&format!("tenant = {tenant}")).await {
            self.server.client.release(&vm).await.unwrap();
        }
    }
}
