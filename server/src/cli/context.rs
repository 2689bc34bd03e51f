//! What every client command has: a connection, the form of the output, and how long it may take.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hearth_proto::{ClientOptions, Credentials, HearthClient};
use hearth_providers::env::{Env as _, SystemEnv};

use super::error::{Error, Result};
use super::output::Format;
use super::settings::{Flags, Settings};
use super::text::parse_duration;

/// Resources asked for at once; the most that the API gives.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// Flags of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    #[command(flatten)]
    flags: Flags,
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
    /// Show no progress.
    #[arg(long, short, global = true, help_heading = "Client options")]
    quiet: bool,
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
    /// Show no progress.
    pub(crate) quiet: bool,
    /// What a user is told who interrupts the command, while the server goes on with what was begun.
    pub(crate) goes_on: Option<String>,
}

impl Global {
    /// Where commands go and who calls.
    ///
    /// # Errors
    /// As for [`Settings::find`].
    pub(crate) fn settings(&mut self) -> Result<Settings> {
        Settings::find(std::mem::take(&mut self.flags))
    }
}

impl Context {
    /// Connects to where `settings` say.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Usage`] when the address is none.
    pub(crate) async fn connect(global: Global, settings: &Settings) -> Result<Self> {
        Self::connect_or_not(global, settings, true).await
    }

    /// Connects with the first call, which then says that nobody answers.
    ///
    /// # Errors
    /// [`Error::Usage`] when the address is none.
    pub(crate) async fn connect_later(global: Global, settings: &Settings) -> Result<Self> {
        Self::connect_or_not(global, settings, false).await
    }

    async fn connect_or_not(global: Global, settings: &Settings, now: bool) -> Result<Self> {
        let timeout = global.timeout.unwrap_or(Duration::from_secs(120));
        let wait = global.timeout.unwrap_or(Duration::from_secs(600));
        let options = ClientOptions {
            connect_timeout: timeout.min(Duration::from_secs(5)),
            request_timeout: timeout,
            ..ClientOptions::default()
        };
        let credentials = settings.credentials()?;
        // As the server itself prints it.
        let given = settings.address();
        let address = given.strip_prefix("grpc://").unwrap_or(given);
        if credentials.token.is_some() && !keeps_secrets(address, &credentials) {
            return Err(Error::Usage(format!(
                "--address {address}: a token would be sent there as it is: give --ca and https://"
            )));
        }
        let later = HearthClient::connect_lazy_as(address, options, &credentials);
        let later = later
            .map_err(|it| Error::Usage(format!("--address {address}: {}", root_cause(&it))))?;
        let client = match now {
            true => HearthClient::connect_as(address, options, &credentials)
                .await
                .map_err(|error| Error::unreachable(settings.where_to(), root_cause(&error)))?,
            false => later,
        };
        let directory = std::env::current_dir()
            .map_err(|error| Error::Failed(format!("the current directory: {error}")))?;
        let (format, quiet) = (global.output, global.quiet);
        Ok(Self { client, format, timeout, wait, directory, quiet, goes_on: None })
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
