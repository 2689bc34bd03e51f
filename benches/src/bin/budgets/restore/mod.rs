//! A restore through a provider against the same restore by a bare driver.
//!
//! Both start the same program with the same arguments, on the same files, in the same run, and take
//! turns in blocks. The provider's part is `create_vm_with_spec` with `restore_from` and
//! `resume_immediately`: it ends with a guest that runs. What `bare` leaves out is the price of
//! everything that the provider adds. Ending the VMs is not measured.

pub(crate) mod bare;
pub(crate) mod firecracker;
pub(crate) mod guest;
pub(crate) mod node;
pub(crate) mod qemu;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bare::{Driver, plain};
use firecracker::Firecracker;
use hearth_benches::budget::{Bound, Row};
use hearth_benches::median;
use hearth_providers::VmSpec;
use node::Node;
use qemu::Qemu;

use crate::turns::compare;
use crate::{Extent, Shown};

const BOUND: Bound = Bound::AtMost(1.1);
const ROOTFS_BYTES: usize = 1 << 20;

/// Measures the budget of a restore, on each kind of VMM that is here.
///
/// # Errors
/// When one that is here does not work.
pub(crate) fn measure(extent: Extent) -> Result<Shown, Box<dyn Error>> {
    let what = |kind: &str| format!("restore through the provider, {kind}");
    let dir = tempfile::tempdir()?;
    let mut rows = Vec::new();
    match firecracker_here() {
        Err(why) => rows.push(Row::not_measured(what("firecracker"), BOUND, why)),
        Ok(program) => {
            let kernel = guest::build(dir.path())?;
            let rootfs = dir.path().join("rootfs");
            fs::write(&rootfs, vec![7; ROOTFS_BYTES])?;
            for (name, rootfs) in [("no drive", None), ("1 MiB drive", Some(rootfs))] {
                let kernel = Some(kernel.clone());
                let spec = VmSpec { kernel, rootfs, ..VmSpec::default() };
                let state = dir.path().join(name.replace(' ', "-"));
                let provider = node::firecracker(&program, &state)?;
                let node = Node::with_template(provider, &state, &spec, guest::MARKER)?;
                let snapshot = node.snapshot_dir.clone();
                let bare = Firecracker { program: program.clone(), snapshot };
                let what = what(&format!("firecracker, {name}"));
                rows.push(row(what, &node, &bare, dir.path(), extent)?);
            }
        }
    }
    match qemu_here() {
        Err(why) => rows.push(Row::not_measured(what("qemu"), BOUND, why)),
        Ok(spec) => {
            let state = dir.path().join("qemu");
            let node =
                Node::with_template(node::qemu(&state)?, &state, &spec, guest::AGENT_MARKER)?;
            let (instances, keep) = (state.join("instances"), dir.path().join("kept"));
            let provider = node.provider.as_ref();
            let bare = Qemu::learn(provider, &instances, &node.snapshot, &node.snapshot_dir, &keep)
                .map_err(plain)?;
            rows.push(row(what("qemu"), &node, &bare, dir.path(), extent)?);
        }
    }
    Ok(Shown { rows, figures: Vec::new() })
}

/// The Firecracker of this host, or why there is none.
pub(crate) fn firecracker_here() -> Result<PathBuf, String> {
    let said = std::env::var_os("HEARTH_FIRECRACKER").map(PathBuf::from);
    said.ok_or_else(|| "HEARTH_FIRECRACKER does not say where a Firecracker is".to_owned())
}

/// What a QEMU of this host boots, or why there is none.
pub(crate) fn qemu_here() -> Result<VmSpec, String> {
    let binary = format!("qemu-system-{}", std::env::consts::ARCH);
    let ran = std::process::Command::new(&binary).arg("--version").output();
    if !ran.is_ok_and(|it| it.status.success()) {
        return Err(format!("{binary} is missing (scripts/setup installs it)"));
    }
    guest::agent().ok_or_else(|| "the guest image is missing (scripts/guest builds it)".to_owned())
}

fn row(
    what: String,
    node: &Node,
    bare: &dyn Driver,
    dir: &Path,
    extent: Extent,
) -> Result<Row, Box<dyn Error>> {
    let (blocks, per_block) = if extent.is_full { (40, 7) } else { (20, 3) };
    let dir = dir.join("bare");
    let measured = compare(
        blocks,
        |block| repeat(per_block, |number| node.timed(&format!("clone-{block}-{number}"))),
        |_| repeat(per_block, |_| bare::timed(bare, &dir).map_err(plain)),
    )?;
    Ok(Row::measured(what, BOUND, measured))
}

/// The median of so many restores, one after another.
fn repeat(
    count: usize,
    mut restore: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    (0..count).map(&mut restore).collect::<Result<_, _>>().map(median)
}
