//! Authorities, certificates, and keys that sign JWTs: made anew for each run.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use serde_json::Value;

use crate::Answer;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) type Identity = (Vec<u8>, Vec<u8>);

impl Authority {
    pub(crate) fn new() -> Answer<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate of `localhost`, for a server.
    pub(crate) fn of_server(&self) -> Answer<Identity> {
        let names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        self.certificate(names, (2020, 2120))
    }

    /// A certificate of `name`, for a client, that holds for these years.
    pub(crate) fn of_client(&self, name: &str, years: (i32, i32)) -> Answer<Identity> {
        self.certificate(vec![SanType::URI(name.try_into()?)], years)
    }

    fn certificate(&self, names: Vec<SanType>, years: (i32, i32)) -> Answer<Identity> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = names;
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok((certificate.pem().into_bytes(), key.serialize_pem().into_bytes()))
    }
}

/// Signs JWTs.
pub(crate) struct Signer {
    key: EncodingKey,
    pub(crate) public: String,
}

impl Signer {
    pub(crate) fn new() -> Answer<Self> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
        Ok(Self { key, public: pair.public_key_pem() })
    }

    pub(crate) fn sign(&self, claims: &Value) -> Answer<String> {
        Ok(encode(&Header::new(Algorithm::ES256), claims, &self.key)?)
    }
}
