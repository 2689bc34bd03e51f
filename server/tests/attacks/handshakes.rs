//! Attacks on the handshake.

use std::sync::Arc;

use futures_util::future::join_all;
use hearth_proto::{ClientOptions, Credentials, HearthClient, v1};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tonic::Code;

use crate::Answer;
use crate::attacks::{on_threads, until_all_closed};
use crate::frames::{PREFACE, connect};
use crate::pki::{Authority, Identity};
use crate::target::Site;

/// The beginning of a client's first message.
const HALF_A_HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];

pub(crate) fn half_open(site: &Site) -> Answer<String> {
    on_threads(until_all_closed(site.encrypted.address, 1000, &HALF_A_HELLO))
}

pub(crate) fn garbage(site: &Site) -> Answer<String> {
    on_threads(async {
        let to = site.encrypted.address;
        until_all_closed(to, 500, PREFACE).await?;
        until_all_closed(to, 500, &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0]).await?;
        Ok("1000 connections in plaintext and SSL 2, all closed".to_owned())
    })
}

/// Whether a handshake of only this version comes about.
async fn shakes(site: &Site, version: &'static SupportedProtocolVersion) -> Answer<bool> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&site.authority.pem())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = connect(site.encrypted.address, 2).await?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok())
}

pub(crate) fn downgrade(site: &Site) -> Answer<String> {
    on_threads(async {
        if !shakes(site, &TLS13).await? {
            return Err("not even TLS 1.3 is spoken".into());
        }
        for _ in 0..100 {
            if shakes(site, &TLS12).await? {
                return Err("TLS 1.2 is spoken".into());
            }
        }
        Ok("100 handshakes of TLS 1.2, none came about".to_owned())
    })
}

/// Whether somebody with this certificate is let in and known.
async fn is_known(site: &Site, (certificate, key): Identity) -> bool {
    let credentials = Credentials {
        ca: Some(site.authority.pem()),
        identity: Some((certificate, key.into())),
        ..Credentials::default()
    };
    let address = format!("https://{}", site.encrypted.address);
    let client = HearthClient::connect_as(&address, ClientOptions::default(), &credentials).await;
    let Ok(client) = client else { return false };
    let asked = client.node.clone().get_node(v1::GetNodeRequest::default()).await;
    // A certificate that did not hold must not get as far as a status of ours.
    asked.map_or_else(|status| status.code() == Code::Unauthenticated, |_| true)
}

pub(crate) fn certificates(site: &Site) -> Answer<String> {
    on_threads(async {
        let (name, good) = ("spiffe://test/alice", (2020, 2120));
        if !is_known(site, site.authority.of_client(name, good)?).await {
            return Err("a good certificate is not let in".into());
        }
        let foreign = Authority::new()?;
        let ((certificate, _), (_, key)) =
            (site.authority.of_client(name, good)?, site.authority.of_client(name, good)?);
        let mut bad = vec![(certificate, key)];
        for _ in 0..50 {
            bad.push(site.authority.of_client(name, (2000, 2001))?);
            bad.push(site.authority.of_client(name, (2100, 2101))?);
            bad.push(foreign.of_client(name, good)?);
        }
        let count = bad.len();
        let known = join_all(bad.into_iter().map(|identity| is_known(site, identity))).await;
        match known.iter().filter(|known| **known).count() {
            0 => Ok(format!("{count} expired, early, foreign and stolen ones, none let in")),
            some => Err(format!("{some} of {count} were let in").into()),
        }
    })
}
