//! Brings the machine up: file systems, kernel modules, the disk.
//!
//! Nothing here is fatal. A guest without its disk or a module still answers, and its
//! console says what is missing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

use crate::console;
use crate::device;

/// Where the disk is mounted, or a file system in memory when there is none.
const DATA_DIR: &str = "/data";

/// The disk: the first virtio block device.
const DISK: &str = "/dev/vda";

/// Names of the kernel modules to load, one a line, each after those that it needs.
const MODULES: &str = "/modules/order";

/// Mounts, loads and mounts again; returns the directory in which data is kept.
pub(crate) fn bring_up() -> PathBuf {
    for (kind, dir) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount_or_say(kind, dir, kind);
    }
    load_modules();
    let data = Path::new(DATA_DIR);
    if !(disk_appears() && mount_or_say(DISK, DATA_DIR, "ext4")) {
        mount_or_say("tmpfs", DATA_DIR, "tmpfs");
    }
    data.to_path_buf()
}

/// Mounts `source` on `dir`, which is made when it is missing; says on the console what failed.
fn mount_or_say(source: &str, dir: &str, kind: &str) -> bool {
    // It usually exists, and if it cannot be made the mount says so.
    let _ = rustix::fs::mkdirat(CWD, dir, rustix::fs::Mode::from_raw_mode(0o755));
    match mount(source, dir, kind, MountFlags::empty(), None) {
        Ok(()) => true,
        // The kernel can be built to mount /dev by itself.
        Err(Errno::BUSY) => true,
        Err(error) => {
            console::line(&format!("agent: cannot mount {source} on {dir}: {error}"));
            false
        }
    }
}

fn load_modules() {
    let Ok(order) = fs::read_to_string(MODULES) else { return };
    for name in order.lines() {
        let loaded = File::open(Path::new("/modules").join(name))
            .and_then(|file| Ok(finit_module(&file, c"", 0)?));
        match loaded {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
            Err(error) => console::line(&format!("agent: cannot load {name}: {error}")),
        }
    }
}

/// Whether there is a disk. A driver finds its devices when it is loaded, so a disk that is
/// on the bus only needs a moment for its node; none is waited for that is not there.
fn disk_appears() -> bool {
    const TRIES: u32 = 200;
    let expected = device::is_present(device::Virtio::Block);
    for _ in 0..TRIES {
        if Path::new(DISK).exists() {
            return true;
        }
        if !expected {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    console::line(&format!("agent: {DISK} did not appear"));
    false
}
