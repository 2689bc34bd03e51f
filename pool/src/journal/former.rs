//! The journal as version 0.1 kept it, in the tables of an embedded store (fjall): it is taken over into the
//! log, once. This goes, and the store with it, when nobody has such a journal any more.

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions};
use hearth_providers::beneath;

use super::frame::{Frame, Table};
use super::segments::path;
use super::trouble::{damaged, refused, storage};
use crate::error::Result;

/// What a conversion that is not done yet is called.
const PART: &str = "1.log.part";

/// Takes over what the former store in `dir` has, and removes it; nothing where there is none. Cut short it
/// begins anew. Blocks on the disk.
///
/// # Errors
/// `Storage`, which says what to do; nothing of the store was changed.
pub(super) fn convert(dir: &Path) -> Result<()> {
    if !dir.join("keyspaces").try_exists().map_err(storage)? {
        return Ok(());
    }
    if !path(dir, 1).try_exists().map_err(storage)? {
        // The store's readers of its own files have assertions where ours would have errors.
        let frames = catch_unwind(AssertUnwindSafe(|| read(dir)))
            .unwrap_or_else(|_| Err(damaged(dir, "the tables of version 0.1 cannot be read")))?;
        write(dir, frames).map_err(|error| refused(dir, &error))?;
        tracing::info!("the journal of version 0.1 was taken over");
    }
    remove(dir).map_err(storage)
}

/// A frame for each record.
fn read(dir: &Path) -> Result<Vec<Frame>> {
    let refuse = |error: fjall::Error| match error {
        fjall::Error::Locked => storage("another hearth runs on this state directory"),
        error => refused(dir, &error),
    };
    let database = Database::builder(dir).worker_threads(1).open().map_err(refuse)?;
    let mut frames = Vec::new();
    let tables = [("meta", Table::Control), ("control", Table::Control), ("leases", Table::Leases)];
    for (name, table) in tables {
        let keyspace: Keyspace =
            database.keyspace(name, KeyspaceCreateOptions::default).map_err(refuse)?;
        for guard in keyspace.iter() {
            let (key, value) = Guard::into_inner(guard).map_err(refuse)?;
            let mut frame = Frame::durable();
            frame.put(table, &key, |bytes| bytes.write_all(&value)).map_err(storage)?;
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// Writes the log, which is there in whole or not at all.
fn write(dir: &Path, frames: Vec<Frame>) -> io::Result<()> {
    let mut file = io::BufWriter::new(beneath::create(&dir.join(PART))?);
    for (number, mut frame) in (1..).zip(frames) {
        file.write_all(frame.finish(number)?)?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(dir.join(PART), path(dir, 1))?;
    beneath::open_dir(dir)?.sync_all()
}

/// Removes the store's files; the one by which it is known goes last.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|it| it == "jnl");
        if is_log || ["version", "lock"].iter().any(|name| path.ends_with(name)) {
            beneath::remove(&path)?;
        }
    }
    beneath::remove(&dir.join("keyspaces"))
}
