//! What this host's Firecracker can do, found out once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::config::FirecrackerConfig;
use crate::error::{Result, VmRuntimeError};
use crate::local::program;

/// The oldest that we can use.
const OLDEST: Version = Version(1, 10, 0);
/// What takes longer to say its version hangs.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
const REMEDY: &str = "unpack a release of Firecracker into a directory of PATH";

/// A version, compared by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) binary: PathBuf,
    pub(super) version: String,
    numbers: Version,
    /// The version of the snapshots' format, as `10.0.0`.
    pub(super) snapshot_format: String,
    /// The jailer's path and version.
    pub(super) jailer: Option<(PathBuf, String)>,
    cpu_model: String,
    kernel: String,
}

impl Host {
    pub(super) fn probe(config: &FirecrackerConfig) -> Result<Self> {
        let binary = program::in_path(&config.binary);
        let version = version_of(&binary, "--version", "Firecracker v")?;
        let numbers = Version::parse(&version);
        if numbers < OLDEST {
            let Version(major, minor, _) = OLDEST;
            let what = format!(
                "{} is Firecracker {version}, and {major}.{minor} or newer is needed: {REMEDY}",
                binary.display()
            );
            return Err(VmRuntimeError::Backend { what, source: None });
        }
        let snapshot_format = version_of(&binary, "--snapshot-version", "v")?;
        let jailer = config.jailer.as_ref().map(|jailer| {
            let path = program::in_path(&jailer.binary);
            version_of(&path, "--version", "Jailer v").map(|version| (path, version))
        });
        let jailer = jailer.transpose()?;
        if let Some((path, of_jailer)) = &jailer
            && *of_jailer != version
        {
            let what = format!(
                "{} is of version {of_jailer} and {} of version {version}: they go together",
                path.display(),
                binary.display()
            );
            return Err(VmRuntimeError::Backend { what, source: None });
        }
        let (cpu_model, kernel) = (program::cpu_model(), kernel_release());
        Ok(Self { binary, version, numbers, snapshot_format, jailer, cpu_model, kernel })
    }

    /// What a snapshot has to agree with to be restored here: Firecracker promises a restore on
    /// the same processor model and kernel by the same version only, and does not check.
    pub(super) fn made_with(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("firecracker", &self.version),
            ("snapshot_format", &self.snapshot_format),
            ("cpu_model", &self.cpu_model),
            ("kernel", &self.kernel),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// A restore can replace TAP devices.
    pub(super) fn has_network_overrides(&self) -> bool {
        self.numbers >= Version(1, 12, 0)
    }

    /// A restore can move the vsock's socket.
    pub(super) fn has_vsock_override(&self) -> bool {
        self.numbers >= Version(1, 16, 0)
    }

    /// A restore can set the guest's clock.
    pub(super) fn has_clock_realtime(&self) -> bool {
        self.numbers >= Version(1, 16, 0)
    }

    /// After a pause without a snapshot the vsock delivers nothing any more (their issue 6100).
    pub(super) fn pause_hangs_vsock(&self) -> bool {
        self.numbers < Version(1, 17, 0)
    }
}

/// Whether VMs can run here, and by what; for people.
///
/// # Errors
/// Why not.
pub fn kvm() -> Result<String, String> {
    let path = Path::new("/dev/kvm");
    let device = path.metadata().map_err(|error| format!("{}: {error}", path.display()))?;
    if !device.file_type().is_char_device() {
        return Err(format!("{} is not a device", path.display()));
    }
    let opened = fs::OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(match program::hardware_virtualisation() {
        Ok(()) => "hardware".to_owned(),
        Err(why) => format!("software: {why}, so most guest kernels do not run"),
    })
}

impl Version {
    fn parse(text: &str) -> Self {
        let digits = |part: &str| {
            let end = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().unwrap_or(0)
        };
        let mut parts = text.split('.').map(digits);
        let mut next = || parts.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

/// What follows `prefix` on the first line that begins with it.
fn version_of(binary: &Path, flag: &str, prefix: &str) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg(flag);
    let (_, output) = program::run(command, b"", VERSION_TIMEOUT, REMEDY)?;
    let found = output.lines().find_map(|line| {
        let version = line.strip_prefix(prefix)?.trim();
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    });
    found.ok_or_else(|| VmRuntimeError::Backend {
        what: format!("{} does not say which version it is ({flag})", binary.display()),
        source: Some(output.trim().to_owned().into()),
    })
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert_eq!(Version::parse("1.16.1"), Version(1, 16, 1));
        assert_eq!(Version::parse("1.17.0-dev"), Version(1, 17, 0));
        assert!(Version::parse("1.9.1") < OLDEST && OLDEST < Version::parse("1.16.1"));
    }

    #[test]
    fn another_program_is_not_taken_for_firecracker() {
        let config = FirecrackerConfig { binary: "/bin/true".into(), ..Default::default() };
        let error = Host::probe(&config).unwrap_err();
        assert!(error.to_string().contains("does not say which version"), "{error}");
        let config = FirecrackerConfig { binary: "/no/such".into(), ..Default::default() };
        let error = Host::probe(&config).unwrap_err();
        assert!(error.to_string().contains("release of Firecracker"), "{error}");
    }
}
