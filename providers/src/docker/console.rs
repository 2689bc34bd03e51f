//! A VM's console: what its container writes, followed into a file of the instance's, where an
//! offset means the same byte for ever.

use std::io::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;

use super::machine::Machine;
use super::shared::Shared;

/// How long to wait before a log that has ended is asked for again.
const BACKOFF: Duration = Duration::from_millis(500);

/// Follows while the machine lives. After a restart of ours (`again`) it goes on where the file
/// ends; what the engine has dropped of its log by then is lost.
pub(super) async fn follow(shared: Arc<Shared>, machine: Weak<Machine>, again: bool) {
    let Some(mut written) = length_of(&machine) else { return };
    if again && let Some(logged) = shared.logged(&machine).await {
        written = written.min(logged);
    }
    while let Some(living) = machine.upgrade().filter(|machine| !machine.is_over()) {
        let container = living.container().to_owned();
        drop(living);
        shared.follow_once(&container, &machine, &mut written).await;
        tokio::time::sleep(BACKOFF).await;
    }
}

fn length_of(machine: &Weak<Machine>) -> Option<u64> {
    let path = machine.upgrade()?.console.path().to_owned();
    Some(std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
}

impl Shared {
    /// How many bytes there are in the engine's log.
    async fn logged(&self, machine: &Weak<Machine>) -> Option<u64> {
        let container = machine.upgrade()?.container().to_owned();
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("all").build();
        let mut pieces = std::pin::pin!(self.client.logs(&container, Some(options)));
        let mut bytes = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            bytes += piece.as_ref().len() as u64;
        }
        Some(bytes)
    }

    /// Writes what the engine has, but for the first `written` bytes, which are there already.
    async fn follow_once(&self, container: &str, machine: &Weak<Machine>, written: &mut u64) {
        let options =
            LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).tail("all").build();
        let mut pieces = std::pin::pin!(self.client.logs(container, Some(options)));
        let opened = machine.upgrade().map(|machine| machine.console.open_to_append());
        let mut file = match opened {
            Some(Ok(file)) => file,
            Some(Err(error)) => {
                tracing::warn!(container, %error, "a console cannot be opened");
                return;
            }
            None => return,
        };
        let mut position = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            let bytes = piece.into_bytes();
            let known = usize::try_from(*written - position.min(*written)).unwrap_or(usize::MAX);
            position += bytes.len() as u64;
            let new = bytes.get(known.min(bytes.len())..).unwrap_or_default();
            let Some(machine) = machine.upgrade().filter(|machine| !machine.is_doomed()) else {
                return;
            };
            if new.is_empty() {
                continue;
            }
            if let Err(error) = file.write_all(new) {
                tracing::warn!(uid = %machine.uid, %error, "a console cannot be written");
                return;
            }
            machine.console.trim();
            *written = position;
        }
    }
}
