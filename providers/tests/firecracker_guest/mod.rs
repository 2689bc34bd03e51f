//! Builds the tiny guest for real Firecracker, with `as` and `ld` of binutils.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the guest into `dir`; answers its path. It writes `READY` on its serial port, and then
/// `count 1`, `count 2` and so on. Blocks for some milliseconds.
///
/// # Errors
/// What this host lacks, in words.
pub(crate) fn build(dir: &Path) -> Result<PathBuf, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the tiny guest is for x86-64 alone".to_owned());
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firecracker_guest");
    let (object, guest) = (dir.join("guest.o"), dir.join("guest.elf"));
    let mut assembler = Command::new("as");
    assembler.arg("--64").arg("-o").arg(&object).arg(sources.join("guest.s"));
    run(&mut assembler)?;
    let mut linker = Command::new("ld");
    // It is one segment on purpose: a page of it is all that a snapshot has to keep apart.
    linker.args(["-static", "-nostdlib", "-n", "--no-warn-rwx-segments", "-T"]);
    linker.arg(sources.join("guest.ld")).arg("-o").arg(&guest).arg(&object);
    run(&mut linker)?;
    Ok(guest)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.map_err(|error| format!("cannot run {program} of binutils: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
