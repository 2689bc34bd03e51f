//! TLS: what the server shows, whom it asks for a certificate, and how both are replaced.
//!
//! Version 1.3 only, over one provider of cryptography. Sessions are not resumed: a certificate is
//! checked in every handshake. Files that changed hold for handshakes from then on; a connection whose
//! certificate was checked with other authorities than now is closed when it is quiet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use parking_lot::RwLock;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::config;
use crate::reload::{self, Digest, Source};

/// What is spoken inside.
const PROTOCOL: &[u8] = b"h2";

/// What handshakes are made with, now.
pub(crate) struct Tls {
    acceptor: RwLock<TlsAcceptor>,
    /// Names the authorities that clients' certificates must come from.
    authorities: AtomicU64,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

struct Loaded {
    acceptor: TlsAcceptor,
    authorities: u64,
}

impl Tls {
    /// As `settings` says; `None` where nothing is encrypted. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn open(settings: &config::Tls) -> Result<Option<Arc<Self>>, String> {
        let Some((loaded, _)) = load(settings).transpose()? else { return Ok(None) };
        let authorities = AtomicU64::new(loaded.authorities);
        Ok(Some(Arc::new(Self { acceptor: RwLock::new(loaded.acceptor), authorities })))
    }

    /// What the next handshake is made with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().clone()
    }

    /// Names the authorities that certificates are checked with now.
    pub(crate) fn authorities(&self) -> u64 {
        self.authorities.load(Ordering::Relaxed)
    }

    /// Reads the files anew, every `period`, as a task of `tasks`.
    pub(crate) fn follow(
        self: &Arc<Self>,
        settings: &config::Tls,
        period: Duration,
        tasks: &TaskGroup,
    ) {
        let (tls, settings) = (Arc::clone(self), settings.clone());
        let load = move || load(&settings).unwrap_or_else(|| Err("there is none".to_owned()));
        let apply = move |loaded: Loaded| {
            *tls.acceptor.write() = loaded.acceptor;
            tls.authorities.store(loaded.authorities, Ordering::Relaxed);
        };
        reload::follow("certificates", period, tasks, load, apply);
    }
}

/// The names in a certificate that was checked: URIs, as SPIFFE has them, and domain names.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let (uris, names) = (certificate.valid_uri_names(), certificate.valid_dns_names());
    uris.chain(names).map(str::to_owned).collect()
}

fn load(settings: &config::Tls) -> Option<Result<(Loaded, Digest), String>> {
    let (certificate, key) = (settings.certificate.as_ref()?, settings.key.as_ref()?);
    Some(read(certificate, key, settings))
}

fn read(
    certificate: &Path,
    key: &Path,
    settings: &config::Tls,
) -> Result<(Loaded, Digest), String> {
    let mut source = Source::default();
    let mut text = |key: &str, path: &Path| {
        source.read(path).map_err(|error| format!("tls.{key}: {}: {error}", path.display()))
    };
    let chain = certificates("certificate", &text("certificate", certificate)?)?;
    let private = PrivateKeyDer::from_pem_slice(&Zeroizing::new(text("key", key)?))
        .map_err(|error| format!("tls.key: {error}"))?;
    let client_ca = settings.client_ca.as_ref().map(|path| text("client_ca", path)).transpose()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match &client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(text) => verifier(text, settings.require_client_certificate, &provider)?,
    };
    let built = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map(|builder| builder.with_client_cert_verifier(verifier));
    let built = built.and_then(|builder| builder.with_single_cert(chain, private));
    let mut server = built.map_err(|error| format!("tls.certificate: {error}"))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let authorities = client_ca.map_or(0, |text| number_of(&text));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    Ok((Loaded { acceptor, authorities }, source.digest()))
}

fn number_of(text: &[u8]) -> u64 {
    use sha2::Digest as _;
    let hash: [u8; 32] = sha2::Sha256::digest(text).into();
    hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

fn verifier(
    text: &[u8],
    is_required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("tls.client_ca: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", text)? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| wrong(&error))
}

fn certificates(key: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let read = read.map_err(|error| format!("tls.{key}: {error}"))?;
    match read.is_empty() {
        true => Err(format!("tls.{key}: there is no certificate in it")),
        false => Ok(read),
    }
}
