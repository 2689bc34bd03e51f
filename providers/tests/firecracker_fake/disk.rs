//! The guest's files, on the first writable drive, so that a copy of the drive is a copy of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The most that the files take, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The texts that a guest keeps, by their names.
pub(super) type Files = BTreeMap<String, String>;

/// What is on a drive; one that the guest has not written to yet holds nothing.
pub(super) fn read(drive: &File) -> io::Result<Files> {
    Ok(serde_json::from_slice(&text(drive)?).unwrap_or_default())
}

/// Replaces what is on a drive.
pub(super) fn write(drive: &File, files: &Files) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(files)?;
    if bytes.len() as u64 >= room(drive)? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    // A zero ends the text; what was longer before must not show behind it.
    let before = text(drive)?.len();
    bytes.resize(bytes.len().max(before) + 1, 0);
    bytes.truncate(usize::try_from(room(drive)?).unwrap_or(usize::MAX));
    drive.write_all_at(&bytes, 0)
}

fn text(drive: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(room(drive)?).unwrap_or(0)];
    drive.read_exact_at(&mut bytes, 0)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    // An image that others made begins with something else.
    if bytes.first().is_some_and(|byte| *byte != b'{') {
        bytes.clear();
    }
    Ok(bytes)
}

fn room(drive: &File) -> io::Result<u64> {
    Ok(drive.metadata()?.len().min(MAX_BYTES))
}
