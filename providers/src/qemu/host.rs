//! What this host's QEMU can do, found out once.
//!
//! That `/dev/kvm` opens proves nothing, so hardware acceleration counts only when the processor
//! has it and a canary lived with it: a QEMU whose firmware said something and then ended by
//! itself. A canary without a guest shows that the binary and its system call filter work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::config::{Accel, QemuConfig, User};
use crate::error::{Result, VmRuntimeError};
use crate::local::program;

/// The oldest QEMU that we can use: `file:` migrations with fixed offsets for RAM.
const OLDEST: (u32, u32) = (9, 0);
/// The oldest that can become another user.
const OLDEST_WITH_USER: (u32, u32) = (9, 1);
/// The most that a canary may take.
const CANARY_TIMEOUT: Duration = Duration::from_secs(20);
/// What the system call filter denies: what a VMM has no business doing.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// The same for one that becomes another user, for which it needs the calls that are otherwise denied. It can
/// gain nothing by them afterwards.
const SANDBOX_OF_USER: &str =
    "on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny";

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
    /// Whom each QEMU becomes.
    pub(super) user: Option<User>,
}

impl Host {
    pub(super) fn probe(config: &QemuConfig) -> Result<Self> {
        let binary = program::in_path(&config.binary);
        let version = version_of(&binary)?;
        if let Some(user) = config.user {
            let is_root = rustix::process::geteuid().is_root();
            can_become(user, &version, is_root)
                .map_err(|what| VmRuntimeError::Backend { what, source: None })?;
        }
        let mut host = Self {
            binary,
            version,
            accel: "tcg",
            accel_reason: String::new(),
            cpu: "max",
            machine: config.machine.clone(),
            sandboxed: true,
            user: config.user,
        };
        if let Err(error) = host.canary() {
            host.sandboxed = false;
            host.canary().map_err(|_| error)?;
        }
        let kvm = match config.accel {
            Accel::Tcg => Err("it was configured".to_owned()),
            Accel::Auto => program::hardware_virtualisation().and_then(|()| host.with_kvm()),
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

    /// The options that take rights from a QEMU, each with its value.
    pub(super) fn confinement(&self) -> [Vec<String>; 2] {
        let sandbox = if self.user.is_some() { SANDBOX_OF_USER } else { SANDBOX };
        let sandbox = self.sandboxed.then(|| ["-sandbox".to_owned(), sandbox.to_owned()]);
        let user = self.user.map(|user| ["-run-with".to_owned(), format!("user={user}")]);
        [sandbox, user].map(|option| option.map(Vec::from).unwrap_or_default())
    }

    /// What a snapshot has to agree with to be restored here.
    pub(super) fn made_with(&self) -> BTreeMap<String, String> {
        // What is emulated is the same everywhere; else the guest has seen the processor itself.
        let cpu = match self.accel {
            "kvm" => format!("{} ({})", self.cpu, program::cpu_model()),
            _ => self.cpu.to_owned(),
        };
        let pairs = [
            ("qemu", self.version.clone()),
            ("machine", self.machine.clone()),
            ("accel", self.accel.to_owned()),
            ("cpu", cpu),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
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
        command.args(self.confinement().iter().flatten());
        command
    }

    fn run_canary(&self, command: Command, input: &[u8], sign_of_life: &str) -> Result<()> {
        let (status, output) = program::run(command, input, CANARY_TIMEOUT, how_to_install())?;
        match status.success() && output.contains(sign_of_life) {
            true => Ok(()),
            false => Err(VmRuntimeError::Backend {
                what: format!("a canary of {} with {} failed", self.binary.display(), self.accel),
                source: Some(output.trim().to_owned().into()),
            }),
        }
    }
}

fn version_of(binary: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    let (_, output) = program::run(command, b"", CANARY_TIMEOUT, how_to_install())?;
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

/// Whether a QEMU of this version can become `user`, with nothing that it had as the user that starts it. Who is not
/// root keeps its capabilities, if it has any, when it becomes somebody else.
fn can_become(user: User, version: &str, is_root: bool) -> std::result::Result<(), String> {
    if !is_root {
        return Err(format!(
            "a QEMU can become user {user} only where hearth is root, and it is not: run it as root, or \
             configure no user"
        ));
    }
    if numbers(version) < OLDEST_WITH_USER {
        let (major, minor) = OLDEST_WITH_USER;
        return Err(format!(
            "QEMU {version} cannot become user {user}: {major}.{minor} or newer can; {}, or configure no user",
            how_to_install()
        ));
    }
    Ok(())
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
    fn only_a_new_qemu_of_root_becomes_another_user() {
        let user = "7071:7072".parse().unwrap();
        can_become(user, "9.1.0", true).unwrap();
        can_become(user, "10.0.2", true).unwrap();
        for (version, is_root, why) in [("9.0.2", true, "9.1 or newer"), ("10.0.2", false, "root")]
        {
            let error = can_become(user, version, is_root).unwrap_err();
            assert!(error.contains(why) && error.contains("7071:7072"), "{error}");
        }
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
