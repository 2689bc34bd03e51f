//! A restore with nothing around it: what any driver in a compiled language has to do.
//!
//! It makes a directory with the files that the VMM wants there, starts the VMM by `posix_spawn`,
//! and has it load the snapshot and let the guest run.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use tokio::time::Instant;

/// For how long a socket is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of something that may be done on any thread.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The same error, for who stays on one thread.
pub(crate) fn plain(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error> {
    error
}

/// How one kind of VMM is driven.
pub(crate) trait Driver: Sync {
    /// Makes the files in `dir` and starts the VMM there.
    fn start(&self, dir: &Path) -> io::Result<Child>;

    /// Has the VMM in `dir`, which may have no socket yet, load the snapshot and let the guest run.
    fn load(&self, dir: &Path) -> Outcome;

    /// Asks the VMM in `dir` once whether its guest runs.
    fn ask(&self, dir: &Path) -> Outcome;
}

/// A VM that was restored; dropped, it is killed, and its directory removed.
#[derive(Debug)]
pub(crate) struct Restored {
    dir: PathBuf,
    child: Option<Child>,
}

/// Restores a VM by `driver` in `dir`, which is made for it. Blocks until its guest runs.
///
/// # Errors
/// Those of the system, and what the VMM refuses.
pub(crate) fn restore(driver: &dyn Driver, dir: PathBuf) -> Outcome<Restored> {
    fs::create_dir(&dir)?;
    let mut restored = Restored { dir, child: None };
    restored.child = Some(driver.start(&restored.dir)?);
    driver.load(&restored.dir)?;
    Ok(restored)
}

impl Restored {
    /// Where its VMM works.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Restores a VM and ends it; answers how long the restore took.
///
/// # Errors
/// As [`restore`].
pub(crate) fn timed(driver: &dyn Driver, dir: &Path) -> Outcome<Duration> {
    let begun = Instant::now();
    let restored = restore(driver, dir.to_owned())?;
    let took = begun.elapsed();
    drop(restored);
    Ok(took)
}

/// Connects to `socket` as soon as somebody listens there. Looks for it again after the first of
/// `pauses`, then after longer ones, up to the second.
///
/// # Errors
/// `TimedOut` when nobody ever does.
pub(crate) fn connect(socket: &Path, pauses: (Duration, Duration)) -> io::Result<UnixStream> {
    let (mut pause, longest) = pauses;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match UnixStream::connect(socket) {
            Err(error) if is_not_yet(&error) => std::thread::sleep(pause),
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => return Err(error),
        }
        pause = (pause * 3 / 2).min(longest);
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
