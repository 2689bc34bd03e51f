//! Runs a command line tool to its end, within bounds.
//!
//! No shell is between us and the tool, and it has nothing to read: its input is closed. What it
//! writes goes to files without a name rather than to pipes, because a pipe can be held open by
//! what the tool leaves running, and would then be waited for. Both outputs and the time are
//! bounded; a tool that passes a bound is killed with all that is still in its process group, since
//! what it started would go on writing to a file that nobody sees. What a tool that ended well
//! leaves running goes on.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};

/// How much a tool may write to either output; a list of thousands of machines fits.
pub const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// How much of what a tool says on its error output is kept in an error.
const MAX_MESSAGE_BYTES: usize = 2048;

/// The longest pause between two looks at a running tool.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// One tool.
#[derive(Debug)]
pub struct Runner {
    program: PathBuf,
    remedy: &'static str,
}

/// What to run, and its bounds.
#[derive(Debug)]
pub struct Request<'a> {
    /// The argument vector, without the program.
    pub arguments: Vec<OsString>,
    /// How long it may take.
    pub timeout: Duration,
    /// Ends it when this becomes true.
    pub interrupted: Option<&'a AtomicBool>,
    /// So many bytes are enough: it is ended when it has written them, and that is no error.
    pub enough_bytes: Option<u64>,
}

impl<'a> Request<'a> {
    /// To run with `arguments` for `timeout` at most.
    pub fn new<A: Into<OsString>>(
        arguments: impl IntoIterator<Item = A>,
        timeout: Duration,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { arguments, timeout, interrupted: None, enough_bytes: None }
    }

    /// As this one; ends when `flag` becomes true.
    #[must_use]
    pub fn until(self, flag: &'a AtomicBool) -> Self {
        Self { interrupted: Some(flag), ..self }
    }
}

/// How a tool ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; unset when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained of: the end of it.
    pub stderr: String,
}

impl Runner {
    /// Runs `program`, by its path or as the shell would find it. `remedy` says what to do where
    /// it is not there.
    pub fn new(program: impl Into<PathBuf>, remedy: &'static str) -> Self {
        Self { program: program.into(), remedy }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs to the end; whatever exit code it has is an answer. Blocks.
    ///
    /// # Errors
    /// `Timeout`; `Unavailable` when it was interrupted; `Backend` when the program cannot be run
    /// or writes more than it may.
    pub fn run(&self, request: &Request<'_>) -> Result<Output> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                let what = format!("{} is not there: {}", self.program.display(), self.remedy);
                VmRuntimeError::backend(what, error)
            }
            _ => VmRuntimeError::backend(format!("run {}", self.program.display()), error),
        };
        let (mut stdout, mut stderr) =
            (nameless_file().map_err(failed)?, nameless_file().map_err(failed)?);
        let mut child = Command::new(&self.program)
            .args(&request.arguments)
            .env("LC_ALL", "C")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(failed)?)
            .stderr(stderr.try_clone().map_err(failed)?)
            // What a terminal sends to us is not for it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let waited = self.wait(&mut child, request, &stdout, &stderr);
        if !matches!(waited, Ok(Some(_))) {
            end_group(&mut child);
        }
        let code = waited?.unwrap_or(Some(0));
        let kept_bytes = request.enough_bytes.unwrap_or(MAX_OUTPUT_BYTES);
        let stdout = read_back(&mut stdout, kept_bytes).map_err(failed)?;
        let stderr = read_back(&mut stderr, MAX_OUTPUT_BYTES).map_err(failed)?;
        Ok(Output { code, stdout, stderr: message(&stderr) })
    }

    /// Runs to the end, which has to be a good one. Blocks.
    ///
    /// # Errors
    /// As [`Self::run`]; what the tool refuses by what it says of it (see [`refused`]).
    pub fn ask(&self, what: &str, request: &Request<'_>) -> Result<Vec<u8>> {
        let output = self.run(request)?;
        match output.code {
            Some(0) => Ok(output.stdout),
            code => Err(refused(what, code, &output.stderr)),
        }
    }

    /// Its exit code; `None` when it has said enough and is to be ended.
    fn wait(
        &self,
        child: &mut Child,
        request: &Request<'_>,
        stdout: &File,
        stderr: &File,
    ) -> Result<Option<Option<i32>>> {
        let program = self.program.display();
        let failed = |error| VmRuntimeError::backend(format!("wait for {program}"), error);
        let size_bytes = |file: &File| file.metadata().map(|data| data.len()).map_err(failed);
        let deadline = Deadline::after(request.timeout);
        let mut pause = Duration::from_millis(1);
        loop {
            // Looked at first: what has ended has written all that it will.
            let status = child.try_wait().map_err(failed)?;
            let written = size_bytes(stdout)?;
            if request.enough_bytes.is_some_and(|enough| written >= enough) {
                return Ok(status.map(|status| status.code()));
            }
            if written > MAX_OUTPUT_BYTES || size_bytes(stderr)? > MAX_OUTPUT_BYTES {
                let what = format!("{program} writes more than {MAX_OUTPUT_BYTES} bytes");
                return Err(VmRuntimeError::Backend { what, source: None });
            }
            if let Some(status) = status {
                return Ok(Some(status.code()));
            }
            if request.interrupted.is_some_and(|flag| flag.load(Ordering::Acquire)) {
                let what = format!("{program} was interrupted");
                return Err(VmRuntimeError::Unavailable { what, source: None });
            }
            let Some(left) = deadline.left() else {
                let what = self.called(request);
                return Err(VmRuntimeError::Timeout { what, after: request.timeout });
            };
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The program and the words before its first flag.
    fn called(&self, request: &Request<'_>) -> String {
        let words = request.arguments.iter().map(|word| word.to_string_lossy());
        let words = words.take_while(|word| !word.starts_with('-')).take(2);
        words.fold(self.program.display().to_string(), |called, word| called + " " + &word)
    }
}

/// What a tool refuses, typed as far as its words tell.
pub fn refused(what: &str, code: Option<i32>, stderr: &str) -> VmRuntimeError {
    // Notes and warnings come before the error itself.
    let error = stderr.rfind("\nError:").map_or(stderr, |at| &stderr[at..]);
    let said = error.trim().to_owned();
    let words = said.to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if has(&["no space left", "disk quota exceeded"]) {
        return VmRuntimeError::Exhausted {
            what: format!("disk space ({what}: {said})"),
            retry_after: None,
        };
    }
    if has(&["xpc connection", "connection refused", "system start", "timed out"]) {
        return VmRuntimeError::unavailable(what, said);
    }
    match (said.is_empty(), code) {
        (false, _) => VmRuntimeError::backend(what, said),
        (true, Some(code)) => VmRuntimeError::backend(what, format!("exit code {code}, no words")),
        (true, None) => VmRuntimeError::backend(what, "a signal ended it"),
    }
}

/// Kills a tool and what it started, but for what has left its process group. The group has the
/// child's own number, which is nobody else's until the child has been waited for.
fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A file that nobody else can open, and that is gone when it is closed.
fn nameless_file() -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-output-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        // Appending, both who writes it and what it starts add to the end.
        match options.read(true).append(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Left by a process of the same number that ended between the two.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_back(file: &mut File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn message(stderr: &[u8]) -> String {
    let kept = &stderr[stderr.len().saturating_sub(MAX_MESSAGE_BYTES)..];
    String::from_utf8_lossy(kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, timeout: Duration) -> Result<Output> {
        Runner::new("sh", "install it").run(&Request::new(["-c", script], timeout))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_tool_reads_nothing_and_both_outputs_are_kept_apart() {
        let output = run("cat; echo out; echo err >&2; exit 3", LONG).unwrap();
        let stdout = b"out\n".to_vec();
        assert_eq!(output, Output { code: Some(3), stdout, stderr: "err\n".to_owned() });
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let error = run("exec sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), "timeout");
    }

    #[test]
    fn what_a_tool_leaves_running_is_not_waited_for() {
        let output = run("sleep 20 & echo $!", LONG).unwrap();
        let pid = String::from_utf8(output.stdout).unwrap();
        let killed = Command::new("kill").arg(pid.trim()).status().unwrap();
        assert!(killed.success(), "it still ran");
    }

    #[test]
    fn a_flood_on_either_output_is_cut_off() {
        for script in ["cat /dev/zero", "cat /dev/zero >&2"] {
            let error = run(script, LONG).unwrap_err();
            assert_eq!(error.kind(), "backend");
            assert!(error.to_string().contains("writes more than"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_flooding_tool_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("cat /dev/zero & echo $! >{}; wait", file.display());
        assert_eq!(run(&script, LONG).unwrap_err().kind(), "backend");
        let pid = std::fs::read_to_string(file).unwrap();
        // Whoever is its parent now has yet to see that it has ended.
        let still_runs = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
            status.is_ok_and(|status| !status.contains("State:\tZ"))
        };
        let deadline = Deadline::after(LONG);
        while still_runs() {
            assert!(deadline.left().is_some(), "it still runs");
            std::thread::sleep(LONGEST_PAUSE);
        }
    }

    #[test]
    fn what_has_said_enough_is_ended() {
        let mut request = Request::new(["-c", "echo 12345678; exec sleep 1000"], LONG);
        request.enough_bytes = Some(4);
        let output = Runner::new("sh", "").run(&request).unwrap();
        assert_eq!((output.code, output.stdout.as_slice()), (Some(0), b"1234".as_slice()));
    }

    #[test]
    fn an_interrupted_tool_is_killed() {
        let flag = AtomicBool::new(true);
        let request = Request::new(["-c", "exec sleep 1000"], LONG).until(&flag);
        assert_eq!(Runner::new("sh", "").run(&request).unwrap_err().kind(), "unavailable");
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_the_remedy() {
        let runner = Runner::new("/nonexistent/tool", "install the tool");
        let error = runner.run(&Request::new(["x"], LONG)).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/tool is not there: install the tool");
    }

    #[test]
    fn arguments_are_not_read_by_a_shell() {
        let request = Request::new(["-c", "printf %s \"$1\"", "sh", "$(id); *"], LONG);
        let said = Runner::new("sh", "").ask("print", &request).unwrap();
        assert_eq!(said, b"$(id); *");
    }

    #[test]
    fn refusals_are_typed_by_what_they_say() {
        let kind = |said| refused("make", Some(1), said).kind();
        assert_eq!(kind("Error: No space left on device"), "exhausted");
        assert_eq!(kind("XPC connection error: run container system start"), "unavailable");
        assert_eq!(kind("Error: machine 'x' already exists"), "backend");
        assert_eq!(kind(""), "backend");
        let noted = refused("make", Some(1), "note: by the way\nError: no such thing\n");
        let cause = std::error::Error::source(&noted).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("Error: no such thing"));
    }
}
