//! Waiting until a pool is full, or empty.

use std::time::Duration;

use hearth_proto::v1;
use tokio::time::Instant;

use super::get;
use crate::cli::context::Context;
use crate::cli::error::{Error, Result, is_away};
use crate::cli::progress::{Progress, Share};
use crate::cli::text::{id_of, short_duration};

/// How often a pool is looked at.
const PACE: Duration = Duration::from_millis(100);

/// Waits until the pool has `warm` VMs that are warm, or as many as it should have; also while the server is
/// still starting.
///
/// # Errors
/// [`Error::TimedOut`] with what keeps it from that; the server's.
pub(crate) async fn until_full(
    context: &mut Context,
    name: &str,
    warm: Option<i32>,
) -> Result<v1::Pool> {
    let wanted = |status: &v1::pool::Status| warm.unwrap_or(status.target);
    let look = |pool: &v1::Pool, status: &v1::pool::Status| {
        let (is, wanted) = (status.warm, wanted(status));
        let more = match status.restoring {
            0 => String::new(),
            restoring => format!(", restoring {restoring}"),
        };
        let breaker = status.breaker.clone().unwrap_or_default();
        let why = match (breaker.failures, status.draining) {
            (_, true) => {
                format!("; it is drained: hearth pools undrain {}", id_of(&pool.name))
            }
            (0, false) => String::new(),
            (failures, false) => {
                format!("; {failures} restores failed, the last: {}", breaker.reason)
            }
        };
        Look {
            is_done: is >= wanted,
            share: share(is, wanted),
            what: format!("{is} of {wanted} VMs warm{more}{why}"),
        }
    };
    until(context, name, look).await
}

/// Waits until a pool that is drained has no VM left: warm ones go at once, others with their leases.
///
/// # Errors
/// [`Error::TimedOut`] with what is left; the server's.
pub(crate) async fn until_empty(context: &mut Context, name: &str) -> Result<v1::Pool> {
    let mut most = 0;
    let look = |pool: &v1::Pool, status: &v1::pool::Status| {
        let v1::pool::Status { warm, restoring, leased, .. } = *status;
        let left = warm + restoring + leased;
        most = most.max(left);
        let whose = match leased {
            0 => String::new(),
            _ => format!("; whose: hearth vms list --pool {}", id_of(&pool.name)),
        };
        Look {
            is_done: left == 0,
            share: share(most - left, most),
            what: format!("{left} VMs left, {leased} of them leased{whose}"),
        }
    };
    until(context, name, look).await
}

/// How a pool looks.
struct Look {
    is_done: bool,
    share: Share,
    what: String,
}

fn share(done: i32, of: i32) -> Share {
    let count = |count: i32| u64::try_from(count).unwrap_or(0);
    Share { done: count(done), of: count(of) }
}

async fn until(
    context: &mut Context,
    name: &str,
    mut look: impl FnMut(&v1::Pool, &v1::pool::Status) -> Look,
) -> Result<v1::Pool> {
    let deadline = Instant::now() + context.wait;
    let mut progress = Progress::begin(context.quiet);
    loop {
        let asked = Instant::now();
        let is_last = asked + PACE >= deadline;
        match get(context, name).await {
            Ok(pool) => {
                let looks = look(&pool, &pool.status.clone().unwrap_or_default());
                if looks.is_done {
                    return Ok(pool);
                }
                if is_last {
                    let after = short_duration(context.wait);
                    let why = format!("{} has {} after {after}", pool.name, looks.what);
                    return Err(Error::TimedOut(why));
                }
                progress.show(&pool.name, looks.share, &looks.what);
            }
            // A server that is starting is worth waiting for, too.
            Err(Error::Server { status, .. }) if is_away(&status) && !is_last => {
                progress.show(name, share(0, 1), status.message());
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep_until(asked + PACE).await;
    }
}
