//! `hearth-bench`: load on a hearth, and on the floor below it.
//!
//! `run` sends acquires when they are due, or one after another, and says how long they took; `floor` serves an empty
//! call from a process of its own; `compare-floor` measures both in turns, in one run, and prints
//! ratios; `saturate` searches the highest rate; `compare` tells two results from each other,
//! and `picture` draws them. What the figures mean is in docs/load-generator.md.

mod arguments;
mod caller;
mod changes;
mod compare;
mod picture;
mod rates;
mod run;
mod target;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hearth_benches::load::floor;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::caller::read;

/// Load on a hearth.
#[derive(Debug, Parser)]
#[command(name = "hearth-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send acquires when they are due, or one after another, and say how long they took.
    Run(run::Run),
    /// Serve an empty call, to compare with, until Ctrl-C.
    Floor(Floor),
    /// Measure a hearth and the floor in turns, and print ratios with their intervals.
    CompareFloor(compare::CompareFloor),
    /// Search the highest rate that is sustained, from --rate on.
    Saturate(rates::Saturate),
    /// Say what got slower between two results, beyond noise; exit code 1 if anything did.
    Compare(changes::Compare),
    /// Draw results that --json wrote, as SVG on standard output.
    Picture(picture::Picture),
}

#[derive(Debug, clap::Args)]
struct Floor {
    /// Where to serve; port 0 picks a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:7080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Its certificate, in PEM: it is called over TLS then.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Authorities that every caller's certificate must come from, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    client_ca: Option<PathBuf>,
}

impl Floor {
    /// How it is encrypted, if it is.
    fn tls(&self) -> Result<Option<ServerTlsConfig>, Box<dyn Error>> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        let identity = Identity::from_pem(read(certificate)?, read(key)?);
        let tls = ServerTlsConfig::new().identity(identity);
        Ok(Some(match &self.client_ca {
            Some(ca) => tls.client_ca_root(Certificate::from_pem(read(ca)?)),
            None => tls,
        }))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = Runtime::new().map_err(Into::into).and_then(|runtime| match arguments.command {
        Command::Run(run) => runtime.block_on(run.run()),
        Command::Floor(floor) => runtime.block_on(serve(&floor)),
        Command::CompareFloor(compare) => compare.run(&runtime),
        Command::Saturate(saturate) => runtime.block_on(saturate.run()),
        Command::Compare(compare) => compare.run(),
        Command::Picture(picture) => picture.run(),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hearth-bench: {}", causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn serve(floor: &Floor) -> Result<bool, Box<dyn Error>> {
    let tls = floor.tls()?;
    let incoming = TcpIncoming::bind(floor.listen)?;
    println!("listening on {}", incoming.local_addr()?);
    // Without signals it serves on, until it is killed.
    let end = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    floor::serve(incoming, tls, end).await?;
    Ok(true)
}

/// `transport error: tcp connect error: Connection refused`: the first alone says too little.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_causes_of_an_error_are_said() {
        let cause = std::io::Error::other("refused");
        let error = std::io::Error::other(cause);
        assert!(causes(&error).ends_with("refused"));
    }
}
