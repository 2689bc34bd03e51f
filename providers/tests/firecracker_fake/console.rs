//! Standard output: the log of the VMM and, between its lines, what the guest writes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hearth_providers::env::{Env as _, SystemEnv};
use parking_lot::Mutex;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Console {
    id: String,
    log: Mutex<Option<File>>,
    serial: Mutex<Option<File>>,
}

impl Console {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), log: Mutex::new(None), serial: Mutex::new(None) }
    }

    /// Logs to this file from now on.
    pub(super) fn log_to(&self, path: &Path) -> std::io::Result<()> {
        *self.log.lock() = Some(open_to_append(path)?);
        Ok(())
    }

    /// Writes what the guest writes to this file from now on.
    pub(super) fn serial_to(&self, path: &Path) -> std::io::Result<()> {
        *self.serial.lock() = Some(open_to_append(path)?);
        Ok(())
    }

    /// A line of the log.
    pub(super) fn log(&self, thread: &str, message: &str) {
        let line = format!("{} [{}:{thread}] {message}\n", timestamp(), self.id);
        write_to(&mut self.log.lock(), &line);
    }

    /// Something that the guest writes.
    pub(super) fn guest(&self, text: &str) {
        write_to(&mut self.serial.lock(), text);
    }
}

/// Opens a file that is appended to, and makes it.
pub(super) fn open_to_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_to(file: &mut Option<File>, text: &str) {
    // A console that cannot be written to is no reason to end.
    let _ = match file {
        Some(file) => file.write_all(text.as_bytes()),
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
    };
}

/// Now, as the log has it: the date of the proleptic calendar and nanoseconds.
fn timestamp() -> String {
    let now = SystemEnv.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute, second) =
        (days + 1, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}")
}
