//! Copies of large files that may share their blocks, or have holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::beneath;

/// Between two of these whoever wants the copy to end is heard.
const PIECE_BYTES: usize = 64 << 20;

/// Makes `to` a copy of `from`, private to its owner: sharing its blocks where the file system
/// can, else with its holes. Ends early with `Interrupted` once `go_on` says no.
///
/// # Errors
/// Those of the file system.
pub(crate) fn copy(from: &Path, to: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let source = File::open(from)?;
    let target = beneath::create_new(to)?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let end = source.metadata()?.len();
    target.set_len(end)?;
    let mut position = 0;
    while position < end {
        // Past the last data there is nothing more to copy.
        let Some(start) = seek_or_none(&source, SeekFrom::Data(position))? else { break };
        let stop = seek_or_none(&source, SeekFrom::Hole(start))?.unwrap_or(end).min(end);
        copy_range(&source, &target, start, stop, go_on)?;
        position = stop.max(start + 1);
    }
    Ok(())
}

fn seek_or_none(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, to) {
        Ok(position) => Ok(Some(position)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_range(
    source: &File,
    target: &File,
    start: u64,
    stop: u64,
    go_on: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut position = start;
    while position < stop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = usize::try_from(stop - position).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let (mut from, mut to) = (position, position);
        let copied = match copy_file_range(source, Some(&mut from), target, Some(&mut to), count) {
            Ok(copied) => copied,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                copy_by_hand(source, target, position, count.min(1 << 20))?
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if copied == 0 {
            // The file became shorter meanwhile.
            break;
        }
        position += copied as u64;
    }
    Ok(())
}

fn copy_by_hand(source: &File, target: &File, at: u64, count: usize) -> io::Result<usize> {
    let mut bytes = vec![0; count];
    let read = source.read_at(&mut bytes, at)?;
    target.write_all_at(&bytes[..read], at)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create_new(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"in the middle", 32 << 20).unwrap();
        file.write_all_at(b"near the end", (64 << 20) - 100).unwrap();
        copy(&from, &to, &|| true).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert!(to.metadata().unwrap().blocks() < 1024, "holes are not written");
        let error = copy(&from, &dir.path().join("other"), &|| false);
        let shares_blocks = error.is_ok();
        assert!(shares_blocks || error.unwrap_err().kind() == io::ErrorKind::Interrupted);
    }
}
