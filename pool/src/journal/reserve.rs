//! Space that is kept back in the journal's directory, so that VMs can be given back on a full
//! disk.
//!
//! It is a file of real blocks. When a write fails it is given up in favour of the log alone:
//! its blocks are freed and allocated behind the log's end at once, so that whatever else writes
//! to this disk (the disks of VMs, say) does not get them. While it is not there nothing is handed
//! out; it is made again as soon as there is room for twice its size, so that a disk at the edge
//! does not let every other acquire pass.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hearth_providers::beneath;
use parking_lot::Mutex;
use rustix::fs::OFlags;

/// How much is kept back: the records of some thousands of releases.
pub(super) const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// The space kept back, or not.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_held: Mutex<bool>,
}

impl Reserve {
    /// Keeps nothing back yet; what a former life kept stays.
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join("reserve"), is_held: Mutex::new(false) }
    }

    /// Keeps space back, unless it is. Blocks on the disk.
    ///
    /// # Errors
    /// There is no room for twice as much: then nothing is kept back that was not before.
    pub(super) fn make(&self) -> io::Result<()> {
        let mut is_held = self.is_held.lock();
        if *is_held {
            return Ok(());
        }
        if std::fs::metadata(&self.path).is_ok_and(|it| it.len() == RESERVE_BYTES) {
            *is_held = true;
            return Ok(());
        }
        self.allocate_and_halve().inspect_err(|_| drop(std::fs::remove_file(&self.path)))?;
        *is_held = true;
        Ok(())
    }

    fn allocate_and_halve(&self) -> io::Result<()> {
        let file = beneath::create(&self.path)?;
        allocate(&file, 2 * RESERVE_BYTES)?;
        file.set_len(RESERVE_BYTES)
    }

    /// Whether space is kept back.
    pub(super) fn is_held(&self) -> bool {
        *self.is_held.lock()
    }

    /// Gives the space to `log`, behind its end. What cannot be done is not: less is kept then.
    pub(super) fn give_to(&self, log: &Path) {
        let mut is_held = self.is_held.lock();
        *is_held = false;
        let _ = std::fs::remove_file(&self.path);
        let given = beneath::open(log, OFlags::WRONLY).and_then(|log| extend(&log));
        if let Err(error) = given {
            tracing::warn!(%error, "the log did not get all of the space that was kept back");
        }
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write(file, bytes),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    write(file, bytes)
}

/// Where blocks cannot be allocated they are written.
fn write(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0xA5), bytes), &mut file)?;
    file.sync_all()
}

/// Allocates blocks behind the end of `log`, which stays where it is: as many as there are.
#[cfg(target_os = "linux")]
fn extend(log: &File) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let (end, mut bytes) = (log.metadata()?.len(), RESERVE_BYTES);
    loop {
        match fallocate(log, FallocateFlags::KEEP_SIZE, end, bytes) {
            Err(rustix::io::Errno::NOSPC) if bytes > 64 * 1024 => bytes /= 2,
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(()),
            done => return Ok(done?),
        }
    }
}

/// The blocks that were freed are all that can be done here.
#[cfg(not(target_os = "linux"))]
fn extend(_log: &File) -> io::Result<()> {
    Ok(())
}
