//! Maps by id, on the way of every acquire: hashed quickly, with a seed of each map's own.
//!
//! The hash ([foldhash](https://docs.rs/foldhash)) is not a cryptographic one. Whoever chooses ids cannot
//! see it and does not know the seed, and what is in these maps is bounded by quotas and limits; the
//! standard library's hash takes several times as long on names of this length.

use std::collections::HashMap;

use dashmap::DashMap;
use foldhash::quality::RandomState;

/// A map of one owner, or behind a lock.
pub type IdMap<K, V> = HashMap<K, V, RandomState>;

/// A map that many use at once, each key behind the lock of its shard.
pub type SharedIdMap<K, V> = DashMap<K, V, RandomState>;
