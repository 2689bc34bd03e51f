//! Torn tails: what an append that was under way leaves behind the journal's last whole record.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::env::Dice;

/// What each record of the log begins with.
const MAGIC: &[u8] = b"\nhj1";

/// Writes the beginning of a record, cut at a random place, behind the last whole one of the
/// journal in `dir`; answers how many bytes, `None` when it has no record yet.
///
/// # Errors
/// Those of the file system.
pub(crate) fn tear(dir: &Path, dice: &Dice) -> io::Result<Option<usize>> {
    let Some(log) = active(dir)? else { return Ok(None) };
    let bytes = std::fs::read(&log)?;
    let begin = bytes.windows(MAGIC.len()).rposition(|window| window == MAGIC);
    let Some(record) = begin.map(|begin| &bytes[begin..]) else { return Ok(None) };
    let cut = 1 + dice.below(record.len() as u64 - 1) as usize;
    OpenOptions::new().append(true).open(&log)?.write_all(&record[..cut])?;
    Ok(Some(cut))
}

/// The file that the journal appends to.
fn active(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|it| it == "log")) {
            logs.push((number, path));
        }
    }
    Ok(logs.into_iter().max().map(|(_, path)| path))
}
