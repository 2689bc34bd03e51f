//! How changes lie in the log: one *frame* for each write, whole or not there.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | [`MAGIC`] |
//! | 4 | how long the items are |
//! | 8 | the checksum (XXH3-64) of everything behind it |
//! | 8 | the frame's number: one more than that of the frame before |
//! | 1 | 1: it was fsynced before it counted, else 0 |
//! | | its items |
//!
//! An item is its kind (1 byte), the length of its key (2) and of its value (4), key and value.
//! Numbers have their lowest byte first.

use std::io;

/// A line's end, so that a person who looks at a log with tools for text sees each frame begin.
pub(super) const MAGIC: [u8; 4] = *b"\nhj1";

const CHECKSUM_AT: usize = 8;
const NUMBER_AT: usize = 16;
const DURABLE_AT: usize = 24;
/// Everything of a frame but its items.
pub(super) const HEAD_BYTES: usize = 25;
/// Everything of an item but key and value.
const ITEM_HEAD_BYTES: usize = 7;
/// Most frames are one lease's: some 300 bytes.
const USUAL_BYTES: usize = 512;

const LEASE_KEY_BYTES: usize = size_of::<LeaseKey>();

/// A lease's key: its uid.
pub(super) type LeaseKey = [u8; 16];

/// Which records a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Leases, by the 16 bytes of their uid.
    Leases,
    /// All others.
    Control,
}

/// What an item does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// Writes a record; where its value begins in the frame, and how long it is.
    Put { table: Table, key: &'a [u8], at: usize, len: usize },
    /// Forgets one.
    Remove { table: Table, key: &'a [u8] },
    /// From here on the segment of this number is the oldest that counts.
    Oldest(u32),
    /// The segment ends here, and goes on in that of this number.
    Continues(u32),
}

impl Item<'_> {
    const PUT_LEASE: u8 = 1;
    const PUT_CONTROL: u8 = 2;
    const REMOVE_LEASE: u8 = 3;
    const REMOVE_CONTROL: u8 = 4;
    const OLDEST: u8 = 5;
    const CONTINUES: u8 = 6;
}

/// A frame that is being made.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.resize(HEAD_BYTES, 0);
        Self(bytes)
    }

    /// One that will be fsynced.
    pub(super) fn durable() -> Self {
        let mut frame = Self::new();
        frame.0[DURABLE_AT] = 1;
        frame
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.len() == HEAD_BYTES
    }

    /// Adds a record, whose value `write` appends.
    ///
    /// # Errors
    /// Those of `write`; `InvalidInput` for a key or a value that is too long, or a lease's key that is no
    /// uid. The frame is of no use then.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let kind = match table {
            Table::Leases if key.len() != LEASE_KEY_BYTES => return Err(too_long()),
            Table::Leases => Item::PUT_LEASE,
            Table::Control => Item::PUT_CONTROL,
        };
        let at = self.item(kind, key)?;
        write(&mut self.0)?;
        let len = u32::try_from(self.0.len() - at - key.len()).map_err(|_| too_long())?;
        self.0[at - 4..at].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    /// Adds that a record is forgotten.
    ///
    /// # Errors
    /// `InvalidInput` for a key that is too long.
    pub(super) fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<()> {
        let kind = match table {
            Table::Leases => Item::REMOVE_LEASE,
            Table::Control => Item::REMOVE_CONTROL,
        };
        self.item(kind, key).map(drop)
    }

    /// A frame that says which segment is the oldest.
    pub(super) fn oldest(number: u32) -> Self {
        let mut frame = Self::durable();
        frame.number(Item::OLDEST, number);
        frame
    }

    /// A frame that ends a segment.
    pub(super) fn continues(number: u32) -> Self {
        let mut frame = Self::new();
        frame.number(Item::CONTINUES, number);
        frame
    }

    fn number(&mut self, kind: u8, number: u32) {
        self.0.push(kind);
        self.0.extend_from_slice(&4_u16.to_le_bytes());
        self.0.extend_from_slice(&0_u32.to_le_bytes());
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds an item's head and key; answers where the key begins.
    fn item(&mut self, kind: u8, key: &[u8]) -> io::Result<usize> {
        let key_len = u16::try_from(key.len()).map_err(|_| too_long())?;
        self.0.push(kind);
        self.0.extend_from_slice(&key_len.to_le_bytes());
        self.0.extend_from_slice(&0_u32.to_le_bytes());
        let at = self.0.len();
        self.0.extend_from_slice(key);
        Ok(at)
    }

    /// The whole frame under its number; it may be numbered again.
    ///
    /// # Errors
    /// `InvalidInput` for one that is too long.
    pub(super) fn finish(&mut self, number: u64) -> io::Result<&[u8]> {
        let len = u32::try_from(self.0.len() - HEAD_BYTES).map_err(|_| too_long())?;
        self.0[MAGIC.len()..CHECKSUM_AT].copy_from_slice(&len.to_le_bytes());
        self.0[NUMBER_AT..DURABLE_AT].copy_from_slice(&number.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&self.0[NUMBER_AT..]);
        self.0[CHECKSUM_AT..NUMBER_AT].copy_from_slice(&checksum.to_le_bytes());
        Ok(&self.0)
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a key or a value is too long for the journal")
}

/// A whole frame of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'a> {
    pub(super) number: u64,
    pub(super) is_durable: bool,
    bytes: &'a [u8],
}

impl<'a> Whole<'a> {
    /// The frame that `bytes` begin with, if it is whole.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        (head[..MAGIC.len()] == MAGIC && head[DURABLE_AT] <= 1).then_some(())?;
        let len = u32::from_le_bytes(head[MAGIC.len()..CHECKSUM_AT].try_into().ok()?);
        let bytes = bytes.get(..HEAD_BYTES.checked_add(usize::try_from(len).ok()?)?)?;
        let found = Self {
            number: u64::from_le_bytes(head[NUMBER_AT..DURABLE_AT].try_into().ok()?),
            is_durable: head[DURABLE_AT] == 1,
            bytes,
        };
        // The items first: what only looks like a frame is told by them sooner than by its checksum.
        let mut items = found.items();
        while items.next().is_some() {}
        (items.at == bytes.len()).then_some(())?;
        let checksum = u64::from_le_bytes(head[CHECKSUM_AT..NUMBER_AT].try_into().ok()?);
        (checksum == xxhash_rust::xxh3::xxh3_64(&bytes[NUMBER_AT..])).then_some(found)
    }

    /// Whether the beginning of a frame is all that is here, or nothing at all.
    pub(super) fn is_cut_short(bytes: &[u8]) -> bool {
        let Some(head) = bytes.get(..HEAD_BYTES) else { return true };
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let mut items = Items { bytes, at: HEAD_BYTES };
        while items.next().is_some() {}
        // Where the items end in whole it is the length that is wrong.
        let is_short = bytes.len() - HEAD_BYTES < len as usize && items.at < bytes.len();
        head[..MAGIC.len()] == MAGIC && is_short
    }

    /// One that was just made.
    pub(super) fn of(frame: &'a Frame) -> Items<'a> {
        Items { bytes: &frame.0, at: HEAD_BYTES }
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn items(&self) -> Items<'a> {
        Items { bytes: self.bytes, at: HEAD_BYTES }
    }
}

/// The items of a frame; ends before what is none.
#[derive(Debug)]
pub(super) struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let head = self.bytes.get(self.at..)?.get(..ITEM_HEAD_BYTES)?;
        let key_len = usize::from(u16::from_le_bytes([head[1], head[2]]));
        let len = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
        let len = usize::try_from(len).ok()?;
        let key_at = self.at + ITEM_HEAD_BYTES;
        let at = key_at + key_len;
        let key = self.bytes.get(key_at..at)?;
        let end = at.checked_add(len)?;
        self.bytes.get(at..end)?;
        let number = || Some(u32::from_le_bytes(key.try_into().ok()?));
        let is_lease = key_len == LEASE_KEY_BYTES;
        let (table, is_empty) = (Table::Leases, len == 0);
        let item = match head[0] {
            Item::PUT_LEASE if is_lease => Item::Put { table, key, at, len },
            Item::PUT_CONTROL => Item::Put { table: Table::Control, key, at, len },
            Item::REMOVE_LEASE if is_lease && is_empty => Item::Remove { table, key },
            Item::REMOVE_CONTROL if is_empty => Item::Remove { table: Table::Control, key },
            Item::OLDEST if is_empty => Item::Oldest(number()?),
            Item::CONTINUES if is_empty => Item::Continues(number()?),
            _ => return None,
        };
        self.at = end;
        Some(item)
    }
}
