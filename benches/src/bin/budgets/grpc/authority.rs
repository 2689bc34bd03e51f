//! Certificates, made anew for each run.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

/// Who issues them.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, in PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// # Errors
    /// When no key can be made.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate, in PEM.
    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of `name`.
    ///
    /// # Errors
    /// When no key can be made.
    pub(super) fn issue(&self, name: SanType) -> Result<Issued, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}
