//! Torn tails: what an append that was under way leaves behind the journal's last whole record.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::env::Dice;

/// What the store writes behind each record.
const TRAILER: &[u8] = b"FJL\x03";
/// So many zeros in a row are in no record.
const CHUNK_BYTES: u64 = 4096;

/// Writes the beginning of a record, cut at a random place, behind the last whole one of the
/// journal in `dir`; answers how many bytes, `None` when it has no record yet.
///
/// # Errors
/// Those of the file system.
pub(crate) fn tear(dir: &Path, dice: &Dice) -> io::Result<Option<usize>> {
    let Some(log) = active(dir)? else { return Ok(None) };
    let bytes = written(&log)?;
    let Some(end) = end_of_last(&bytes) else { return Ok(None) };
    let begin = end_of_last(&bytes[..end - TRAILER.len()]).unwrap_or(0);
    let record = &bytes[begin..end];
    let cut = 1 + dice.below(record.len() as u64 - 1) as usize;
    let mut file = OpenOptions::new().write(true).open(&log)?;
    file.seek(SeekFrom::Start(end as u64))?;
    file.write_all(&record[..cut])?;
    Ok(Some(cut))
}

/// What is in a log: the store makes its files larger than that, by zeros.
fn written(log: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut bytes) = (File::open(log)?, Vec::new());
    loop {
        let begin = bytes.len();
        (&mut file).take(CHUNK_BYTES).read_to_end(&mut bytes)?;
        if bytes[begin..].iter().all(|byte| *byte == 0) {
            bytes.truncate(begin);
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end);
            return Ok(bytes);
        }
    }
}

fn end_of_last(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(TRAILER.len()).rposition(|window| window == TRAILER)?;
    Some(at + TRAILER.len())
}

/// The file that the store appends to.
fn active(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|it| it == "jnl")) {
            logs.push((number, path));
        }
    }
    Ok(logs.into_iter().max().map(|(_, path)| path))
}
