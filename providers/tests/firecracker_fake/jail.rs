//! The jail: a directory with what Firecracker needs, owned by whom it runs as.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::process::{Resource, Rlimit, chroot, setrlimit};
use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};

/// A jail.
#[derive(Debug)]
pub(super) struct Jail {
    pub(super) root: PathBuf,
    /// The program's name in it.
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Jail {
    /// Copies the program in. What is there already is written over.
    pub(super) fn copy_program(&self, program: &Path) -> Result<(), String> {
        let target = self.root.join(&self.name);
        let opened =
            |path: &Path, error: io::Error| format!("Failed to open {}: {error}", path.display());
        let mut source = File::open(program).map_err(|error| opened(program, error))?;
        let mode = source.metadata().map_err(|error| opened(program, error))?.mode();
        let mut copy = OpenOptions::new();
        let copy = copy.write(true).create(true).truncate(false).mode(mode).open(&target);
        let mut copy = copy.map_err(|error| opened(&target, error))?;
        fchown(&copy, Some(self.uid), Some(self.gid)).map_err(|error| owner(&target, &error))?;
        let copied = io::copy(&mut source, &mut copy);
        copied.map(drop).map_err(|error| {
            format!("Failed to copy {} to {}: {error}", program.display(), target.display())
        })
    }

    /// Makes the directories and the devices. A device that is there already is refused: no
    /// jail is used twice.
    pub(super) fn furnish(&self) -> Result<(), String> {
        for folder in ["/", "/dev", "/dev/net", "/run"] {
            let path = self.outside(folder);
            let made = std::fs::create_dir_all(&path);
            made.map_err(|error| format!("Failed to create directory {folder}: {error}"))?;
            let set = std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700));
            set.map_err(|error| format!("Failed to change permissions on {folder}: {error}"))?;
            self.own(&path, folder)?;
        }
        self.make_device("/dev/net/tun", 10, 200)?;
        self.make_device("/dev/kvm", 10, 232)?;
        if let Err(reason) = self.make_device("/dev/urandom", 1, 9) {
            println!("Warning! Could not create /dev/urandom device inside jailer: {reason}.");
            println!("MMDS version 2 will not be available to use.");
        }
        match userfaultfd_minor() {
            Some(minor) => self.make_device("/dev/userfaultfd", 10, minor),
            None => Ok(()),
        }
    }

    /// Says in the jail which process runs there.
    pub(super) fn write_pid(&self, pid: u32) -> Result<(), String> {
        let inside = format!("/{}.pid", self.name);
        let file = OpenOptions::new().write(true).create_new(true).open(self.outside(&inside));
        let mut file = file.map_err(|error| format!("Failed to open file {inside}: {error}"))?;
        write!(file, "{pid}").map_err(|error| format!("Failed to write to {inside}: {error}"))
    }

    /// Shuts this process in, as the jail's owner. To be called while it has one thread.
    pub(super) fn enter(&self) -> Result<(), String> {
        let failed = |what: &str, error: rustix::io::Errno| {
            format!("Failed to {what}: {}", io::Error::from(error))
        };
        chroot(&self.root).map_err(|error| failed("pivot root", error))?;
        rustix::process::chdir("/")
            .map_err(|error| failed("chdir into chroot directory", error))?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[])
            .and_then(|()| set_thread_gid(gid))
            .and_then(|()| set_thread_uid(uid))
            .map_err(|error| failed("exec into Firecracker", error))
    }

    fn make_device(&self, inside: &str, major: u32, minor: u32) -> Result<(), String> {
        let path = self.outside(inside);
        let mode = Mode::RUSR | Mode::WUSR;
        let device = makedev(major, minor);
        let made = rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device);
        let made = match made {
            // Where nobody may make devices a file will do: the fake opens none of them.
            Err(rustix::io::Errno::PERM) => File::create_new(&path).map(drop),
            made => made.map_err(io::Error::from),
        };
        made.map_err(|error| {
            format!("Failed to create {inside} via mknod inside the jail: {error}")
        })?;
        self.own(&path, inside)
    }

    fn own(&self, path: &Path, inside: &str) -> Result<(), String> {
        let owned = std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid));
        owned.map_err(|error| owner(inside.as_ref(), &error))
    }

    fn outside(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }
}

fn owner(path: &Path, error: &io::Error) -> String {
    format!("Failed to change owner for {}: {error}", path.display())
}

/// The device's minor number is given out anew at each boot of the host.
fn userfaultfd_minor() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/misc").ok()?;
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| line.strip_suffix(" userfaultfd")?.trim().parse().ok())
}

/// Limits on what the process may use.
#[derive(Debug)]
pub(super) struct Limits {
    file_bytes: Option<u64>,
    open_files: u64,
}

impl Limits {
    pub(super) fn check(wanted: &[String]) -> Result<Self, String> {
        let mut limits = Self { file_bytes: None, open_files: 2048 };
        for wanted in wanted {
            let (name, value) = wanted
                .split_once('=')
                .ok_or_else(|| format!("Invalid format for resources limits: {wanted}"))?;
            let value: u64 = value
                .parse()
                .map_err(|error| format!("Invalid limit value for resource: {value}: {error}"))?;
            match name {
                "fsize" => limits.file_bytes = Some(value),
                "no-file" => limits.open_files = value,
                _ => return Err(format!("Invalid resource argument: {name}")),
            }
        }
        Ok(limits)
    }

    pub(super) fn apply(&self) -> Result<(), String> {
        let set = |resource, value| {
            let limit = Rlimit { current: Some(value), maximum: Some(value) };
            setrlimit(resource, limit).map_err(io::Error::from)
        };
        let set = self
            .file_bytes
            .map_or(Ok(()), |bytes| set(Resource::Fsize, bytes))
            .and_then(|()| set(Resource::Nofile, self.open_files));
        set.map_err(|error| format!("Failed to set limit for resource: {error}"))
    }
}
