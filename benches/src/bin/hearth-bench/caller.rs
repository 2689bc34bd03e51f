//! Who calls, by the flags and variables that `hearth` has for it.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use hearth_proto::Credentials;

/// Who calls, and whom it trusts.
#[derive(Clone, Debug, Args)]
pub(crate) struct Caller {
    /// Authorities that the server's certificate must come from, in PEM.
    #[arg(long, env = "HEARTH_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate that says who calls, in PEM.
    #[arg(long, env = "HEARTH_CERTIFICATE", value_name = "FILE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, env = "HEARTH_KEY", value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The name that the server's certificate must have [default: the host of the address].
    #[arg(long, env = "HEARTH_SERVER_NAME", value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// A file with the token that says who calls; no floor is told of it. HEARTH_TOKEN may have the token itself.
    #[arg(long, env = "HEARTH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Caller {
    /// Reads what the files have.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn credentials(&self) -> Result<Credentials, Box<dyn Error>> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?.into())),
            _ => None,
        };
        let token = match &self.token_file {
            Some(file) => Some(String::from_utf8(read(file)?)?.trim().to_owned().into()),
            None => std::env::var("HEARTH_TOKEN").ok().map(Into::into),
        };
        let ca = self.ca.as_deref().map(read).transpose()?;
        Ok(Credentials { token, ca, identity, server_name: self.server_name.clone() })
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?)
}
