//! What every client command has: a connection, the form of the output, and how long it may take.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hearth_proto::{ClientOptions, Credentials, HearthClient};
use hearth_providers::env::{Env as _, SystemEnv};
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::output::Format;
use super::text::parse_duration;

/// Resources asked for at once; the most that the API gives.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// Flags of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where the server is: host:port, http://host:port, https://host:port or unix:/path.
    #[arg(
        long,
        global = true,
        env = "HEARTH_ADDRESS",
        default_value = "http://127.0.0.1:7070",
        value_name = "ADDRESS",
        help_heading = "Client options"
    )]
    address: String,
    /// Authorities that the server's certificate must come from, in PEM.
    #[arg(
        long,
        global = true,
        env = "HEARTH_CA",
        value_name = "FILE",
        help_heading = "Client options"
    )]
    ca: Option<PathBuf>,
    /// A certificate that says who calls, in PEM.
    #[arg(
        long,
        global = true,
        env = "HEARTH_CERTIFICATE",
        requires = "key",
        value_name = "FILE",
        help_heading = "Client options"
    )]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(
        long,
        global = true,
        env = "HEARTH_KEY",
        requires = "certificate",
        value_name = "FILE",
        help_heading = "Client options"
    )]
    key: Option<PathBuf>,
    /// The name that the server's certificate must have [default: the host of the address].
    #[arg(
        long,
        global = true,
        env = "HEARTH_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Client options"
    )]
    server_name: Option<String>,
    /// A file with the token that says who calls; HEARTH_TOKEN may have the token itself.
    #[arg(
        long,
        global = true,
        env = "HEARTH_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Client options"
    )]
    token_file: Option<PathBuf>,
    /// How to print answers.
    #[arg(
        long,
        short = 'o',
        global = true,
        env = "HEARTH_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Client options"
    )]
    pub(crate) output: Format,
    /// Give up after this long [default: 2m; 10m for what waits for an operation].
    #[arg(
        long,
        global = true,
        env = "HEARTH_TIMEOUT",
        value_parser = parse_duration,
        value_name = "DURATION",
        help_heading = "Client options"
    )]
    timeout: Option<Duration>,
}

/// A connected command.
pub(crate) struct Context {
    /// The server.
    pub(crate) client: HearthClient,
    /// How to print.
    pub(crate) format: Format,
    /// How long one call may take.
    pub(crate) timeout: Duration,
    /// How long a wait for an operation or for a state may take.
    pub(crate) wait: Duration,
    /// Where the user stands: relative paths are meant from here.
    pub(crate) directory: PathBuf,
}

impl Context {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Usage`] when the address is none.
    pub(crate) async fn connect(global: Global) -> Result<Self> {
        Self::connect_or_not(global, true).await
    }

    /// Connects with the first call, which then says that nobody answers.
    ///
    /// # Errors
    /// [`Error::Usage`] when the address is none.
    pub(crate) async fn connect_later(global: Global) -> Result<Self> {
        Self::connect_or_not(global, false).await
    }

    async fn connect_or_not(global: Global, now: bool) -> Result<Self> {
        let timeout = global.timeout.unwrap_or(Duration::from_secs(120));
        let wait = global.timeout.unwrap_or(Duration::from_secs(600));
        let options = ClientOptions {
            connect_timeout: timeout.min(Duration::from_secs(5)),
            request_timeout: timeout,
            ..ClientOptions::default()
        };
        // As the server itself prints it.
        let credentials = global.credentials()?;
        let address = match global.address.strip_prefix("grpc://") {
            Some(plain) => plain.to_owned(),
            None => global.address,
        };
        if credentials.token.is_some() && !keeps_secrets(&address, &credentials) {
            return Err(Error::Usage(format!(
                "--address {address}: a token would be sent there as it is: give --ca and https://"
            )));
        }
        let later = HearthClient::connect_lazy_as(&address, options, &credentials);
        let later = later
            .map_err(|it| Error::Usage(format!("--address {address}: {}", root_cause(&it))))?;
        let client = match now {
            true => HearthClient::connect_as(&address, options, &credentials)
                .await
                .map_err(|error| Error::Unreachable { address, cause: root_cause(&error) })?,
            false => later,
        };
        let directory = std::env::current_dir()
            .map_err(|error| Error::Failed(format!("the current directory: {error}")))?;
        Ok(Self { client, format: global.output, timeout, wait, directory })
    }
}

impl Global {
    /// Who calls, as flags, files and the environment have it.
    fn credentials(&self) -> Result<Credentials> {
        let read = |flag: &str, path: &PathBuf| {
            std::fs::read(path)
                .map(Zeroizing::new)
                .map_err(|error| Error::Usage(format!("{flag} {}: {error}", path.display())))
        };
        let ca = self.ca.as_ref().map(|path| read("--ca", path)).transpose()?;
        let ca = ca.map(|text| text.to_vec());
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some((read("--certificate", certificate)?.to_vec(), read("--key", key)?))
            }
            _ => None,
        };
        // Not a flag: everybody can see those of a program that runs.
        let token = match &self.token_file {
            Some(path) => {
                let text = read("--token-file", path)?;
                let text = std::str::from_utf8(&text);
                let wrong = |_| Error::Usage("--token-file: it is no text".to_owned());
                Some(Zeroizing::new(text.map_err(wrong)?.to_owned()))
            }
            None => std::env::var("HEARTH_TOKEN").ok().map(Zeroizing::new),
        };
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned()));
        let token = token.filter(|token| !token.is_empty());
        Ok(Credentials { token, ca, identity, server_name: self.server_name.clone() })
    }
}

/// What is sent to `address` is read by the server alone.
fn keeps_secrets(address: &str, credentials: &Credentials) -> bool {
    if address.starts_with("unix:") || address.starts_with("https://") {
        return true;
    }
    let Some(rest) =
        address.strip_prefix("http://").or((!address.contains("://")).then_some(address))
    else {
        return false;
    };
    if credentials.ca.is_some() && !address.contains("://") {
        return true;
    }
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches([']', '/']);
    let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// A fresh UUID, for calls that may have to be repeated.
pub(crate) fn new_request_id() -> String {
    SystemEnv.uid().to_string()
}

/// The innermost message of an error: `Connection refused (os error 111)` and not `transport error`.
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_where_nobody_listens_in() {
        let (plain, with_ca) = (
            Credentials::default(),
            Credentials { ca: Some(Vec::new()), ..Credentials::default() },
        );
        for address in ["127.0.0.1:7070", "http://localhost:7070", "http://[::1]:7070", "unix:/a"] {
            assert!(keeps_secrets(address, &plain), "{address}");
        }
        for address in ["http://10.0.0.5:7070", "http://example.org", "10.0.0.5:7070"] {
            assert!(!keeps_secrets(address, &plain), "{address}");
        }
        assert!(keeps_secrets("10.0.0.5:7070", &with_ca) && keeps_secrets("https://a", &plain));
        assert!(!keeps_secrets("http://10.0.0.5:7070", &with_ca));
    }
}
