//! Guests: the tiny one of the providers' tests, built with `as` and `ld` of binutils, and the one with an
//! agent that `scripts/guest` builds.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hearth_providers::VmSpec;

/// What the tiny guest writes when it runs.
pub(crate) const MARKER: &str = "count 3\n";
/// What the guest with the agent writes when it is up.
pub(crate) const AGENT_MARKER: &str = "READY";

const SOURCE: &str = include_str!("../../../../../providers/tests/firecracker_guest/guest.s");
const LAYOUT: &str = include_str!("../../../../../providers/tests/firecracker_guest/guest.ld");

/// Builds the guest into `dir`; answers its path. It writes `count 1`, `count 2` and so on on its
/// serial port. Blocks for some milliseconds.
///
/// # Errors
/// What this host lacks, in words.
pub(crate) fn build(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the tiny guest is for x86-64 alone".into());
    }
    fs::write(dir.join("guest.s"), SOURCE)?;
    fs::write(dir.join("guest.ld"), LAYOUT)?;
    run(dir, "as", &["--64", "-o", "guest.o", "guest.s"])?;
    let layout = ["-static", "-nostdlib", "-n", "--no-warn-rwx-segments", "-T", "guest.ld"];
    run(dir, "ld", &[&layout[..], &["-o", "guest.elf", "guest.o"]].concat())?;
    Ok(dir.join("guest.elf"))
}

/// A machine with the guest of `scripts/guest`, if that was built. It is looked for where
/// `HEARTH_GUEST_DIR` says, else where the script puts it.
pub(crate) fn agent() -> Option<VmSpec> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    let dir = std::env::var_os("HEARTH_GUEST_DIR").map_or(built, PathBuf::from);
    let at = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
    let (kernel, initrd, rootfs) = (at("vmlinuz")?, at("initrd.cpio.gz")?, at("rootfs.ext4")?);
    let (kernel, initrd, rootfs) = (Some(kernel), Some(initrd), Some(rootfs));
    Some(VmSpec { kernel, initrd, rootfs, ..VmSpec::default() })
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.map_err(|error| format!("cannot run {program} of binutils: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
