//! Files that are read anew when they change: certificates, keys and identities.
//!
//! They are read on a clock and compared by what is in them, so that it does not matter how they were
//! replaced. What cannot be read or makes no sense is told once and changes nothing.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The hash of what was read.
pub(crate) type Digest = [u8; 32];

/// Reads files, and remembers what was in them.
#[derive(Debug, Default)]
pub(crate) struct Source(Sha256);

impl Source {
    /// What is in `path`. Blocks on the disk.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        let length = read.map_err(|error| error.to_string())? as u64;
        if length > MAX_FILE_BYTES {
            return Err(format!("it is longer than {MAX_FILE_BYTES} bytes"));
        }
        self.0.update(length.to_le_bytes());
        self.0.update(&bytes);
        Ok(bytes)
    }

    /// Of everything that was read.
    pub(crate) fn digest(self) -> Digest {
        self.0.finalize().into()
    }
}

/// Loads every `period`, and applies what is new, as a task of `tasks`. What is there at the first
/// look is taken for news.
pub(crate) fn follow<T: Send + 'static>(
    what: &'static str,
    period: Duration,
    tasks: &TaskGroup,
    load: impl Fn() -> Result<(T, Digest), String> + Send + Sync + 'static,
    apply: impl Fn(T) + Send + 'static,
) {
    let (group, load) = (tasks.clone(), std::sync::Arc::new(load));
    tasks.spawn(async move {
        let mut before: Option<Result<Digest, String>> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = group.stopping().cancelled() => return,
            }
            let (loaded, load) = (oneshot::channel(), std::sync::Arc::clone(&load));
            group.spawn_blocking(move || drop(loaded.0.send(load())));
            // A read that panicked is tried again.
            let Ok(loaded) = loaded.1.await else { continue };
            let (value, seen) = match loaded {
                Ok((value, digest)) => (Some(value), Ok(digest)),
                Err(why) => (None, Err(why)),
            };
            if before.as_ref() == Some(&seen) {
                continue;
            }
            match (value, &seen) {
                (Some(value), _) => {
                    // What the server began with is no change.
                    if before.is_some() {
                        tracing::info!("{what} have changed");
                    }
                    apply(value);
                }
                (None, Err(why)) => {
                    tracing::warn!(why, "{what} cannot be read: what was read last holds on");
                }
                (None, Ok(_)) => {}
            }
            before = Some(seen);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_changed_is_applied_and_what_is_broken_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let load = move || {
            let mut source = Source::default();
            let text = String::from_utf8(source.read(&path)?).map_err(|error| error.to_string())?;
            if text == "broken" { Err(text) } else { Ok((text, source.digest())) }
        };
        let (applied, tasks) = (Arc::new(Mutex::new(Vec::new())), TaskGroup::new());
        let seen = Arc::clone(&applied);
        let period = Duration::from_secs(1);
        follow("files", period, &tasks, load, move |text| seen.lock().push(text));
        for (written, expected) in [("one", 1), ("one", 1), ("broken", 1), ("one", 2), ("two", 3)] {
            std::fs::write(file.path(), written).unwrap();
            // The read itself takes real time, and the clock stands still meanwhile.
            tokio::time::sleep(3 * period).await;
            assert_eq!(applied.lock().len(), expected, "{written}");
        }
        assert_eq!(applied.lock().last().map(String::as_str), Some("two"));
        tasks.stop();
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert!(Source::default().read(Path::new("/dev/zero")).is_err());
    }
}
