//! What is kept of VMs that ended by themselves, once they are destroyed: `<state>/quarantine/` has a
//! directory of each, with how it ended and the last of what its guest and its VMM said.
//!
//! It is for people, and nothing reads it again. Its bounds hold whatever fails how often: so many VMs,
//! so many bytes of each, so long. Several providers share it; who writes last sweeps.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::Serialize;

use crate::beneath;
use crate::error::Result;
use crate::files;
use crate::id::Uid;
use crate::model::{Failure, VmView};

/// Where it is kept, in the state directory.
pub const DIR: &str = "quarantine";
/// The most VMs of which something is kept.
pub const MAX_VMS: usize = 64;
/// The most that is kept of what one of them wrote into a file, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 10;
/// The most files of one of them.
pub const MAX_FILES: usize = 3;
/// For how long.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

const FAILURE: &str = "failure.json";

#[derive(Debug, Serialize)]
struct Record<'a> {
    vm_id: &'a str,
    uid: Uid,
    provider: &'a str,
    tags: &'a std::collections::BTreeMap<String, String>,
    create_time: SystemTime,
    destroy_time: SystemTime,
    failure: &'a Failure,
}

/// Keeps what `dir`, which is about to go, has of a VM that ended by itself. Answers where.
///
/// # Errors
/// Those of the file system; nothing is kept then.
pub(super) fn keep(
    quarantine: &Path,
    dir: &Path,
    provider: &str,
    view: &VmView,
    now: SystemTime,
) -> Result<Option<PathBuf>> {
    let Some(failure) = &view.failure else { return Ok(None) };
    let failed = |error| files::io_error(format!("keep evidence of {}", view.uid), error);
    // First: what is kept beside must not pass the bounds even for a moment.
    sweep(quarantine, now, MAX_VMS - 1);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Names sort by age.
    let into = quarantine.join(format!("{:013}-{}", since.as_millis(), view.uid));
    beneath::private_dir(&into).map_err(failed)?;
    let record = Record {
        vm_id: view.vm_id.as_str(),
        uid: view.uid,
        provider,
        tags: &view.tags,
        create_time: view.create_time,
        destroy_time: now,
        failure,
    };
    let kept = files::write_json(&into.join(FAILURE), &record)
        .and_then(|()| copy_words(dir, &into).map_err(failed));
    kept.inspect_err(|_| files::remove_dir(&into))?;
    // Others may have kept theirs meanwhile.
    sweep(quarantine, now, MAX_VMS);
    Ok(Some(into))
}

/// The ends of what a machine's program and its guest have said.
fn copy_words(from: &Path, into: &Path) -> io::Result<()> {
    let is_words = |name: &String| name == "console" || name.ends_with(".log");
    for name in files::files_in(from)?.iter().filter(|name| is_words(name)).take(MAX_FILES) {
        let mut file = beneath::open(&from.join(name), OFlags::RDONLY)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_FILE_BYTES)))?;
        let mut end = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut end)?;
        beneath::create_new(&into.join(name))?.write_all(&end)?;
    }
    Ok(())
}

/// Removes what is too old, and the oldest until `most` are left. What is called otherwise than by us is
/// not touched.
pub(super) fn sweep(quarantine: &Path, now: SystemTime, most: usize) {
    // What is not there, or leads elsewhere, has nothing of ours.
    let found = beneath::open_dir(quarantine).and_then(|_| fs::read_dir(quarantine));
    let mut kept: Vec<_> = found
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((kept_since(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(most);
    for (number, (since, path)) in kept.into_iter().enumerate() {
        let is_old = now.duration_since(since).is_ok_and(|age| age > KEPT_FOR);
        if number < surplus || is_old {
            files::remove_dir(&path);
        }
    }
}

fn kept_since(name: &str) -> Option<SystemTime> {
    let (millis, uid) = name.split_once('-')?;
    uid.parse::<Uid>().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis.parse().ok()?))
}
