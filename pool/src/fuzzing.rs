//! Ways in for a search for input that the journal here cannot bear: see `fuzz/` and decision 31.

use std::path::Path;

pub use hearth_providers::fuzzing::{Scratch, Target, pieces};

use crate::error::Result;
use crate::journal::{self, Journal, LeaseRecord, Table};

/// All that are here.
pub const TARGETS: &[Target] = &[Target { name: "journal_log", run: journal_log }];

/// A log of the journal that was torn, damaged, or made up.
fn journal_log(bytes: &[u8]) {
    let dir = Scratch::new();
    journal::fuzz_log(&dir.0, bytes);
}

/// What the keys of the records of [`fill`] begin with, by the number of their kind; blank: leases.
pub const KINDS: [&str; 7] =
    ["", "template/", "pool/", "artifact/", "node/", "operation/", "reply/"];

/// Opens the journal in `dir` and writes a record of each of the `pieces` of `bytes`, whose first byte
/// says of which kind it is.
///
/// # Errors
/// `Storage`.
pub fn fill(dir: &Path, env: &dyn crate::env::Env, bytes: &[u8]) -> Result<Journal> {
    let journal = Journal::open(dir, env)?;
    for (number, piece) in pieces(bytes).into_iter().enumerate() {
        let Some((kind, text)) = piece.split_first() else { continue };
        let prefix = KINDS[usize::from(*kind) % KINDS.len()];
        match prefix {
            "" => journal.write_raw(Table::Leases, &key_of_lease(text, number), text)?,
            _ => {
                let key = format!("{prefix}{number}");
                journal.write_raw(Table::Control, key.as_bytes(), text)?;
            }
        }
    }
    Ok(journal)
}

/// What is written of a lease.
pub fn text_of_lease(record: &LeaseRecord) -> Vec<u8> {
    journal::written_lease(record)
}

/// The uid that a lease says it has, or one of the record's `number`.
fn key_of_lease(text: &[u8], number: usize) -> [u8; 16] {
    let read = journal::read_lease(text);
    read.map_or_else(|| (number as u128).to_be_bytes(), |record| *record.uid.as_bytes())
}
