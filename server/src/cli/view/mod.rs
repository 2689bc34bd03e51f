//! Resources as the command line shows them: plain data whose JSON has stable names.
//!
//! Fields are named as in the API and are always there: unset ones are `null`, `""` or `[]`. Times are
//! RFC 3339, durations seconds with an `s`, enum values without their prefix.

mod artifact;
mod explanation;
mod node;
mod operation;
mod pool;
mod resolution;
mod snapshot;
mod template;
mod usage;
mod vm;

use serde::{Serialize, Serializer};

pub(crate) use artifact::Artifact;
pub(crate) use explanation::{Explanation, Prewarm};
pub(crate) use node::Node;
pub(crate) use operation::{Operation, metadata};
pub(crate) use pool::Pool;
pub(crate) use resolution::Resolution;
pub(crate) use snapshot::Snapshot;
pub(crate) use template::Template;
pub(crate) use usage::Usage;
pub(crate) use vm::Vm;

/// A time of the wire.
#[derive(Clone, Debug)]
pub(crate) struct Time(pub(crate) prost_types::Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A duration of the wire.
#[derive(Clone, Debug)]
pub(crate) struct Span(pub(crate) prost_types::Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The name of an enum's value without its prefix; its number when this client is too old for it.
pub(crate) fn value_name<E: TryFrom<i32>>(
    value: i32,
    name: impl Fn(&E) -> &'static str,
    prefix: &str,
) -> String {
    E::try_from(value).map_or_else(
        |_| value.to_string(),
        |known| {
            let name = name(&known);
            name.strip_prefix(prefix).unwrap_or(name).to_owned()
        },
    )
}
