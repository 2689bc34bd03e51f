//! The ways in: TLS with and without certificates of clients', and the Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_proto::{ClientOptions, Credentials, HearthClient, v1};
use hearth_server::config::Config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tonic::{Code, Status};

use super::site::{Who, auth_file};
use crate::harness::{Server, eventually, reason, starting_server};

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate with these names, and its key.
    fn certificate(&self, names: &[SanType], years: (i32, i32)) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

const GOOD: (i32, i32) = (2020, 2120);

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn localhost() -> [SanType; 2] {
    [SanType::DnsName("localhost".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())]
}

struct Site {
    server: Server,
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Site {
    async fn open(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (certificate, key) = authority.certificate(&localhost(), GOOD);
        let auth = auth_file()
            + "[identities.carol]\ntenant = \"alice\"\nroles = [\"tenant\"]\n\
               certificates = [\"spiffe://test/carol\"]\n\
               [identities.dave]\ntenant = \"ops\"\nroles = [\"operator\"]\n\
               certificates = [\"spiffe://test/dave\"]\n";
        let server = starting_server(|config| {
            config.auth.file = Some(write("auth.toml", auth.as_bytes()));
            config.tls.certificate = Some(write("server.pem", &certificate));
            config.tls.key = Some(write("server.key", &key));
            config.tls.client_ca = Some(write("clients.pem", &authority.pem()));
            config.reload_interval = Duration::from_millis(20);
            change(config, dir.path());
        })
        .await;
        server.hearth.begin(false).await.unwrap();
        Self { server, dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn credentials(&self) -> Credentials {
        Credentials { ca: Some(self.authority.pem()), ..Credentials::default() }
    }

    fn with(&self, (certificate, key): (Vec<u8>, Vec<u8>)) -> Credentials {
        Credentials { identity: Some((certificate, key.into())), ..self.credentials() }
    }

    async fn connect(&self, credentials: &Credentials) -> Result<HearthClient, String> {
        let address = format!("https://{}", self.server.hearth.grpc_address());
        let connected =
            HearthClient::connect_as(&address, ClientOptions::default(), credentials).await;
        connected.map_err(|error| format!("{error:?}"))
    }

    /// Connects and asks something; what fails on the way is an error, too.
    async fn ask(&self, credentials: &Credentials) -> Result<v1::Node, Status> {
        match self.connect(credentials).await {
            Ok(client) => node(&client).await,
            Err(error) => Err(Status::unavailable(error)),
        }
    }
}

async fn node(client: &HearthClient) -> Result<v1::Node, Status> {
    let asked = client.node.clone().get_node(v1::GetNodeRequest::default()).await;
    asked.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_certificate_says_who_calls_and_a_token_goes_before_it() {
    let site = Site::open(|_, _| ()).await;
    let carol = site.authority.certificate(&[uri("spiffe://test/carol")], GOOD);
    let seen = site.ask(&site.with(carol.clone())).await.unwrap();
    assert!(seen.providers.is_empty(), "as a tenant sees it");
    let dave = site.authority.certificate(&[uri("spiffe://test/dave")], GOOD);
    assert!(!site.ask(&site.with(dave)).await.unwrap().providers.is_empty(), "an operator");
    let token = Some("root".to_owned().into());
    let both = Credentials { token, ..site.with(carol.clone()) };
    assert!(!site.ask(&both).await.unwrap().providers.is_empty(), "as the token says");
    let wrong = Credentials { token: Some("wrong".to_owned().into()), ..site.with(carol) };
    let refused = site.ask(&wrong).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unauthenticated), "UNAUTHENTICATED");
    let nobodys = site.authority.certificate(&[uri("spiffe://test/other")], GOOD);
    let refused = site.ask(&site.with(nobodys)).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unauthenticated), "UNAUTHENTICATED");
    let refused = site.ask(&site.credentials()).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unauthenticated), "UNAUTHENTICATED");
    let token = Some("root".to_owned().into());
    assert!(site.ask(&Credentials { token, ..site.credentials() }).await.is_ok());
    site.server.stop().await;
}

#[tokio::test]
async fn certificates_that_do_not_hold_are_not_let_in() {
    let site = Site::open(|config, _| config.tls.require_client_certificate = true).await;
    let names = [uri("spiffe://test/dave")];
    assert!(site.ask(&site.with(site.authority.certificate(&names, GOOD))).await.is_ok());
    let foreign = Authority::new().certificate(&names, GOOD);
    let (_, key) = site.authority.certificate(&names, GOOD);
    let (certificate, _) = site.authority.certificate(&names, GOOD);
    for (what, identity) in [
        ("expired", site.authority.certificate(&names, (2000, 2001))),
        ("not valid yet", site.authority.certificate(&names, (2100, 2120))),
        ("another authority's", foreign),
        ("another key's", (certificate, key)),
    ] {
        let refused = site.ask(&site.with(identity)).await;
        assert!(
            refused.as_ref().is_err_and(|it| it.code() != Code::Unauthenticated),
            "{what}: {refused:?}"
        );
    }
    let token = Some("root".to_owned().into());
    let without = Credentials { token, ..site.credentials() };
    assert!(site.ask(&without).await.is_err(), "a token does not do");
    // A server of another authority is not believed.
    let ca = Some(Authority::new().pem());
    let names = site.authority.certificate(&names, GOOD);
    assert!(site.connect(&Credentials { ca, ..site.with(names) }).await.is_err());
    site.server.stop().await;
}

#[tokio::test]
async fn what_is_not_encrypted_is_not_heard() {
    let site = Site::open(|_, _| ()).await;
    let address = format!("http://{}", site.server.hearth.grpc_address());
    let connected = HearthClient::connect(&address).await;
    let heard = match connected {
        Ok(client) => node(&client).await.map_err(|status| status.code()),
        Err(_) => Err(Code::Unavailable),
    };
    assert!(matches!(heard, Err(code) if code != Code::Unauthenticated), "{heard:?}");
    site.server.stop().await;
}

#[tokio::test]
async fn certificates_are_replaced_while_connections_last() {
    let site = Site::open(|_, _| ()).await;
    let dave = site.authority.certificate(&[uri("spiffe://test/dave")], GOOD);
    let old = site.connect(&site.with(dave)).await.unwrap();
    node(&old).await.unwrap();
    // Another certificate of the server's: a new connection sees it, the old one goes on.
    let next = Authority::new();
    let (certificate, key) = next.certificate(&localhost(), GOOD);
    std::fs::write(site.path("server.pem"), &certificate).unwrap();
    std::fs::write(site.path("server.key"), &key).unwrap();
    let token = Some("root".to_owned().into());
    let trusts = Credentials { ca: Some(next.pem()), token, ..Credentials::default() };
    eventually("the new certificate is shown", async || site.ask(&trusts).await.is_ok()).await;
    node(&old).await.unwrap();
    assert!(site.connect(&site.credentials()).await.is_err(), "the old one is shown no more");
    site.server.stop().await;
}

#[tokio::test]
async fn with_other_authorities_those_of_the_former_ones_are_out() {
    // Connections are looked at four times in this.
    let site = Site::open(|config, _| config.grpc.max_idle = Duration::from_secs(2)).await;
    let dave = site.authority.certificate(&[uri("spiffe://test/dave")], GOOD);
    let credentials = site.with(dave);
    let old = site.connect(&credentials).await.unwrap();
    node(&old).await.unwrap();
    std::fs::write(site.path("clients.pem"), Authority::new().pem()).unwrap();
    eventually("it is refused", async || site.ask(&credentials).await.is_err()).await;
    // One that was let in before is closed, though it is never idle; it cannot come back.
    eventually("the old one is closed", async || node(&old).await.is_err()).await;
    assert!(node(&old).await.is_err());
    site.server.stop().await;
}

#[tokio::test]
async fn the_unix_socket_is_for_who_runs_the_server() {
    let site = Site::open(|config, dir| config.socket = Some(dir.join("hearth.sock"))).await;
    let address = format!("unix:{}", site.path("hearth.sock").display());
    let local = HearthClient::connect(&address).await.unwrap();
    assert!(!node(&local).await.unwrap().providers.is_empty(), "an operator");
    let token = Who::Alice.token().map(|token| token.to_owned().into());
    let alice = Credentials { token, ..Credentials::default() };
    let alice = HearthClient::connect_as(&address, ClientOptions::default(), &alice).await.unwrap();
    assert!(node(&alice).await.unwrap().providers.is_empty(), "who the token says");
    site.server.stop().await;
}
