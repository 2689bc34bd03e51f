//! The guest's agent: one line asks, one line answers.

use super::disk;
use super::guest::State;

/// The longest line, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 4096;

/// The most that a guest without a drive keeps, in bytes.
const MAX_KEPT_BYTES: usize = 2048;

/// What comes of a line.
pub(super) enum Reply {
    /// This line.
    Line(String),
    /// The line `ok`; then the guest ends, after this on its console.
    Ends(&'static str),
}

/// Answers one line.
pub(super) fn answer(state: &mut State, line: &str) -> Reply {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    Reply::Line(match verb {
        "ping" => {
            let memory = &mut state.memory;
            memory.pings += 1;
            let (pings, boot_id) = (memory.pings, &memory.boot_id);
            let name = memory.name.as_deref().unwrap_or("-");
            format!("pong counter={pings} boot_id={boot_id} name={name}")
        }
        "name" => {
            state.memory.name = Some(rest.to_owned());
            format!("ok name={rest}")
        }
        "echo" => format!("echo {rest}"),
        "write" => match rest.split_once(' ') {
            Some((file, text)) => match write(state, file, text) {
                Ok(()) => format!("ok bytes={}", text.len()),
                Err(error) => format!("error cannot write {file}: {error}"),
            },
            None => "error unknown request".to_owned(),
        },
        "read" => match read(state, rest) {
            Ok(Some(text)) => format!("data {text}"),
            Ok(None) => format!("error cannot read {rest}: no such file"),
            Err(error) => format!("error cannot read {rest}: {error}"),
        },
        "interfaces" => {
            let pairs = state.interfaces.iter().map(|(id, device)| format!(" {id}={device}"));
            format!("interfaces{}", pairs.collect::<String>())
        }
        "poweroff" => return Reply::Ends("agent: powering off\n"),
        "panic" => return Reply::Ends("Kernel panic - not syncing: agent: panic asked for\n"),
        _ => "error unknown request".to_owned(),
    })
}

fn write(state: &mut State, file: &str, text: &str) -> std::io::Result<()> {
    let Some(drive) = &state.drive else {
        let kept = &mut state.memory.files;
        let used: usize = kept.iter().map(|(name, text)| name.len() + text.len()).sum();
        if used + file.len() + text.len() > MAX_KEPT_BYTES {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        kept.insert(file.to_owned(), text.to_owned());
        return Ok(());
    };
    let mut files = disk::read(drive)?;
    files.insert(file.to_owned(), text.to_owned());
    disk::write(drive, &files)
}

fn read(state: &State, file: &str) -> std::io::Result<Option<String>> {
    match &state.drive {
        Some(drive) => Ok(disk::read(drive)?.get(file).cloned()),
        None => Ok(state.memory.files.get(file).cloned()),
    }
}
