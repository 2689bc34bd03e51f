//! What every client command has: a connection, the form of the output, and how long it may take.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hearth_proto::{ClientOptions, HearthClient};
use hearth_providers::env::{Env as _, SystemEnv};

use super::error::{Error, Result};
use super::output::Format;
use super::text::parse_duration;

/// Resources asked for at once; the most that the API gives.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// Flags of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where the server is: host:port, http://host:port or unix:/path.
    #[arg(
        long,
        global = true,
        env = "HEARTH_ADDRESS",
        default_value = "http://127.0.0.1:7070",
        value_name = "ADDRESS",
        help_heading = "Client options"
    )]
    address: String,
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
        let timeout = global.timeout.unwrap_or(Duration::from_secs(120));
        let wait = global.timeout.unwrap_or(Duration::from_secs(600));
        let options = ClientOptions {
            connect_timeout: timeout.min(Duration::from_secs(5)),
            request_timeout: timeout,
            ..ClientOptions::default()
        };
        // As the server itself prints it.
        let address = match global.address.strip_prefix("grpc://") {
            Some(plain) => plain.to_owned(),
            None => global.address,
        };
        if let Err(error) = HearthClient::connect_lazy(&address, options) {
            return Err(Error::Usage(format!("--address {address}: {}", root_cause(&error))));
        }
        let client = HearthClient::connect_with(&address, options)
            .await
            .map_err(|error| Error::Unreachable { address, cause: root_cause(&error) })?;
        let directory = std::env::current_dir()
            .map_err(|error| Error::Failed(format!("the current directory: {error}")))?;
        Ok(Self { client, format: global.output, timeout, wait, directory })
    }
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
