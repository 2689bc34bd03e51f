//! Between the messages of the API and the types of the pool, one file for each resource.

pub(crate) mod explain;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod pool;
pub(crate) mod spec;
pub(crate) mod template;
pub(crate) mod vm;

use std::time::{Duration, SystemTime};

use hearth_proto::convert::{duration_to_wire, timestamp_from_system_time};
use prost_types::{Duration as WireDuration, Timestamp};

/// A time on the wire; one that the wire cannot say is left out.
pub(crate) fn time(time: SystemTime) -> Option<Timestamp> {
    timestamp_from_system_time(time).ok()
}

/// A duration on the wire.
pub(crate) fn duration(duration: Duration) -> Option<WireDuration> {
    Some(duration_to_wire(duration))
}

/// A count on the wire.
pub(crate) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
