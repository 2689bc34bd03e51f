//! Load on a hearth, and on the floor below it.
//!
//! [`arrivals`] says when calls are due, [`pacer`] sends word at those instants, [`drive`] makes
//! the calls, [`tally`] counts what came of them and [`report`] prints it, with the [`stamp`] of
//! the machine that it was measured on. [`closed`] makes each call when one before was answered,
//! [`cycle`] makes a call of two, [`holding`] says what becomes of what was given; a [`plan`] is all
//! of that. [`hearth`] and [`floor`] are what is called; [`versus`] measures both in turns,
//! [`sides`] and [`comparison`] say how they compare. [`steps`] and [`saturation`] go through
//! rates; [`stages`] is what the server says itself; [`results`] are what files have,
//! [`changes`] what is between two of them, and a [`picture`] what they look like.
//!
//! Invariants: in the open loop no call waits for another one's answer; a latency is counted from the instant at
//! which the call was *due*, so that time lost by a slow server, or by this program, is seen; a
//! call that was due and not sent is counted. Callers who wait for an answer before they ask again
//! hide exactly the stalls that are looked for (coordinated omission).

pub mod arrivals;
pub mod bounds;
pub mod changes;
pub mod closed;
pub mod comparison;
pub mod cycle;
pub mod drive;
pub mod floor;
pub mod given;
pub mod guest;
pub mod hearth;
pub mod histograms;
pub mod holding;
pub mod latencies;
pub mod pacer;
pub mod picture;
pub mod plan;
pub mod report;
pub mod results;
pub mod saturation;
pub mod sides;
pub mod stages;
pub mod stamp;
pub mod steps;
pub mod tally;
pub mod versus;

use std::time::Duration;

use hearth_proto::{Credentials, Transport};
use tonic::transport::{Endpoint, Error};

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `count` connections to `address`, which is `host:port`, a URI, or `unix:/path`, as whom `credentials`
/// say; encrypted if they have authorities. Whatever is called, it is called over connections with these settings.
///
/// # Errors
/// When the address is malformed, the credentials are none, or a connection does not come about within 5 s.
pub async fn connect(
    address: &str,
    count: usize,
    credentials: &Credentials,
) -> Result<Vec<Transport>, Error> {
    let tls = credentials.tls();
    // As servers print it.
    let address = address.strip_prefix("grpc://").unwrap_or(address);
    let has_scheme = address.starts_with("unix:") || address.contains("://");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = if has_scheme { address.to_owned() } else { format!("{scheme}://{address}") };
    let endpoint = Endpoint::from_shared(uri)?.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT);
    let endpoint = match tls.filter(|_| endpoint.uri().scheme_str() == Some("https")) {
        Some(tls) => endpoint.tls_config(tls)?,
        None => endpoint,
    };
    let mut transports = Vec::with_capacity(count);
    for _ in 0..count {
        let channel = endpoint.connect().await?;
        transports.push(match &credentials.token {
            Some(token) => Transport::bearing(channel, token),
            None => channel.into(),
        });
    }
    Ok(transports)
}
