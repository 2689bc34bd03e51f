//! Open-loop load: calls are sent when they are due, whatever became of the ones before.
//!
//! [`arrivals`] says when calls are due, [`pacer`] sends word at those instants, [`drive`] makes
//! the calls, [`tally`] counts what came of them and [`report`] prints it, with the [`stamp`] of
//! the machine that it was measured on; [`sides`] compares. [`hearth`] and [`floor`] are what is
//! called.
//!
//! Invariants: no call waits for another one's answer; a latency is counted from the instant at
//! which the call was *due*, so that time lost by a slow server, or by this program, is seen; a
//! call that was due and not sent is counted. Callers who wait for an answer before they ask again
//! hide exactly the stalls that are looked for (coordinated omission).

pub mod arrivals;
pub mod drive;
pub mod floor;
pub mod hearth;
pub mod latencies;
pub mod pacer;
pub mod report;
pub mod sides;
pub mod stamp;
pub mod tally;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `count` connections to `address`, which is `host:port`, a URI, or `unix:/path`. Whatever
/// is called, it is called over connections with these settings.
///
/// # Errors
/// When the address is malformed, or a connection does not come about within 5 s.
pub async fn connect(address: &str, count: usize) -> Result<Vec<Channel>, Error> {
    // As servers print it.
    let address = address.strip_prefix("grpc://").unwrap_or(address);
    let has_scheme = address.starts_with("unix:") || address.contains("://");
    let uri = if has_scheme { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)?.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT);
    let mut channels = Vec::with_capacity(count);
    for _ in 0..count {
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}
