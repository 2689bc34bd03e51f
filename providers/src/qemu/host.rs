//! What this host's QEMU can do, found out once.
//!
//! That `/dev/kvm` opens proves nothing, so hardware acceleration counts only when the processor
//! has it and a canary lived with it: a QEMU whose firmware said something and then ended by
//! itself. A canary without a guest shows that the binary and its system call filter work.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::config::{Accel, QemuConfig};
use crate::error::{Result, VmRuntimeError};

/// The oldest QEMU that we can use: `file:` migrations with fixed offsets for RAM.
const OLDEST: (u32, u32) = (9, 0);
/// The most that a canary may take.
const CANARY_TIMEOUT: Duration = Duration::from_secs(20);
/// What the system call filter denies: what a VMM has no business doing.
pub(super) const SANDBOX: &str =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) binary: PathBuf,
    pub(super) version: String,
    pub(super) accel: &'static str,
    /// Why this one was chosen.
    pub(super) accel_reason: String,
    pub(super) cpu: &'static str,
    pub(super) machine: String,
    pub(super) sandboxed: bool,
}

impl Host {
    pub(super) fn probe(config: &QemuConfig) -> Result<Self> {
        let binary = in_path(&config.binary);
        let version = version_of(&binary)?;
        let mut host = Self {
            binary,
            version,
            accel: "tcg",
            accel_reason: String::new(),
            cpu: "max",
            machine: config.machine.clone(),
            sandboxed: true,
        };
        if let Err(error) = host.canary() {
            host.sandboxed = false;
            host.canary().map_err(|_| error)?;
        }
        let kvm = match config.accel {
            Accel::Tcg => Err("it was configured".to_owned()),
            Accel::Auto => hardware_virtualisation().and_then(|()| host.with_kvm()),
            Accel::Kvm => host.with_kvm(),
        };
        match (kvm, config.accel) {
            (Ok(kvm), _) => Ok(kvm),
            (Err(reason), Accel::Kvm) => Err(VmRuntimeError::Backend {
                what: format!("accel kvm was configured and does not work: {reason}"),
                source: None,
            }),
            (Err(reason), Accel::Auto | Accel::Tcg) => Ok(Self { accel_reason: reason, ..host }),
        }
    }

    /// What a snapshot has to agree with to be restored here.
    pub(super) fn made_with(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("qemu", self.version.as_str()),
            ("machine", &self.machine),
            ("accel", self.accel),
            ("cpu", self.cpu),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn with_kvm(&self) -> Result<Self, String> {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map_err(|error| format!("/dev/kvm: {error}"))?;
        let accel_reason = "a canary ran with it".to_owned();
        let host = Self { accel: "kvm", cpu: "host", accel_reason, ..self.clone() };
        // Only the firmware of x86 talks to whoever listens.
        let x86 = cfg!(target_arch = "x86_64");
        let lived = if x86 { host.booting_canary() } else { host.canary() };
        lived.map_err(|error| match &error {
            VmRuntimeError::Backend { source: Some(cause), .. } => format!("{error}: {cause}"),
            _ => error.to_string(),
        })?;
        Ok(host)
    }

    /// Runs a QEMU without a guest until it has answered a command.
    fn canary(&self) -> Result<()> {
        let mut command = self.canary_command();
        command.args(["-S", "-qmp", "stdio"]);
        let quit = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
        self.run_canary(command, quit, "\"return\"")
    }

    /// Runs a QEMU with nothing to boot, whose firmware then resets it, which ends it.
    fn booting_canary(&self) -> Result<()> {
        let mut command = self.canary_command();
        command.args(["-no-reboot", "-boot", "reboot-timeout=0"]);
        command.args(["-debugcon", "file:/dev/stderr", "-global", "isa-debugcon.iobase=0x402"]);
        self.run_canary(command, b"", "SeaBIOS")
    }

    fn canary_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-machine", &self.machine, "-accel", self.accel, "-cpu", self.cpu]);
        if self.sandboxed {
            command.args(["-sandbox", SANDBOX]);
        }
        command
    }

    fn run_canary(&self, command: Command, input: &[u8], sign_of_life: &str) -> Result<()> {
        let (status, output) = run(command, input)?;
        match status.success() && output.contains(sign_of_life) {
            true => Ok(()),
            false => Err(VmRuntimeError::Backend {
                what: format!("a canary of {} with {} failed", self.binary.display(), self.accel),
                source: Some(output.trim().to_owned().into()),
            }),
        }
    }
}

/// Where the shell would find it: VMs are started without an environment to look it up in. What
/// is not found keeps its name, and the error will have it.
fn in_path(program: &Path) -> PathBuf {
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

fn version_of(binary: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    let (_, output) = run(command, b"")?;
    let version = parse_version(&output).ok_or_else(|| VmRuntimeError::Backend {
        what: format!("{} does not say which QEMU it is", binary.display()),
        source: Some(output.trim().to_owned().into()),
    })?;
    let numbers = numbers(&version);
    if numbers < OLDEST {
        let what = format!(
            "{} is QEMU {version}, and {}.{} or newer is needed: {}",
            binary.display(),
            OLDEST.0,
            OLDEST.1,
            how_to_install()
        );
        return Err(VmRuntimeError::Backend { what, source: None });
    }
    Ok(version)
}

fn how_to_install() -> &'static str {
    "install qemu-system-x86 (or qemu-system-arm) of bookworm-backports or of a newer Debian"
}

/// From `QEMU emulator version 10.0.2 (Debian ...)`.
fn parse_version(output: &str) -> Option<String> {
    let version = output.split_once("emulator version ")?.1.split_ascii_whitespace().next()?;
    version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
}

fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The flags are of x86; elsewhere the canary alone decides.
fn hardware_virtualisation() -> Result<(), String> {
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

/// Runs a short-lived program to its end, or kills it.
fn run(mut command: Command, input: &[u8]) -> Result<(std::process::ExitStatus, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => VmRuntimeError::backend(
            format!("{program} is not there: {}, or name another binary", how_to_install()),
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
        let timeout = Timespec { tv_sec: CANARY_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        let what = format!("{program}, run as a canary,");
        return Err(VmRuntimeError::Timeout { what, after: CANARY_TIMEOUT });
    }
    let status = child.wait().map_err(failed)?;
    let mut text = Vec::new();
    output.rewind().map_err(failed)?;
    output.take(64 * 1024).read_to_end(&mut text).map_err(failed)?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c)";
        let version = parse_version(debian).unwrap();
        assert_eq!((version.as_str(), numbers(&version)), ("10.0.2", (10, 0)));
        assert!(numbers("7.2.19") < OLDEST && numbers("9.0.50") >= OLDEST);
        assert_eq!(parse_version("hello"), None);
        assert_eq!(parse_version("a version of mine"), None);
    }

    #[test]
    fn a_missing_binary_says_what_to_install() {
        let error = version_of(Path::new("/no/such/qemu")).unwrap_err();
        assert!(error.to_string().contains("install qemu-system"), "{error}");
    }

    #[test]
    fn another_program_is_not_taken_for_qemu() {
        let error = version_of(Path::new("/bin/true")).unwrap_err();
        assert!(error.to_string().contains("does not say which QEMU"), "{error}");
    }
}
