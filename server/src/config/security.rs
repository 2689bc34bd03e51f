//! Who is let in, and over what: what is said of it, and what must hold.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;

/// How connections are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and those above it, in PEM; unset: nothing is encrypted.
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key: Option<PathBuf>,
    /// Certificates that those of clients must come from, in PEM; unset: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Clients without a certificate are turned away at once, whatever token they have.
    pub require_client_certificate: bool,
}

/// Who callers are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The file that says who there is; unset: everybody is an operator.
    pub file: Option<PathBuf>,
}

impl Config {
    pub(super) fn check_security(&self) -> Result<(), (String, String)> {
        let tls = &self.tls;
        let wrong = |key: &str, why: &str| Err((key.to_owned(), why.to_owned()));
        match (&tls.certificate, &tls.key, &tls.client_ca) {
            (Some(_), None, _) => wrong("tls.certificate", "it needs tls.key"),
            (None, Some(_), _) => wrong("tls.key", "it needs tls.certificate"),
            (None, None, Some(_)) => wrong("tls.client_ca", "it needs tls.certificate"),
            (_, _, None) if tls.require_client_certificate => {
                wrong("tls.require_client_certificate", "it needs tls.client_ca")
            }
            _ => Ok(()),
        }
    }

    /// Whether strangers could come in from elsewhere, or listen in.
    ///
    /// # Errors
    /// The key that opens the door, and how it is closed.
    pub(crate) fn check_exposure(&self) -> Result<(), (String, String)> {
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        let lacks = match (&self.tls.certificate, &self.auth.file) {
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(_)) => "what is said there is not encrypted: set tls.certificate",
            (Some(_), None) => "everybody there would be an operator: set auth.file",
            (None, None) => {
                "everybody there would be an operator, and nothing is encrypted: \
                 set tls.certificate and auth.file"
            }
        };
        let why = format!(
            "{} is reached from other machines, and {lacks}; or say --insecure",
            self.listen
        );
        Err(("listen".to_owned(), why))
    }
}
