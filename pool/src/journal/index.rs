//! Where the newest record of each key lies in the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use hearth_providers::map::IdMap;

use super::frame::{HEAD_BYTES, Item, Items, LeaseKey, Table};

/// Where the value of a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) at: u32,
    pub(super) len: u32,
}

/// The records that there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    leases: IdMap<LeaseKey, Place>,
    control: BTreeMap<Box<[u8]>, Place>,
    /// About how much of the log is of records that there still are.
    live_bytes: u64,
}

impl Index {
    /// What a frame changed that lies at `at` in a segment.
    pub(super) fn apply(&mut self, items: Items<'_>, segment: u32, frame_at: u32) {
        for item in items {
            match item {
                Item::Put { table, key, at, len } => {
                    // A segment has less than 4 GiB.
                    let at = frame_at.saturating_add(at as u32);
                    let place = Place { segment, at, len: len as u32 };
                    self.live_bytes += size_of_record(key, place);
                    let former = match table {
                        Table::Leases => LeaseKey::try_from(key)
                            .ok()
                            .and_then(|key| self.leases.insert(key, place)),
                        Table::Control => match self.control.get_mut(key) {
                            Some(former) => Some(std::mem::replace(former, place)),
                            None => self.control.insert(key.into(), place),
                        },
                    };
                    self.gone(key, former);
                }
                Item::Remove { table, key } => {
                    let former = match table {
                        Table::Leases => {
                            LeaseKey::try_from(key).ok().and_then(|key| self.leases.remove(&key))
                        }
                        Table::Control => self.control.remove(key),
                    };
                    self.gone(key, former);
                }
                Item::Oldest(_) | Item::Continues(_) => {}
            }
        }
    }

    fn gone(&mut self, key: &[u8], former: Option<Place>) {
        if let Some(former) = former {
            self.live_bytes -= size_of_record(key, former);
        }
    }

    pub(super) const fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Place> {
        match table {
            Table::Leases => self.leases.get(&LeaseKey::try_from(key).ok()?).copied(),
            Table::Control => self.control.get(key).copied(),
        }
    }

    /// All leases, in the order of their uids.
    pub(super) fn leases(&self) -> Vec<(Box<[u8]>, Place)> {
        let mut all: Vec<_> = self.leases.iter().collect();
        all.sort_unstable_by_key(|(key, _)| **key);
        all.into_iter().map(|(key, place)| (Box::from(key.as_slice()), *place)).collect()
    }

    /// All others whose key begins with `prefix`, in their order.
    pub(super) fn control(&self, prefix: &[u8]) -> Vec<(Box<[u8]>, Place)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let all = self.control.range::<[u8], _>(from);
        let its = all.take_while(|(key, _)| key.starts_with(prefix));
        its.map(|(key, place)| (key.clone(), *place)).collect()
    }
}

/// About what a record takes in the log, were it a frame by itself.
const fn size_of_record(key: &[u8], place: Place) -> u64 {
    (HEAD_BYTES + key.len()) as u64 + place.len as u64
}
