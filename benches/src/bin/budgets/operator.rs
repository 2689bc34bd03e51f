//! What an operator does with a hearth of a rig: reads its pages, and waits until they say something.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hearth_proto::HearthClient;
use tokio::time::Instant;

use crate::rig::Served;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);

/// A client of `hearth`.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn client(hearth: &Served) -> Result<HearthClient, Box<dyn Error>> {
    let address = hearth.address.strip_prefix("grpc://").unwrap_or(&hearth.address);
    Ok(HearthClient::connect(address).await?)
}

/// Waits until `hearth` says that it is ready. Blocks.
///
/// # Errors
/// When it never does.
pub(crate) fn until_ready(hearth: &Served) -> Result<(), Box<dyn Error>> {
    until("hearth is ready", || Ok(page(admin(hearth)?, "/readyz")?.starts_with("HTTP/1.1 200")))
}

/// The value of a metric's only series, or of one with its labels. Blocks.
///
/// # Errors
/// When `hearth` does not answer, or has no such series.
pub(crate) fn metric(hearth: &Served, series: &str) -> Result<f64, Box<dyn Error>> {
    let text = page(admin(hearth)?, "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.ok_or_else(|| format!("there is no metric {series}").into())
}

/// Waits until `done`. Blocks.
///
/// # Errors
/// Its first one, and when it never is.
pub(crate) fn until(
    what: &str,
    mut done: impl FnMut() -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !done()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("never: {what}").into());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Where the admin server of `hearth` is.
///
/// # Errors
/// When it did not say so.
pub(crate) fn admin(hearth: &Served) -> Result<&str, Box<dyn Error>> {
    let said = hearth.more.first().ok_or("hearth did not say where its pages are")?;
    Ok(said.strip_prefix("admin on http://").ok_or("it said something else")?)
}

/// A page of the admin server at `address`, with its head. Blocks.
///
/// # Errors
/// When it does not answer.
pub(crate) fn page(address: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
