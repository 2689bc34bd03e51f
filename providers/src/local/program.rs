//! Programs of the host that are looked for, and run to find out what they can do.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::error::{Result, VmRuntimeError};

/// How much of a program's output is read.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// Where the shell would find `program`: VMs are started without an environment to look it up in.
/// What is not found keeps its name, and the error will have it.
pub(crate) fn in_path(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.canonicalize().unwrap_or_else(|_| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found
        .filter(|path| path.is_absolute())
        .find(|path| path.is_file())
        .unwrap_or_else(|| program.to_owned())
}

/// Runs a short-lived program on `input` to its end, or kills it past `timeout`; answers its
/// status and what it said on both outputs. Blocks.
///
/// # Errors
/// `Backend` when it cannot be run, saying `remedy` where it is not there; `Timeout`.
pub(crate) fn run(
    mut command: Command,
    input: &[u8],
    timeout: Duration,
    remedy: &str,
) -> Result<(ExitStatus, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => VmRuntimeError::backend(
            format!("{program} is not there: {remedy}, or name another binary"),
            error,
        ),
        _ => VmRuntimeError::backend(format!("run {program}"), error),
    };
    // A file, unlike a pipe, cannot be held open and waited for by what the program starts.
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let output = rustix::fs::memfd_create("output", flags).map_err(|error| failed(error.into()))?;
    let mut output = fs::File::from(output);
    command.stdout(output.try_clone().map_err(failed)?).stdin(Stdio::piped());
    command.stderr(output.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    // A program that takes no input may be gone already; its status will say so.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let ended = pid.is_some_and(|pid| {
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        let what = format!("{program}, run to find out what it can do,");
        return Err(VmRuntimeError::Timeout { what, after: timeout });
    }
    let status = child.wait().map_err(failed)?;
    let mut text = Vec::new();
    output.rewind().map_err(failed)?;
    output.take(MAX_OUTPUT_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// The model of the processor, as the kernel shows it; on ARM the numbers of implementer and part.
pub(crate) fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let arm = || Some(format!("{} {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(arm).unwrap_or_else(|| "unknown".to_owned())
}

/// Whether the processor shows that it can run guests.
///
/// # Errors
/// Why not, in words. Only x86 has flags for it: elsewhere the answer is yes.
pub(crate) fn hardware_virtualisation() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    match flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        true => Ok(()),
        false => Err("the processor shows neither vmx nor svm".to_owned()),
    }
}
