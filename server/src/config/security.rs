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

/// What is kept of who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Whether it is kept; unset: where callers are told apart.
    pub enabled: Option<bool>,
    /// Where; unset: `audit` in the state directory.
    pub dir: Option<PathBuf>,
    /// Bytes of one file.
    pub max_file_bytes: u64,
    /// Files.
    pub max_files: usize,
    /// Lines that wait to be written.
    pub max_queued: usize,
}

impl Default for Audit {
    fn default() -> Self {
        let (max_file_bytes, max_files, max_queued) = (16 << 20, 8, 65_536);
        Self { enabled: None, dir: None, max_file_bytes, max_files, max_queued }
    }
}

impl Config {
    /// Whether it is written down who did what.
    pub(crate) fn keeps_audit(&self) -> bool {
        self.audit.enabled.unwrap_or(self.auth.file.is_some())
    }

    pub(super) fn check_security(&self) -> Result<(), (String, String)> {
        let tls = &self.tls;
        let wrong = |key: &str, why: &str| Err((key.to_owned(), why.to_owned()));
        let audit = &self.audit;
        for (key, holds) in [
            ("audit.max_file_bytes", audit.max_file_bytes > 0),
            ("audit.max_files", audit.max_files > 0),
            ("audit.max_queued", audit.max_queued > 0),
        ] {
            if !holds {
                return wrong(key, "it must be positive");
            }
        }
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
