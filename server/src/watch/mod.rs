//! Watches: what is there, and then what becomes of it.
//!
//! One [`Hub`] for each kind of resource looks at what has changed, as the pool notes it, and keeps
//! the last changes in a feed ([`feed`]); every watch reads that at its own pace, from a place of its own.
//! So a watch costs what it reads and nothing that waits for it, and one whose place the feed no
//! longer has is cut off. Nothing is looked at, and nothing kept, while nobody watches.
//!
//! Invariants: a hub alone writes its feed, and what it writes is what it saw itself; a change is in
//! the feed once, whoever sees it; nothing is rendered or sent while a feed is locked.

mod feed;
mod hub;
mod pools;
pub(crate) mod token;
mod vms;
mod watching;

pub(crate) use feed::Resource;
pub(crate) use hub::{Hub, Source};
pub(crate) use pools::PoolSource;
pub(crate) use token::list_id;
pub(crate) use vms::VmSource;
pub(crate) use watching::{Event, View, Watching};

#[cfg(test)]
mod tests;
